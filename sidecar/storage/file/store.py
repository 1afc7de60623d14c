"""A store in a local directory, `file:///dir`: same conditional semantics as S3, durable by fsync and rename.

An object is an ordinary file under its key; what S3 would keep as metadata and tags lies in `.sidecar/meta/<key>.json`
and `.sidecar/tags/<key>.json` and is not needed to restore. Conditional writes are decided under a lock of the
directory, so several processes may use one.
"""

import json
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from anyio import to_thread

from sidecar.errors import PreconditionFailed
from sidecar.model import Blob, Bytes, Condition, IfAbsent, IfMatch, ObjectInfo, Page, Span
from sidecar.storage.base import Upload
from sidecar.storage.file.primitives import bounds, etag_of, modified_at, opened, sync, translated, write_all
from sidecar.storage.file.root import PRIVATE, Root


class FileStore:
    """Implements `ports.ObjectStore`, `ports.Prunable`, `ports.FileBacked` on a directory, made when it is first written to.

    Every method raises `StoreMissing` when it, or the directory above a new one, is not there.
    """

    minimum_part = 1
    maximum_parts = 10_000

    def __init__(self, directory: Path) -> None:
        self._directory = Root(directory)
        self._root = directory

    @property
    def url(self) -> str:
        """See `ports.ObjectStore`."""
        return f"file://{self._root}"

    @property
    def identity(self) -> str | None:
        """See `ports.FileBacked`."""
        return self._directory.identity

    @property
    def directory(self) -> Path:
        """See `ports.FileBacked`."""
        return self._root

    async def rehearse(self) -> None:
        """See `ports.FileBacked`."""
        await to_thread.run_sync(self._rehearse)

    async def now(self) -> datetime:
        """The clock of its file system, which several machines may share; before the first object this machine's."""
        return await to_thread.run_sync(self._now)

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """See `ports.ObjectStore`."""
        return await to_thread.run_sync(self._get, key, span, if_match, into)

    async def head(self, key: str) -> ObjectInfo:
        """See `ports.ObjectStore`."""
        return await to_thread.run_sync(self._head, key)

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """See `ports.ObjectStore`."""
        return await to_thread.run_sync(self._list, prefix, start_after, limit)

    async def put(
        self, key: str, data: Bytes, *, condition: Condition = None, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """See `ports.ObjectStore`."""
        return await to_thread.run_sync(self._put, key, data, condition, dict(metadata or {}))

    @asynccontextmanager
    async def upload(self, key: str, *, metadata: Mapping[str, str]) -> AsyncIterator[Upload]:
        """See `ports.ObjectStore`."""
        with translated(self._root):
            temporary = await to_thread.run_sync(self._directory.temporary)
            temporary.touch()
        try:
            yield _FileUpload(self, key, temporary, dict(metadata))
        finally:
            temporary.unlink(missing_ok=True)

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """See `ports.ObjectStore`; durable when this returns."""
        await to_thread.run_sync(self._tag, key, dict(tags))

    async def tags(self, key: str) -> dict[str, str]:
        """See `ports.ObjectStore`."""
        return await to_thread.run_sync(self._tags, key)

    async def tagged(self, prefix: str) -> dict[str, dict[str, str]]:
        """See `ports.Prunable`."""
        return await to_thread.run_sync(self._tagged, prefix)

    async def prune(self, expired: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
        """See `ports.Prunable`."""
        return await to_thread.run_sync(self._prune, {key: dict(tags) for key, tags in expired.items()})

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self._root / key

    def publish(self, temporary: Path, key: str, condition: Condition, metadata: dict[str, str]) -> ObjectInfo:
        """Give a finished, private file its key, if the condition holds; durable when this returns."""
        target = self.path(key)
        sync(temporary)
        with self._directory.locked():
            self._directory.folder(target.parent)
            self._check(key, condition)
            self._tags_path(key).unlink(missing_ok=True)  # first: an object never has the tags of another one
            self._write(self._metadata_path(key), metadata)
            os.replace(temporary, target)
            for directory in self._directory.folders(target):
                sync(directory)
        return self._head(key)

    def _rehearse(self) -> None:
        with self._reading():
            self._directory.rehearse()

    def _now(self) -> datetime:
        try:
            file = os.open(self._directory.private / "clock", os.O_WRONLY | os.O_CREAT, 0o644)
        except OSError:
            return datetime.now(UTC)
        try:
            os.utime(file)
            return modified_at(os.fstat(file))
        finally:
            os.close(file)

    def _check(self, key: str, condition: Condition) -> None:
        try:
            etag = etag_of(os.stat(self.path(key)))
        except FileNotFoundError:
            etag = None
        if (isinstance(condition, IfAbsent) and etag) or (isinstance(condition, IfMatch) and etag != condition.etag):
            raise PreconditionFailed(f"{key} is not in the expected state")

    def _get(self, key: str, span: Span | None, if_match: str | None, into: memoryview | None) -> Blob:
        with self._reading(), opened(self.path(key)) as file:
            status = os.fstat(file)
            if if_match not in {None, etag_of(status)}:
                raise PreconditionFailed(f"{key} has changed")
            start, end = bounds(span, status.st_size)
            if into is None or end - start > len(into):
                return Blob(os.pread(file, end - start, start), self._info(key, status))
            count = os.preadv(file, [into[: end - start]], start)
            return Blob(into[:count], self._info(key, status))

    def _head(self, key: str) -> ObjectInfo:
        with self._reading(), opened(self.path(key)) as file:
            return self._info(key, os.fstat(file))

    def _info(self, key: str, status: os.stat_result) -> ObjectInfo:
        return ObjectInfo(key, status.st_size, etag_of(status), modified_at(status), self._read_metadata(key))

    def _list(self, prefix: str, start_after: str, limit: int) -> Page:
        with self._reading():
            keys = sorted(key for key in self._keys(prefix) if key.startswith(prefix) and key > start_after)
            page = (self._listed(key) for key in keys[:limit])
            return Page(tuple(info for info in page if info), len(keys) > limit)

    def _keys(self, prefix: str) -> Iterator[str]:
        folder = self.path(prefix).parent if "/" in prefix else self._root
        for directory, folders, names in os.walk(folder, onerror=_unless_missing):
            folders[:] = [name for name in folders if name != PRIVATE]
            yield from (Path(directory, name).relative_to(self._root).as_posix() for name in names)

    def _listed(self, key: str) -> ObjectInfo | None:
        try:
            status = os.stat(self.path(key))
        except FileNotFoundError:
            return None  # pruned while we were listing
        return ObjectInfo(key, status.st_size, etag_of(status), modified_at(status))

    def _put(self, key: str, data: Bytes, condition: Condition, metadata: dict[str, str]) -> ObjectInfo:
        with translated(self._root):
            temporary = self._directory.temporary()
            try:
                temporary.write_bytes(data)
                return self.publish(temporary, key, condition, metadata)
            finally:
                temporary.unlink(missing_ok=True)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with translated(self._root):
            self._directory.require()
            yield

    def _metadata_path(self, key: str) -> Path:
        return self._directory.private / "meta" / f"{key}.json"

    def _tags_path(self, key: str) -> Path:
        return self._directory.private / "tags" / f"{key}.json"

    def _tag(self, key: str, tags: dict[str, str]) -> None:
        with translated(self._root):
            self._head(key)
            with self._directory.locked():
                self._head(key)  # pruned while we waited for the lock
                path = self._tags_path(key)
                self._write(path, tags, durable=True)
                for folder in self._directory.folders(path):
                    sync(folder)

    def _tags(self, key: str) -> dict[str, str]:
        self._head(key)
        with translated(self._root):
            return _read(self._tags_path(key))

    def _tagged(self, prefix: str) -> dict[str, dict[str, str]]:
        with self._reading():
            found = {key: _read(self._tags_path(key)) for key in self._keys(prefix) if key.startswith(prefix)}
            return {key: tags for key, tags in found.items() if tags}

    def _prune(self, expired: dict[str, dict[str, str]]) -> tuple[str, ...]:
        pruned = []
        with translated(self._root), self._directory.locked():
            for key, tags in expired.items():
                if tags and _read(self._tags_path(key)) == tags:
                    self.path(key).unlink(missing_ok=True)
                    self._tags_path(key).unlink(missing_ok=True)
                    self._metadata_path(key).unlink(missing_ok=True)
                    pruned.append(key)
        return tuple(pruned)

    def _write(self, path: Path, values: dict[str, str], *, durable: bool = False) -> None:
        self._directory.folder(path.parent)
        temporary = self._directory.temporary()
        temporary.write_text(json.dumps(values))
        if durable:
            sync(temporary)
        os.replace(temporary, path)

    def _read_metadata(self, key: str) -> dict[str, str]:
        try:
            return _read(self._metadata_path(key))
        except OSError:
            return {}


class _FileUpload:
    """Implements `ports.Upload` with writes at offsets of a private file."""

    def __init__(self, store: FileStore, key: str, temporary: Path, metadata: dict[str, str]) -> None:
        self._store = store
        self._key = key
        self._temporary = temporary
        self._metadata = metadata

    async def put_part(self, number: int, offset: int, data: Bytes) -> None:
        await to_thread.run_sync(self._write, offset, data)

    async def copy_part(self, number: int, offset: int, source: ObjectInfo, span: Span) -> None:
        await to_thread.run_sync(self._copy, offset, source, span)

    async def complete(self) -> ObjectInfo:
        publish = partial(self._store.publish, self._temporary, self._key, IfAbsent(), self._metadata)
        with translated(self._temporary):
            return await to_thread.run_sync(publish)

    def _write(self, offset: int, data: Bytes) -> None:
        with translated(self._temporary), self._temporary.open("r+b", buffering=0) as file:
            write_all(file.fileno(), data, offset)

    def _copy(self, offset: int, source: ObjectInfo, span: Span) -> None:
        with translated(self._temporary), opened(self._store.path(source.key)) as origin:
            status = os.fstat(origin)
            if etag_of(status) != source.etag:
                raise PreconditionFailed(f"{source.key} has changed")
            start, end = bounds(span, status.st_size)
            with self._temporary.open("r+b", buffering=0) as file:
                while start < end:
                    block = os.pread(origin, min(1 << 20, end - start), start)
                    write_all(file.fileno(), block, offset)
                    start, offset = start + len(block), offset + len(block)


def _read(path: Path) -> dict[str, str]:
    """What was written beside an object; nothing when that is missing or no JSON. Raises OSError."""
    try:
        return dict(json.loads(path.read_text()))
    except (FileNotFoundError, NotADirectoryError, ValueError, TypeError):
        return {}


def _unless_missing(error: OSError) -> None:
    """A folder that cannot be read must not look like an empty store."""
    if not isinstance(error, FileNotFoundError):
        raise error
