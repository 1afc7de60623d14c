"""The segments of streams in a store: publishing, listing and reading them, and the history that they continue.

A store may have more than a million segments, so nothing here walks all of them: a LIST starts at the wanted ones and
skips from stream to stream.
"""

from collections.abc import AsyncIterator, Mapping
from datetime import timedelta

from anyio import to_thread

from sidecar.concurrency import gathered
from sidecar.errors import DamagedSegment, NotFound, PreconditionFailed, UnsupportedSegment
from sidecar.log import log
from sidecar.model import AtRestorePoint, Bytes, IfAbsent, IfMatch, ObjectInfo, Origin, Position, Timestamp
from sidecar.repository.format.increment import Segment, decode
from sidecar.repository.format.records import damaged
from sidecar.repository.history import Path, SegmentInfo, StreamInfo, trace
from sidecar.repository.keys import (
    StreamName,
    is_of_the_future,
    segment_of,
    segments_after,
    stream_folder_of,
    stream_of,
    timestamp_of,
)
from sidecar.repository.retention import TIER_TAG, Tier
from sidecar.storage import ObjectStore

AT_ONCE = 8
WINDOWS = (timedelta(days=1), timedelta(days=16), timedelta(days=256))  # how far back the newest key is looked for


class Increments:
    """The streams of all databases in an object store."""

    def __init__(self, store: ObjectStore) -> None:
        self.store = store

    async def publish(self, key: str, data: bytes, *, expires: bool = True) -> ObjectInfo:
        """Write a segment; it is in the store, with exactly these bytes, once this returns.

        Raises the `Transient` family if that is not known: call it again with the same key and bytes until it is.
        Raises `DamagedSegment` if another object has this key. Without `expires` the segment gets no tag, so no rule
        that filters by tag deletes it.
        """
        tags = {TIER_TAG: Tier.STREAM.value} if expires else {}
        try:
            return await self.store.put(key, data, condition=IfAbsent(), tags=tags)
        except PreconditionFailed:
            found = await self.store.get(key)
        if bytes(found.data) == data:
            return found.info
        if found.data:
            raise DamagedSegment(f"the key of segment {key} is taken by another object", "a new stream is started")
        # Some stores (SeaweedFS 4.48) keep an empty object if the client of a PUT disconnects before the body.
        return await self.store.put(key, data, condition=IfMatch(found.info.etag), tags=tags)

    async def read(self, info: SegmentInfo) -> Segment:
        """Read a segment, and check that it is intact and the one that its key names.

        Raises `DamagedSegment`, also if it is gone, and `UnsupportedSegment`.
        """
        try:
            data: Bytes | None = (await self.store.get(info.key)).data
        except NotFound:
            data = None
        return await to_thread.run_sync(segment_in, data, info)

    async def segments(self, database: str, stream: str, after_commit: int = 0) -> list[SegmentInfo]:
        """The segments of a stream with commits after `after_commit`, in order."""
        found: list[SegmentInfo] = []
        after = segments_after(database, stream, after_commit)
        async for page in self._pages(stream_folder_of(database, stream), after):
            found += page
        return found

    async def first_of(self, database: str, stream: str) -> SegmentInfo | None:
        """The first segment of a stream that is still in the store."""
        return next(iter(await self.first_segments(database, stream, limit=1)), None)

    async def first_segments(self, database: str, stream: str, limit: int = 1000) -> list[SegmentInfo]:
        """The first segments of a stream that are still in the store, in order. One request."""
        page = await self.store.list(stream_folder_of(database, stream), limit=limit)
        return [segment for segment in map(require_known, page.objects) if segment]

    async def page(self, database: str, stream: str, after_commit: int) -> list[SegmentInfo]:
        """The segments of a stream with commits after `after_commit`, in order, at most a thousand. One request."""
        folder, after = stream_folder_of(database, stream), segments_after(database, stream, after_commit)
        found = await self.store.list(folder, start_after=after)
        return [segment for segment in map(require_known, found.objects) if segment]

    async def oldest(self, database: str) -> SegmentInfo | None:
        """The first segment of the oldest stream. One request."""
        page = await self.store.list(stream_folder_of(database), limit=1)
        return next(filter(None, map(segment_of, page.objects)), None)

    async def names(self, database: str) -> list[str]:
        """The names of the streams of a database, in order. One request for each, and one more."""
        return [str(_name_of(segment)) async for segment in self._firsts(database, "")]

    async def streams(self, database: str, after: str = "") -> list[StreamInfo]:
        """The streams of a database, or those whose name sorts after `after`, in order, each with its first segment only.

        Takes two requests for each stream.
        """
        start = f"{stream_folder_of(database)}{after}0" if after else ""  # "0" follows "/"
        firsts = [segment async for segment in self._firsts(database, start)]
        afters = await gathered(firsts, self.after_of, at_once=AT_ONCE)
        return [_stream((first,), after) for first, after in zip(firsts, afters, strict=True)]

    async def latest_beyond(self, database: str, stamp: Timestamp) -> Timestamp | None:
        """When the latest stream began, if any began after `stamp`. One request if none did."""
        folder = stream_folder_of(database)
        page = await self.store.list(folder, start_after=f"{folder}{stamp}", limit=1)
        newest = await self.newest(database) if page.objects else None
        return newest.start if newest else None

    async def newest(self, database: str) -> StreamName | None:
        """The name of the latest stream, in few requests unless it began long ago."""
        folder = stream_folder_of(database)
        now = await self.store.now()
        for start in [*(f"{folder}{Timestamp.of(now - window)}" for window in WINDOWS), ""]:
            names = [_name_of(segment) async for segment in self._firsts(database, start)]
            if names:
                return names[-1]
        return None

    async def look(
        self,
        database: str,
        point_key: str,
        position: Position | None,
        ends: Mapping[str, int],
        until: int | None = None,
    ) -> Path:
        """The history from a restore point on; `position` is the one that it names, `ends` are recorded ends.

        Takes one LIST for each thousand segments on the path or in later streams, and one GET for each later stream. With
        `until`, microseconds by the store's clock, no segment is listed after the one that reaches that instant.
        Raises `UnsupportedSegment` for keys that only a newer version can have written.
        """
        start: Origin = position or AtRestorePoint(point_key)
        listing = _Listing(self, database, start, ends, until)
        await listing.run()
        return trace(start, listing.streams, ends, until)

    async def after_of(self, segment: SegmentInfo) -> Origin | None:
        """The position that the stream of this segment continues; None if that was not proved or the segment is damaged."""
        try:
            return (await self.read(segment)).header.after
        except DamagedSegment as error:
            log.error("first segment of a stream not read", key=segment.key, error=error.message)
            return None

    async def _firsts(self, database: str, start: str) -> AsyncIterator[SegmentInfo]:
        """The first segment of each stream whose folder sorts after `start`. One LIST for each stream, and one more."""
        folder = stream_folder_of(database)
        while True:
            page = await self.store.list(folder, start_after=start, limit=1)
            for info in page.objects:
                if segment := require_known(info):
                    yield segment
                    start = f"{folder}{_name_of(segment)}0"
                else:
                    start = info.key
            if not page.more:
                return

    async def _pages(self, folder: str, after: str) -> AsyncIterator[list[SegmentInfo]]:
        while True:
            page = await self.store.list(folder, start_after=after)
            yield [segment for segment in map(require_known, page.objects) if segment]
            if not page.more:
                return
            after = page.objects[-1].key


