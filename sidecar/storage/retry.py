"""Retrying and metering: decorators of `ports.ObjectStore`. Nothing else in the program retries a request.

A conditional write whose reply was lost is the trap here: the second attempt finds our own object and is told that
somebody was there before. So every write carries a request id of its own in the object's metadata, and a refusal that
follows a failed attempt is checked against it.
"""

import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar

import anyio
import structlog
import tenacity

from sidecar.errors import NotFound, PreconditionFailed, SidecarError, StoreUnavailable, Throttled, Transient
from sidecar.model import Blob, Bytes, Condition, ObjectInfo, Page, Span
from sidecar.status.model import Status
from sidecar.storage.base import Clock, ObjectStore, Upload

T = TypeVar("T")

log = structlog.get_logger()

REQUEST_ID = "sidecar-request"


class Decorated:
    """An `ObjectStore` around another: subclasses say what happens `_around` each attempt and each `_write`."""

    def __init__(self, inner: ObjectStore) -> None:
        self._inner = inner
        self.url = inner.url
        self.minimum_part = inner.minimum_part
        self.maximum_parts = inner.maximum_parts

    async def _around(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        raise NotImplementedError

    def moved(self, *, sent: int = 0, received: int = 0) -> None:
        """Bytes went over the wire."""

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
        return await self._around(operation, attempt)

    async def now(self) -> datetime:
        """See `ports.ObjectStore`."""
        return await self._around("now", self._inner.now)

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """See `ports.ObjectStore`."""
        blob = await self._around("get", lambda: self._inner.get(key, span=span, if_match=if_match, into=into))
        self.moved(received=len(blob.data))
        return blob

    async def head(self, key: str) -> ObjectInfo:
        """See `ports.ObjectStore`."""
        return await self._around("head", lambda: self._inner.head(key))

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """See `ports.ObjectStore`."""
        return await self._around("list", lambda: self._inner.list(prefix, start_after=start_after, limit=limit))

    async def put(
        self, key: str, data: Bytes, *, condition: Condition = None, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """See `ports.ObjectStore`."""
        signed = self._sign(metadata)
        self.moved(sent=len(data))
        return await self._write(
            "put", key, signed, lambda: self._inner.put(key, data, condition=condition, metadata=signed), len(data)
        )

    @asynccontextmanager
    async def upload(self, key: str, *, metadata: Mapping[str, str]) -> AsyncIterator[Upload]:
        """See `ports.ObjectStore`."""
        signed = self._sign(metadata)

        async with AsyncExitStack() as stack:

            async def begin() -> Upload:
                return await stack.enter_async_context(self._inner.upload(key, metadata=signed))

            upload = await self._around("create_upload", begin)
            yield _DecoratedUpload(self, key, signed, upload)

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """See `ports.ObjectStore`."""
        await self._around("tag", lambda: self._inner.tag(key, tags))

    async def tags(self, key: str) -> dict[str, str]:
        """See `ports.ObjectStore`."""
        return await self._around("tags", lambda: self._inner.tags(key))

    async def part(self, operation: str, attempt: Callable[[], Awaitable[None]]) -> None:
        """A request of an upload, decorated."""
        await self._around(operation, attempt)

    async def complete(self, key: str, metadata: Mapping[str, str], upload: Upload) -> ObjectInfo:
        """The last request of an upload, decorated."""
        return await self._write("complete_upload", key, metadata, upload.complete)


class _DecoratedUpload:
    """An `Upload` whose requests go through the decorator that made it."""

    def __init__(self, store: Decorated, key: str, metadata: Mapping[str, str], inner: Upload) -> None:
        self._store = store
        self._key = key
        self._metadata = metadata
        self._inner = inner

    async def put_part(self, number: int, offset: int, data: Bytes) -> None:
        """See `ports.Upload`."""
        self._store.moved(sent=len(data))
        await self._store.part("put_part", lambda: self._inner.put_part(number, offset, data))

    async def copy_part(self, number: int, offset: int, source: ObjectInfo, span: Span) -> None:
        """See `ports.Upload`."""
        await self._store.part("copy_part", lambda: self._inner.copy_part(number, offset, source, span))

    async def complete(self) -> ObjectInfo:
        """See `ports.Upload`."""
        return await self._store.complete(self._key, self._metadata, self._inner)


class Metered(Decorated):
    """Counts and times every attempt in `Status`, and the bytes that it moves."""

    def __init__(self, inner: ObjectStore, clock: Clock, status: Status) -> None:
        super().__init__(inner)
        self._clock = clock
        self._status = status

    async def _around(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        started = self._clock.monotonic()
        outcome = "cancelled"
        self._status.in_flight += 1
        try:
            result = await attempt()
            outcome = "ok"
        except SidecarError as error:
            outcome = _OUTCOMES.get(type(error), "failed")
            self._status.trouble = error.message if isinstance(error, Transient) else None
            raise
        else:
            self._status.trouble = None
        finally:
            self._status.in_flight -= 1
            self._status.count_request(operation, outcome, self._clock.monotonic() - started)
        return result

    def moved(self, *, sent: int = 0, received: int = 0) -> None:
        """See `Decorated`. Of an upload that fails on its way the whole is counted."""
        self._status.sent += sent
        self._status.received += received


_OUTCOMES = {NotFound: "not_found", PreconditionFailed: "precondition_failed", Throttled: "throttled"}


@dataclass(frozen=True, slots=True)
class Patience:
    """How long, in seconds, an operation is tried again, and the backoff between attempts (full jitter)."""

    give_up_after: float
    first: float = 0.2
    longest: float = 10.0
    cut: bool = False  # whether an attempt under way ends with it too


class Retrying(Decorated):
    """Tries `Transient` failures again until patience ends; recognizes writes of its own whose reply was lost."""

    def __init__(self, inner: ObjectStore, clock: Clock, patience: Patience) -> None:
        super().__init__(inner)
        self._clock = clock
        self._patience = patience

    async def _around(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        last: Transient | None = None

        async def once() -> T:  # tenacity awaits coroutine functions only
            nonlocal last
            try:
                return await attempt()
            except Transient as error:
                last = error
                raise

        policy = patiently(self._clock, self._patience, f"store request {operation}")
        if not self._patience.cut:
            return await policy(once)
        with anyio.move_on_after(self._patience.give_up_after):
            return await policy(once)
        if last:
            raise last
        raise StoreUnavailable(
            f"{self.url} did not answer within {self._patience.give_up_after:.0f} s",
            "check the network and the endpoint",
        )

    def _sign(self, metadata: Mapping[str, str] | None) -> Mapping[str, str]:
        return {**(metadata or {}), REQUEST_ID: secrets.token_hex(8)}

    async def _write(
        self,
        operation: str,
        key: str,
        metadata: Mapping[str, str],
        attempt: Callable[[], Awaitable[ObjectInfo]],
        size: int | None = None,
    ) -> ObjectInfo:
        uncertain = False

        async def once() -> ObjectInfo:
            nonlocal uncertain
            try:
                return await attempt()
            except Transient:
                uncertain = True
                raise
            except (PreconditionFailed, NotFound) as refusal:
                if not uncertain:
                    raise
                return await self._mine(key, metadata, size, refusal)

        return await self._around(operation, once)

    async def _mine(self, key: str, metadata: Mapping[str, str], size: int | None, refusal: SidecarError) -> ObjectInfo:
        """The object under `key` if an earlier attempt of ours wrote all of it, else the refusal.

        Some stores (SeaweedFS 4.48) keep an empty object of a PUT whose sender left before the body.
        """
        try:
            found = await self._inner.head(key)
        except NotFound:
            raise refusal from None
        if found.metadata.get(REQUEST_ID) != metadata[REQUEST_ID] or size not in {None, found.size}:
            raise refusal
        return found


def patiently(clock: Clock, patience: Patience, what: str) -> tenacity.AsyncRetrying:
    """A retry policy for the `Transient` family: exponential backoff, full jitter, bounded in time."""
    started = clock.monotonic()

    def wait(state: tenacity.RetryCallState) -> float:
        return clock.random() * float(min(patience.longest, patience.first * 2 ** min(state.attempt_number, 30)))

    def out_of_time(state: tenacity.RetryCallState) -> bool:
        return clock.monotonic() - started + state.upcoming_sleep > patience.give_up_after

    def tell(state: tenacity.RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        log.info("trying again", what=what, attempt=state.attempt_number, error=str(error))

    return tenacity.AsyncRetrying(
        retry=tenacity.retry_if_exception_type(Transient),
        wait=wait,
        stop=out_of_time,
        sleep=clock.sleep,
        before_sleep=tell,
        reraise=True,
    )
