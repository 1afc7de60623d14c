"""Metadata and tags of objects in a directory: separate JSON files, which a restore does not need."""

import json
import os
from pathlib import Path

from sidecar.host import sync
from sidecar.storage.file.root import Root


class Attributes:
    """Metadata in `.sidecar/meta/<key>.json` and tags in `.sidecar/tags/<key>.json`. Methods raise OSError."""

    def __init__(self, root: Root) -> None:
        self._root = root

    def metadata(self, key: str) -> dict[str, str]:
        """The metadata of an object; empty if there is none or it is not readable."""
        try:
            return _read(self._metadata_path(key))
        except OSError:
            return {}

    def tags(self, key: str) -> dict[str, str]:
        """The tags of an object."""
        return _read(self._tags_path(key))

    def replace(self, key: str, metadata: dict[str, str]) -> None:
        """Set the attributes of a new object: this metadata, no tags. The caller holds the root's lock."""
        self._tags_path(key).unlink(missing_ok=True)  # first: an object never has the tags of another one
        self._write(self._metadata_path(key), metadata)

    def set_tags(self, key: str, tags: dict[str, str]) -> None:
        """Replace the tags of an object; durable when this returns. The caller holds the root's lock."""
        path = self._tags_path(key)
        self._write(path, tags, durable=True)
        for folder in self._root.folders(path):
            sync(folder)

    def remove(self, key: str) -> None:
        """Remove the attributes of a deleted object. The caller holds the root's lock."""
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
    """The values in a file; empty if it is missing or not JSON. Raises OSError."""
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return {}
