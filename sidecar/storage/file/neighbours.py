"""Directories beside the store that may be the intended store."""

import os
from itertools import islice
from pathlib import Path

from anyio import to_thread

from sidecar.storage.similarity import similar_names

LOOKED_AT = 1000


class DirectoryNeighbours:
    """Implements `base.Neighbours` for a store in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    async def similar(self, folder: str) -> tuple[str, ...]:
        """See `base.Neighbours`."""
        return await to_thread.run_sync(self._find, folder, abandon_on_cancel=True)

    def _find(self, folder: str) -> tuple[str, ...]:
        parent = self._directory.parent
        with os.scandir(parent) as entries:
            names = [each.name for each in islice(entries, LOOKED_AT) if each.is_dir()]
        found = similar_names(self._directory.name, names)
        return tuple(f"file://{parent / each}" for each in found if _has_objects(parent / each / folder))


def _has_objects(folder: Path) -> bool:
    return folder.is_dir() and any(folder.iterdir())
