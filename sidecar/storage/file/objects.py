"""Objects in a directory, read and written synchronously: each object is an ordinary file named by its key."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path

from sidecar.errors import PreconditionFailed
from sidecar.host import sync, write_all
from sidecar.model import Blob, Bytes, Condition, IfAbsent, IfMatch, ObjectInfo, Page, Span
from sidecar.storage.base import Expired
from sidecar.storage.file.attributes import Attributes
from sidecar.storage.file.layout import is_segment, path_of
from sidecar.storage.file.listing import keys
from sidecar.storage.file.primitives import bounds, etag_of, modified_at, opened, translated
from sidecar.storage.file.root import Root

BLOCK = 1 << 20


class Objects:
    """The operations of a store in a directory. Conditions are evaluated under the directory's lock.

    Every method raises `StoreMissing` if the directory, or the parent of a new store, does not exist.
    """

    def __init__(self, root: Root) -> None:
        self._root = root
        self._attributes = Attributes(root)

    def now(self) -> datetime:
        """The clock of the file system, which several machines may share; before the first object, that of this machine."""
        try:
            file = os.open(self._root.private / "clock", os.O_WRONLY | os.O_CREAT, 0o644)
        except OSError:
            return datetime.now(UTC)
        try:
            os.utime(file)
            return modified_at(os.fstat(file))
        finally:
            os.close(file)

    def get(self, key: str, span: Span | None, if_match: str | None, into: memoryview | None) -> Blob:
        """See `base.ObjectStore`."""
        with self._reading(), opened(self._path(key)) as file:
            status = os.fstat(file)
            if if_match not in {None, etag_of(status)}:
                raise PreconditionFailed(f"{key} has changed")
            start, end = bounds(span, status.st_size)
            if into is None or end - start > len(into):
                return Blob(os.pread(file, end - start, start), self._info(key, status))
            count = os.preadv(file, [into[: end - start]], start)
            return Blob(into[:count], self._info(key, status))

    def head(self, key: str) -> ObjectInfo:
        """See `base.ObjectStore`."""
        with self._reading(), opened(self._path(key)) as file:
            return self._info(key, os.fstat(file))

    def list(self, prefix: str, start_after: str, limit: int) -> Page:
        """See `base.ObjectStore`."""
        with self._reading():
            found = list(islice(keys(self._root.path, prefix, start_after), limit + 1))
            page = (_listed(key, self._path(key)) for key in found[:limit])
            return Page(tuple(info for info in page if info), len(found) > limit)

    def put(
        self, key: str, data: Bytes, condition: Condition, metadata: dict[str, str], tags: dict[str, str]
    ) -> ObjectInfo:
        """See `base.ObjectStore`."""
        temporary = self.begin()
        try:
            with translated(self._root.path):
                temporary.write_bytes(data)
            return self.publish(temporary, key, condition, metadata, tags)
        finally:
            self.discard(temporary)

    def discard(self, temporary: Path) -> None:
        """Remove a private file, unless it has become an object. A failure must not mask an earlier error."""
        with suppress(OSError):
            temporary.unlink(missing_ok=True)

    def begin(self) -> Path:
        """Create a private file that will become an object."""
        with translated(self._root.path):
            temporary = self._root.temporary()
            temporary.touch()
            return temporary

    def write(self, temporary: Path, offset: int, data: Bytes) -> None:
        """Write a part of a private file."""
        with translated(self._root.path), temporary.open("r+b", buffering=0) as file:
            write_all(file.fileno(), data, offset)

    def copy(self, temporary: Path, offset: int, source: ObjectInfo, span: Span) -> None:
        """Copy bytes of an object into a private file. Raises `PreconditionFailed` if the object has changed."""
        with translated(self._root.path), opened(self._path(source.key)) as origin:
            status = os.fstat(origin)
            if etag_of(status) != source.etag:
                raise PreconditionFailed(f"{source.key} has changed")
            start, end = bounds(span, status.st_size)
            with temporary.open("r+b", buffering=0) as file:
                while start < end:
                    block = os.pread(origin, min(BLOCK, end - start), start)
                    write_all(file.fileno(), block, offset)
                    start, offset = start + len(block), offset + len(block)

    def duplicate(self, source: ObjectInfo, key: str, metadata: dict[str, str]) -> ObjectInfo:
        """See `base.ObjectStore.copy`."""
        temporary = self.begin()
        try:
            if source.size:
                self.copy(temporary, 0, source, Span(0, source.size))
            return self.publish(temporary, key, None, metadata)
        finally:
            self.discard(temporary)

    def publish(
        self,
        temporary: Path,
        key: str,
        condition: Condition,
        metadata: dict[str, str],
        tags: dict[str, str] | None = None,
    ) -> ObjectInfo:
        """Give a finished private file its key if the condition is met; durable when this returns."""
        target = self._path(key)
        with translated(self._root.path):
            sync(temporary)
            with self._root.locked():
                self._root.folder(target.parent)
                self._require(key, condition)
                if not is_segment(key):
                    self._attributes.replace(key, metadata)
                os.replace(temporary, target)
                if tags and not is_segment(key):
                    self._attributes.set_tags(key, tags)
                for directory in self._root.folders(target):
                    sync(directory)
        return self.head(key)

    def tag(self, key: str, tags: dict[str, str]) -> None:
        """See `base.ObjectStore`."""
        self.head(key)
        with translated(self._root.path), self._root.locked():
            self.head(key)  # it may have been pruned while we waited for the lock
            self._attributes.set_tags(key, tags)

    def tags(self, key: str) -> dict[str, str]:
        """See `base.ObjectStore`."""
        self.head(key)
        with translated(self._root.path):
            return self._attributes.tags(key)

    def prune(self, expired: Sequence[Expired]) -> tuple[str, ...]:
        """See `base.Prunable`."""
        with translated(self._root.path), self._root.locked():
            return tuple(each.key for each in expired if self._remove(each))

    def _remove(self, expired: Expired) -> bool:
        key = expired.key
        path = self._path(key)
        try:
            if etag_of(os.stat(path)) != expired.etag:
                return False
        except FileNotFoundError:
            return False
        if not is_segment(key):
            if expired.tags is not None and self._attributes.tags(key) != expired.tags:
                return False
            path.unlink()
            self._attributes.remove(key)
            return True
        path.unlink()
        with suppress(OSError):  # the folder of its hour is not empty yet
            path.parent.rmdir()
        return True

    def _path(self, key: str) -> Path:
        path = self._root.path / path_of(key)
        if is_segment(key) and not path.exists() and (flat := self._root.path / key).exists():
            return flat  # it was copied here from S3
        return path

    @contextmanager
    def _reading(self) -> Iterator[None]:
        with translated(self._root.path):
            self._root.require()
            yield

    def _require(self, key: str, condition: Condition) -> None:
        """Raise `PreconditionFailed` unless the condition is met."""
        try:
            etag = etag_of(os.stat(self._path(key)))
        except FileNotFoundError:
            etag = None
        if (isinstance(condition, IfAbsent) and etag) or (isinstance(condition, IfMatch) and etag != condition.etag):
            raise PreconditionFailed(f"{key} is not in the expected state")

    def _info(self, key: str, status: os.stat_result) -> ObjectInfo:
        metadata = {} if is_segment(key) else self._attributes.metadata(key)
        return ObjectInfo(key, status.st_size, etag_of(status), modified_at(status), metadata)


def _listed(key: str, path: Path) -> ObjectInfo | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None  # pruned while we were listing
    return ObjectInfo(key, status.st_size, etag_of(status), modified_at(status))