class _Listing:
    """The segments that a path may need: those after its start, in its own stream and in those that continue it."""

    def __init__(
        self, increments: Increments, database: str, start: Origin, ends: Mapping[str, int], until: int | None
    ) -> None:
        self._increments = increments
        self._folder = stream_folder_of(database)
        self._database = database
        self._start = start
        self._ends = ends
        self._until = until
        self._found: dict[str, list[SegmentInfo]] = {}
        self._afters: dict[str, Origin | None] = {}

    @property
    def streams(self) -> list[StreamInfo]:
        """The streams found so far."""
        return [_stream(tuple(found), self._afters[name]) for name, found in self._found.items()]

    async def run(self) -> None:
        """Send the requests."""
        after = self._first_key()
        while True:
            page = await self._increments.store.list(self._folder, start_after=after)
            for info in page.objects:
                if segment := require_known(info):
                    self._found.setdefault(str(_name_of(segment)), []).append(segment)
            await self._describe()
            if not page.more:
                return
            after = self._next_key(page.objects[-1].key)

    def _first_key(self) -> str:
        if isinstance(self._start, Position):
            return segments_after(self._database, self._start.stream, self._start.commit)
        return f"{self._folder}{timestamp_of(self._start.key)}"  # a stream that continues it began later

    def _next_key(self, last: str) -> str:
        """The key after which the next page begins: the last one, or the end of its stream if no more of it is needed."""
        found = stream_of(last)
        if not found or not (segments := self._found.get(found[1])):
            return last
        stream, newest = found[1], segments[-1]
        reached = newest.last > self._ends.get(stream, newest.last)
        late = self._until is not None and newest.time * 1000 > self._until
        return f"{self._folder}{stream}0" if reached or late or not self._is_connected(stream) else last

    def _is_connected(self, stream: str) -> bool:
        """Whether the path may lead through the stream."""
        origin: Origin | None = Position(stream, 0)
        while isinstance(origin, Position):
            if isinstance(self._start, Position) and origin.stream == self._start.stream:
                return True
            after = self._afters.get(origin.stream)
            if isinstance(after, Position) and after.stream >= origin.stream:
                return False  # a stream's name sorts after the one that it continues
            origin = after
        return origin is not None and origin == self._start

    async def _describe(self) -> None:
        """Read what the new streams continue. For the stream in which the path starts, that does not matter."""
        if isinstance(self._start, Position):
            self._afters.setdefault(self._start.stream, None)
        new = [name for name in self._found if name not in self._afters]

        async def read(name: str) -> Origin | None:
            return await self._increments.after_of(self._found[name][0])

        self._afters.update(zip(new, await gathered(new, read, at_once=AT_ONCE), strict=True))


