"""Applies a history to a restored file: the commits of its streams in order, up to an instant or to the end.

It only writes. Nothing is skipped: it stops before the first segment that is damaged, missing or out of place, and reports
that. The file is then the database as of the last applied commit. It is truncated to that size once, at the end: pages
beyond it are from larger sizes in between.

Memory is bounded however long the history is: `fetching` bounds the segments that are fetched ahead, one of them is decompressed
at a time, and `Pages` bounds the images that have not been written yet.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from anyio import to_thread

from sidecar.errors import DamagedDatabase, DamagedSegment
from sidecar.host import local_errors
from sidecar.model import Bytes, Position
from sidecar.repository.format.increment import Segment, decode, first_prev
from sidecar.repository.history import Leg, SegmentInfo
from sidecar.repository.history import Path as History
from sidecar.restore.fetching import Fetch, Fetched, use_in_order
from sidecar.restore.pages import PageImages, opened_pages
from sidecar.restore.reached import End, Reached


class PointInTime:
    """Applies histories of one store."""

    def __init__(self, fetch: Fetch) -> None:
        """`fetch` gets the bytes of a segment. Raises `NotFound` if it is gone."""
        self._fetch = fetch

    async def apply(self, file: Path, database: str, history: History, until: int | None = None) -> Reached:
        """Apply the commits of a history that are not later than `until` to the restored state that it starts with.

        `until` is in microseconds since the epoch, by the store's clock. Raises `DamagedDatabase` if the result contradicts
        its first page, `UnsupportedSegment`, `NoRoom`, and what the store raises; the file is then unusable.
        """
        with local_errors(file), opened_pages(file) as pages:
            return await self.apply_to(pages, database, history, until)

    async def apply_to(self, pages: PageImages, database: str, history: History, until: int | None = None) -> Reached:
        """The same for the pages of a restored state, wherever they are. Raises what they raise, too."""
        replay = _Replay(database, history, pages, until)
        await use_in_order(needed(history, until), self._fetch, replay.take)
        await to_thread.run_sync(replay.finish)
        return replay.reached


def needed(history: History, until: int | None) -> Iterator[SegmentInfo]:
    """The segments of a history in order, up to the first one that extends past `until`."""
    for leg in history.legs:
        for info in leg.segments:
            yield info
            # Commits of it that are not part of the history may be later than those of the next stream.
            if until is not None and info.time > until // 1000 and info.last <= leg.upto:
                return


class _Replay:
    """Takes segments in order and adds their commits to the pages. Used by one thread at a time."""

    def __init__(self, database: str, history: History, pages: PageImages, until: int | None) -> None:
        self.reached = Reached(history.start)
        self.ended = False
        self._database = database
        self._history = history
        self._pages = pages
        self._until = until
        self._legs = iter(history.legs)
        self._leg: Leg | None = None
        self._left = 0  # segments of the leg that are still to be taken
        self._commit = 0  # of the leg's stream: the last one that was applied or already in the file
        self._begun = 0  # the commit of which only some parts were taken
        self._digest = ""
        self._size = 0  # pages

    def take(self, fetched: list[Fetched]) -> bool:
        """Apply these segments. False if the replay has ended with them. Raises `UnsupportedSegment` and OSError."""
        for info, data in fetched:
            if self._is_later(info):
                self._stop(End.INSTANT, "")
            else:
                try:
                    self._begin_leg()
                    self._take(self._checked(info, data))
                except DamagedSegment as damage:
                    self._stop(End.BROKEN, damage.message)
            if self.ended:
                return False
        return True

    def _is_later(self, info: SegmentInfo) -> bool:
        """Whether its key shows that none of its commits belongs to the result, so that damage in it does not matter."""
        return self._until is not None and info.first == info.last and info.time > self._until // 1000

    def finish(self) -> None:
        """Write the rest, and truncate the file to its size. Raises `DamagedDatabase` if its first page names another size."""
        if not self.ended:
            self._stop(End.NEWEST, self._history.stopped)
        if not self.reached.commits:
            return
        self._pages.finish(self._size)
        if (said := self._pages.header_count()) != self._size:
            raise DamagedDatabase(
                f"the restored database has {self._size} pages after commit {self._commit}, but its first page says {said}"
            )

    def _begin_leg(self) -> None:
        """Go on to the next stream if all segments of this one were taken. Raises `DamagedSegment`."""
        while not self._left:
            if self._leg and self._commit != self._leg.upto:
                raise DamagedSegment(f"stream {self._leg.stream.name} has no commit {self._commit + 1}")
            self._leg = next(self._legs)
            self._left, self._commit, self._digest = len(self._leg.segments), self._leg.after, ""
            self._begun = 0
        self._left -= 1

    def _checked(self, info: SegmentInfo, data: Bytes | None) -> Segment:
        """Decode a segment and check that it is the next one. Raises `DamagedSegment`."""
        if data is None:
            raise DamagedSegment(f"segment {info.key} is gone from the store")
        segment = decode(bytes(data), info.key)
        header, stream = segment.header, self._require_leg().stream.name
        described = (header.database, header.stream, header.first, header.last)
        if described != (self._database, stream, info.first, info.last):
            raise DamagedSegment(
                f"segment {info.key} is another one: {header.first} to {header.last} of {header.stream} of {header.database}"
            )
        before = self._digest or (first_prev(stream) if header.first == 1 else header.prev)
        if header.prev != before:
            raise DamagedSegment(f"segment {info.key} does not continue the one before it")
        if header.page_size != self._pages.size:
            raise DamagedSegment(
                f"segment {info.key} has pages of {header.page_size} bytes, but the database has {self._pages.size}"
            )
        self._digest = segment.digest
        return segment

    def _take(self, segment: Segment) -> None:
        """Apply the commits that are part of the history and not in the file yet. Raises `DamagedSegment`."""
        clock = segment.header.clock
        self._pages.expect(page for record in segment.records for page in record.differences)
        for record in segment.records:
            if record.number <= self._commit:
                continue
            if record.number > self._require_leg().upto:
                return
            follows = record.number in {self._commit + 1, self._begun}
            if not follows and not (record.folded and segment.header.first <= self._commit + 1):
                raise DamagedSegment(f"commit {self._commit + 1} of {segment.header.stream} is missing")
            if self._until is not None and record.time > self._until:
                self._stop(End.INSTANT, "")
                return
            commit = record.commit(self._pages.image)
            self._pages.add(commit)
            self._begun = commit.number if commit.continued else 0
            if not commit.continued:
                self._commit, self._size = commit.number, commit.pages
                position = Position(segment.header.stream, commit.number)
                on_machine = commit.time + clock.machine - clock.store
                applied = self.reached.commits + 1
                self.reached = replace(
                    self.reached, position=position, commits=applied, time=commit.time, machine_time=on_machine
                )

    def _require_leg(self) -> Leg:
        assert self._leg is not None  # noqa: S101 - `_begin_leg` comes first
        return self._leg

    def _stop(self, end: End, why: str) -> None:
        self.reached = replace(self.reached, end=end, stopped=why)
        self.ended = True
