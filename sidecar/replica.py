"""The key layout, and restore points as objects: newest, list, publish.

<database>/20261120T145503.123Z.sqlite3.zst                  a restore point
diverged/<database>/20261120T145503.123Z-<holder>.sqlite3.zst   one that is kept aside
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from urllib.parse import quote, unquote

import anyio
from anyio.streams.memory import MemoryObjectReceiveStream, MemoryObjectSendStream

from sidecar.domain import IfAbsent, ObjectInfo, RestorePoint, Timestamp
from sidecar.errors import NotFound, NothingToRestore, StoreUnavailable
from sidecar.pipeline import together
from sidecar.ports import ObjectStore, Upload

SUFFIX = ".sqlite3.zst"
DIVERGED = "diverged"
RESERVED_NAMES = frozenset({DIVERGED, "lease.json", ".sidecar"})
WINDOWS = (timedelta(days=1), timedelta(days=16), timedelta(days=256))
MARGIN = 1.15

Part = tuple[int, int, bytes]
Writer = Callable[[bytes], Awaitable[None]]


def folder_of(database: str, *, diverged: bool = False) -> str:
    """The prefix of a database's restore points, with its slash."""
    return f"{DIVERGED}/{quote(database, safe='')}/" if diverged else f"{quote(database, safe='')}/"


def key_of(database: str, timestamp: Timestamp) -> str:
    """The key of a restore point."""
    return f"{folder_of(database)}{timestamp}{SUFFIX}"


def diverged_key_of(database: str, timestamp: Timestamp, holder: str) -> str:
    """The key of a state that lost a conflict."""
    return f"{folder_of(database, diverged=True)}{timestamp}-{quote(holder, safe='')}{SUFFIX}"


def point_of(info: ObjectInfo) -> RestorePoint | None:
    """The restore point behind an object, or None when its key is of another form."""
    folder, _, name = info.key.rpartition("/")
    stem, suffix = name[: -len(SUFFIX)], name[-len(SUFFIX) :]
    text, _, holder = stem.partition("-")
    diverged = folder.startswith(f"{DIVERGED}/")
    if suffix != SUFFIX or bool(holder) != diverged:
        return None
    try:
        timestamp = Timestamp(text)
    except ValueError:
        return None
    database = unquote(folder.removeprefix(f"{DIVERGED}/") if diverged else folder)
    ours = diverged_key_of(database, timestamp, unquote(holder)) if diverged else key_of(database, timestamp)
    if not database or info.key != ours:  # a foreign object: deeper folders, another encoding
        return None
    return RestorePoint(info.key, database, timestamp, info.size, info.etag, info.metadata, unquote(holder) or None)


class Replica:
    """Restore points in an object store."""

    def __init__(self, store: ObjectStore, *, part_size: int = 8 << 20, concurrency: int = 4) -> None:
        self.store = store
        self.part_size = max(part_size, store.minimum_part)
        self.concurrency = concurrency

    async def newest(self, database: str) -> RestorePoint | None:
        """The newest restore point: keys of the last day are listed, then of ever longer spans, never all at once."""
        now = await self.store.now()
        for window in WINDOWS:
            after = f"{folder_of(database)}{Timestamp.of(now - window)}"
            last = [point async for point in self._points(folder_of(database), after)][-1:]
            if last:
                return last[0]
        last = [point async for point in self.points(database)][-1:]
        return last[0] if last else None

    def points(self, database: str, *, diverged: bool = False) -> AsyncIterator[RestorePoint]:
        """Every restore point of a database, oldest first."""
        return self._points(folder_of(database, diverged=diverged), "")

    async def find(self, database: str, at: Timestamp) -> RestorePoint:
        """The newest restore point that is not newer than `at`. Raises `NothingToRestore`."""
        found = [point async for point in self.points(database) if point.timestamp <= at]
        if not found:
            raise NothingToRestore(f"{database} has no restore point at or before {at}", "see `sidecar list`")
        return found[-1]

    async def stamp(self, database: str, above: Timestamp | None) -> Timestamp:
        """A timestamp for the next restore point: the store's clock, and above every one already there."""
        if above is None and (newest := await self.newest(database)):
            above = newest.timestamp
        now = Timestamp.of(await self.store.now())
        return max(now, above.next()) if above else now

    def part_size_for(self, database_size: int) -> int:
        """The size of parts for an object of at most about this size, so that there are not too many of them."""
        return max(self.part_size, int(database_size * MARGIN) // self.store.maximum_parts + 1)

    async def publish(
        self, key: str, part_size: int, metadata: dict[str, str], produce: Callable[[Writer], Awaitable[None]]
    ) -> ObjectInfo:
        """Publish what `produce` writes, if `key` does not exist yet: in one PUT if it is small, else in parts.

        Raises `PreconditionFailed` when the key exists. When this raises, nothing is visible under the key, unless the
        error is `OutcomeUnknown`.
        """
        send, receive = anyio.create_memory_object_stream[Part](0)
        published: list[ObjectInfo] = []

        async def feed() -> None:
            parts = _Parts(send, part_size)
            await produce(parts.write)
            await parts.flush()
            # Closed only here: a producer that fails must never look like the end of the object.
            await send.aclose()

        async def drain() -> None:
            published.append(await self._store_parts(receive, key, metadata))

        with send, receive:
            await together(feed, drain)
        return published[0]

    async def _store_parts(
        self, receive: MemoryObjectReceiveStream[Part], key: str, metadata: dict[str, str]
    ) -> ObjectInfo:
        first = await receive.receive()
        try:
            second = await receive.receive()
        except anyio.EndOfStream:
            return await self.store.put(key, first[2], condition=IfAbsent(), metadata=metadata)
        begun = [first, second]
        del first, second  # every part is to be forgotten as soon as it was sent
        try:
            async with self.store.upload(key, metadata=metadata) as upload:
                await together(*[partial(_send_parts, upload, begun, receive)] * self.concurrency)
                return await upload.complete()
        except NotFound as error:
            raise StoreUnavailable(f"the upload of {key} disappeared: {error.message}", "it is begun anew") from error

    async def _points(self, folder: str, after: str) -> AsyncIterator[RestorePoint]:
        while True:
            page = await self.store.list(folder, start_after=after)
            for info in page.objects:
                if point := point_of(info):
                    yield point
            if not page.more:
                return
            after = page.objects[-1].key


class _Parts:
    """Cuts a stream of bytes into numbered parts of equal size, holding no more than one of them."""

    def __init__(self, send: MemoryObjectSendStream[Part], size: int) -> None:
        self._send = send
        self._size = size
        self._pieces: list[bytes] = []
        self._held = 0
        self._number = 0
        self._offset = 0

    async def write(self, data: bytes) -> None:
        while self._held + len(data) >= self._size:
            cut = self._size - self._held
            self._add(data[:cut])
            data = data[cut:]
            await self.flush()
        self._add(data)

    async def flush(self) -> None:
        if not self._held:
            return
        part = b"".join(self._pieces)
        self._pieces.clear()
        self._held = 0
        self._number += 1
        offset, self._offset = self._offset, self._offset + len(part)
        await self._send.send((self._number, offset, part))

    def _add(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
            self._held += len(data)


async def _send_parts(upload: Upload, begun: list[Part], receive: MemoryObjectReceiveStream[Part]) -> None:
    """Send the parts that were received before, then whatever comes."""
    while begun:
        await upload.put_part(*begun.pop(0))
    async for part in receive:
        await upload.put_part(*part)
        del part  # a part is large; the next one may be long in coming