def segment_in(data: Bytes | None, info: SegmentInfo) -> Segment:
    """The segment in these bytes, None if it is gone; checked to be intact and the one that its key names.

    Raises `DamagedSegment` and `UnsupportedSegment`.
    """
    if data is None:
        raise damaged(info.key, "it is gone from the store")
    segment = decode(bytes(data), info.key)
    header = segment.header
    inside = (header.database, header.stream), header.first, header.last
    if inside != (stream_of(info.key), info.first, info.last):
        what = f"commits {header.first} to {header.last} of stream {header.stream} of {header.database}"
        raise damaged(info.key, f"it holds {what}")
    return segment


def require_known(info: ObjectInfo) -> SegmentInfo | None:
    """The segment behind an object, None for a foreign one. Raises `UnsupportedSegment` for a key of a newer version."""
    if is_of_the_future(info.key):
        raise UnsupportedSegment(
            f"{info.key} is a segment that this version of sidecar cannot read",
            "a newer version of sidecar wrote to this store: use that version or a later one",
        )
    return segment_of(info)


def _name_of(segment: SegmentInfo) -> StreamName:
    return StreamName.of(segment.key.split("/")[2])


def _stream(segments: tuple[SegmentInfo, ...], after: Origin | None) -> StreamInfo:
    name = _name_of(segments[0])
    return StreamInfo(str(name), name.start, name.epoch, name.holder, after, segments)
