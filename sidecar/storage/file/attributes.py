"""Metadata and tags of objects in a directory: JSON files of their own, which a restore does not need."""

import json
import os
from pathlib import Path

from sidecar.host import sync
from sidecar.storage.file.root import Root


class Attributes:
    """What S3 keeps with an object, in `.sidecar/meta/<key>.json` and `.sidecar/tags/<key>.json`. Raises OSError."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def metadata(self, key: str) -> dict[str, str]:
        """The metadata of an object; empty when it has none or may not be read."""
        try:
            return _read(self._metadata_path(key))
        except OSError:
            return {}

    def tags(self, key: str) -> dict[str, str]:
        """The tags of an object."""
        return _read(self._tags_path(key))

    def replace(self, key: str, metadata: dict[str, str]) -> None:
        """Those of an object that is about to get this key: no tags, and this metadata. Under the root's lock."""
        self._tags_path(key).unlink(missing_ok=True)  # first: an object never has the tags of another one
        self._write(self._metadata_path(key), metadata)

    def set_tags(self, key: str, tags: dict[str, str]) -> None:
        """Replace the tags of an object; durable when this returns. Under the root's lock."""
        path = self._tags_path(key)
        self._write(path, tags, durable=True)
        for folder in self._root.folders(path):
            sync(folder)

    def remove(self, key: str) -> None:
        """Forget an object that was deleted. Under the root's lock."""
        self._tags_path(key).unlink(missing_ok=True)
        self._metadata_path(key).unlink(missing_ok=True)

    def _metadata_path(self, key: str) -> Path:
        return self._root.private / "meta" / f"{key}.json"

    def _tags_path(self, key: str) -> Path:
        return self._root.private / "tags" / f"{key}.json"

    def _write(self, path: Path, values: dict[str, str], *, durable: bool = False) -> None:
        self._root.folder(path.parent)
        temporary = self._root.temporary()
        temporary.write_text(json.dumps(values))
        if durable:
            sync(temporary)
        os.replace(temporary, path)


def _read(path: Path) -> dict[str, str]:
    """Empty when the file is missing or is not JSON. Raises OSError."""
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return {}
