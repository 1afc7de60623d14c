"""A store in a local directory, `file:///dir`: conditional writes like those of S3, durable through fsync and rename.

Metadata and tags are stored under `.sidecar/` and are not needed for a restore; segments of streams have none, see
`layout`. Conditions are evaluated under a lock of the directory, so several processes can use it.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path

from anyio import to_thread

from sidecar.model import Blob, Bytes, Condition, IfAbsent, ObjectInfo, Page, Span
from sidecar.storage.base import Expired, Upload
from sidecar.storage.file.objects import Objects
from sidecar.storage.file.root import Root
from sidecar.storage.traits import DIRECTORY


class FileStore:
    """Implements `base.ObjectStore`, `base.Prunable` and `base.FileBacked`; the first write creates the directory.

    Every method works in a thread, and raises `StoreMissing` if the directory, or the parent of a new store, does not exist.
    """

    traits = DIRECTORY

    def __init__(self, directory: Path) -> None:
        self._root = Root(directory)
        self._objects = Objects(self._root)

    @property
    def url(self) -> str:
        """See `base.ObjectStore`."""
        return f"file://{self._root.path}"

    @property
    def identity(self) -> str | None:
        """See `base.FileBacked`."""
        return self._root.identity

    @property
    def directory(self) -> Path:
        """See `base.FileBacked`."""
        return self._root.path

    async def rehearse(self) -> None:
        """See `base.FileBacked`."""
        await to_thread.run_sync(self._root.rehearse)

    async def now(self) -> datetime:
        """The clock of the file system, which several machines may share; before the first object, that of this machine."""
        return await to_thread.run_sync(self._objects.now)

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """See `base.ObjectStore`."""
        return await to_thread.run_sync(self._objects.get, key, span, if_match, into)

    async def head(self, key: str) -> ObjectInfo:
        """See `base.ObjectStore`."""
        return await to_thread.run_sync(self._objects.head, key)

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """See `base.ObjectStore`."""
        return await to_thread.run_sync(self._objects.list, prefix, start_after, limit)

    async def put(
        self,
        key: str,
        data: Bytes,
        *,
        condition: Condition = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """See `base.ObjectStore`."""
        return await to_thread.run_sync(self._objects.put, key, data, condition, dict(metadata or {}), dict(tags or {}))

    @asynccontextmanager
    async def upload(self, key: str, *, metadata: Mapping[str, str]) -> AsyncIterator[Upload]:
        """See `base.ObjectStore`."""
        temporary = await to_thread.run_sync(self._objects.begin)
        try:
            yield _FileUpload(self._objects, key, temporary, dict(metadata))
        finally:
            self._objects.discard(temporary)

    async def copy(self, source: ObjectInfo, key: str, *, metadata: Mapping[str, str]) -> ObjectInfo:
        """See `base.ObjectStore`."""
        return await to_thread.run_sync(self._objects.duplicate, source, key, dict(metadata))

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """See `base.ObjectStore`; durable when this returns."""
        await to_thread.run_sync(self._objects.tag, key, dict(tags))

    async def tags(self, key: str) -> dict[str, str]:
        """See `base.ObjectStore`."""
        return await to_thread.run_sync(self._objects.tags, key)

    async def prune(self, expired: Sequence[Expired]) -> tuple[str, ...]:
        """See `base.Prunable`."""
        return await to_thread.run_sync(self._objects.prune, tuple(expired))


class _FileUpload:
    """Implements `base.Upload` by writing to a private file."""

    def __init__(self, objects: Objects, key: str, temporary: Path, metadata: dict[str, str]) -> None:
        self._objects = objects
        self._key = key
        self._temporary = temporary
        self._metadata = metadata

    async def put_part(self, number: int, offset: int, data: Bytes) -> None:
        await to_thread.run_sync(self._objects.write, self._temporary, offset, data)

    async def copy_part(self, number: int, offset: int, source: ObjectInfo, span: Span) -> None:
        await to_thread.run_sync(self._objects.copy, self._temporary, offset, source, span)

    async def complete(self) -> ObjectInfo:
        return await to_thread.run_sync(self._objects.publish, self._temporary, self._key, IfAbsent(), self._metadata)
