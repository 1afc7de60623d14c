"""The base class of decorators: stores that do something around each request to another store."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import datetime
from typing import TypeVar

from sidecar.model import Blob, Bytes, Condition, ObjectInfo, Page, Span
from sidecar.storage.base import ObjectStore, Upload
from sidecar.storage.traits import Traits

T = TypeVar("T")


class Decorated:
    """An `ObjectStore` around another one. Subclasses define what happens `around` each attempt and each `_write`."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner
        self.url = inner.url

    @property
    def traits(self) -> Traits:
        """See `base.ObjectStore`."""
        return self._inner.traits

    async def around(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Make a request by awaiting `attempt`, once or several times."""
        raise NotImplementedError

    def moved(self, *, sent: int = 0, received: int = 0) -> None:
        """Called with the number of bytes that were transferred."""

    def _sign(self, metadata: Mapping[str, str] | None) -> Mapping[str, str]:
        return metadata or {}

    async def _write(
        self,
        operation: str,
        key: str,
        metadata: Mapping[str, str],
        attempt: Callable[[], Awaitable[ObjectInfo]],
        size: int | None = None,
    ) -> ObjectInfo:
        return await self.around(operation, attempt)

    async def now(self) -> datetime:
        """See `base.ObjectStore`."""
        return await self.around("now", self._inner.now)

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """See `base.ObjectStore`."""
        blob = await self.around("get", lambda: self._inner.get(key, span=span, if_match=if_match, into=into))
        self.moved(received=len(blob.data))
        return blob

    async def head(self, key: str) -> ObjectInfo:
        """See `base.ObjectStore`."""
        return await self.around("head", lambda: self._inner.head(key))

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """See `base.ObjectStore`."""
        return await self.around("list", lambda: self._inner.list(prefix, start_after=start_after, limit=limit))

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
        signed = self._sign(metadata)
        self.moved(sent=len(data))

        async def attempt() -> ObjectInfo:
            return await self._inner.put(key, data, condition=condition, metadata=signed, tags=tags)

        return await self._write("put", key, signed, attempt, len(data))

    @asynccontextmanager
    async def upload(self, key: str, *, metadata: Mapping[str, str]) -> AsyncIterator[Upload]:
        """See `base.ObjectStore`."""
        signed = self._sign(metadata)

        async with AsyncExitStack() as stack:

            async def begin() -> Upload:
                return await stack.enter_async_context(self._inner.upload(key, metadata=signed))

            upload = await self.around("create_upload", begin)
            yield _DecoratedUpload(self, key, signed, upload)

    async def copy(self, source: ObjectInfo, key: str, *, metadata: Mapping[str, str]) -> ObjectInfo:
        """See `base.ObjectStore`. It may be repeated: the same object is written again."""
        return await self.around("copy", lambda: self._inner.copy(source, key, metadata=metadata))

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """See `base.ObjectStore`."""
        await self.around("tag", lambda: self._inner.tag(key, tags))

    async def tags(self, key: str) -> dict[str, str]:
        """See `base.ObjectStore`."""
        return await self.around("tags", lambda: self._inner.tags(key))

    async def complete(self, key: str, metadata: Mapping[str, str], upload: Upload) -> ObjectInfo:
        """Make the last request of an upload, decorated."""
        return await self._write("complete_upload", key, metadata, upload.complete)


class _DecoratedUpload:
    """An `Upload` whose requests go through the decorator that created it."""

    def __init__(self, store: Decorated, key: str, metadata: Mapping[str, str], inner: Upload) -> None:
        self._store = store
        self._key = key
        self._metadata = metadata
        self._inner = inner

    async def put_part(self, number: int, offset: int, data: Bytes) -> None:
        """See `base.Upload`."""
        self._store.moved(sent=len(data))
        await self._store.around("put_part", lambda: self._inner.put_part(number, offset, data))

    async def copy_part(self, number: int, offset: int, source: ObjectInfo, span: Span) -> None:
        """See `base.Upload`."""
        await self._store.around("copy_part", lambda: self._inner.copy_part(number, offset, source, span))

    async def complete(self) -> ObjectInfo:
        """See `base.Upload`."""
        return await self._store.complete(self._key, self._metadata, self._inner)
