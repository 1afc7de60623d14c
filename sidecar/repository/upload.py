"""Stores parts as one object: completely or not at all, never over an existing one, and verified afterwards."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream

from sidecar.concurrency import run_all
from sidecar.errors import (
    ConfigurationError,
    NotFound,
    PreconditionFailed,
    ReuseFailed,
    StoreUnavailable,
    Transient,
)
from sidecar.log import log
from sidecar.model import IfAbsent, ObjectInfo
from sidecar.repository.parts import Part, UploadPart
from sidecar.storage import ObjectStore, Upload

Permit = Callable[[], Awaitable[object]]
"""Called right before an object becomes visible; if it raises, the upload raises that error."""

HINT = "check whether a proxy in front of the store answered in its place"


async def always() -> None:
    """The permit for objects that no other machine can write."""


class ObjectUpload:
    """The upload of one object, whose key must not exist yet: one PUT if it is a single part, else a multipart upload."""

    def __init__(
        self,
        store: ObjectStore,
        key: str,
        metadata: dict[str, str],
        *,
        concurrency: int = 4,
        permit: Permit = always,
    ) -> None:
        self._store = store
        self._key = key
        self._metadata = metadata
        self._concurrency = concurrency
        self._permit = permit

    async def run(self, parts: MemoryObjectReceiveStream[Part]) -> ObjectInfo:
        """Store the parts as they arrive, and make the object visible at the end.

        Raises `PreconditionFailed` if the key exists, `ReuseFailed` if a copy is impossible. When this raises, nothing
        is visible under the key, unless the error is `Transient`: then the object may exist, whole or truncated.
        """
        published = await self._store_parts(parts)
        await self._require_stored(published)
        return published

    async def _store_parts(self, parts: MemoryObjectReceiveStream[Part]) -> ObjectInfo:
        first = [await parts.receive()]
        with suppress(anyio.EndOfStream):
            first.append(await parts.receive())
        if len(first) == 1 and isinstance(first[0], UploadPart):
            await self._permit()
            return await self._store.put(self._key, first[0].data, condition=IfAbsent(), metadata=self._metadata)
        try:
            async with self._store.upload(self._key, metadata=self._metadata) as upload:
                # `first` is emptied as parts are sent, so that each part's memory is freed as early as possible.
                await run_all(*[partial(_send_parts, upload, first, parts)] * self._concurrency)
                await self._permit()
                return await upload.complete()
        except NotFound as error:
            raise StoreUnavailable(
                f"the upload of {self._key} disappeared: {error.message}", "it is started again"
            ) from error

    async def _require_stored(self, published: ObjectInfo) -> None:
        """Raise unless the store has the whole object: a proxy or a server may have replied before it read everything."""
        try:
            found = await self._store.head(published.key)
        except NotFound:
            raise StoreUnavailable(f"the store accepted {published.key} but does not have it", HINT) from None
        except Transient as error:
            log.warning("stored object not verified", key=published.key, error=error.message)
            return
        if found.size != published.size:
            raise StoreUnavailable(
                f"the store kept {found.size} of the {published.size} bytes of {published.key}", HINT
            )


async def _send_parts(upload: Upload, first: list[Part], parts: MemoryObjectReceiveStream[Part]) -> None:
    """Send the parts that were already received, then the following ones."""
    while first:
        await _send_part(upload, first.pop(0))
    async for part in parts:
        await _send_part(upload, part)
        del part  # a part is large, and the next one may be long in coming


async def _send_part(upload: Upload, part: Part) -> None:
    if isinstance(part, UploadPart):
        await upload.put_part(part.number, part.offset, part.data)
        part.release()  # not after a failure: an abandoned attempt may still be reading the memory
        return
    try:
        await upload.copy_part(part.number, part.offset, part.source, part.span)
    except (NotFound, PreconditionFailed, ConfigurationError) as error:
        raise ReuseFailed(f"{part.source.key} cannot be copied from: {error.message}") from error
