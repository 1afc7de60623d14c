"""The restore points that the page knows: listed when somebody looks, and counted in the background, newest first.

While the store does not answer, what is known stays, and `trouble` says since when and why.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import anyio
from anyio.abc import TaskGroup

from sidecar.compare.counts import Counts, Stretch
from sidecar.compare.page.jobs import Failure
from sidecar.compare.page.source import LIVE, Source
from sidecar.errors import SidecarError
from sidecar.log import log
from sidecar.model import RestorePoint
from sidecar.repository import Entry

SHOWN = 30
LISTED_FOR = timedelta(seconds=5)
LIVE_FOR = timedelta(minutes=5)
FIRST_PATIENCE, PATIENCE = 8.0, 2.0  # seconds that a page waits for the store
RETRY_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Trouble:
    """The store does not answer since then."""

    since: datetime
    failure: Failure


@dataclass(slots=True)
class _Counted:
    """What differs between two states, as far as it is known."""

    at: datetime
    counts: Counts | None = None
    failure: Failure | None = None


@dataclass(slots=True)
class History:
    """See above. `run` counts as long as the page is up."""

    source: Source
    group: TaskGroup
    now: Callable[[], datetime]
    points: Sequence[RestorePoint] = ()
    trouble: Trouble | None = None
    listed: datetime | None = None
    _asked: datetime | None = None
    _refreshing: anyio.Event | None = None
    _stretches: dict[int, Stretch] = field(default_factory=dict)
    _counted: dict[tuple[str, str], _Counted] = field(default_factory=dict)
    _wanted: list[tuple[str, str]] = field(default_factory=list)
    _news: anyio.Event = field(default_factory=anyio.Event)

    async def refresh(self) -> None:
        """List the store, unless that was just done; while it is slow, what is known is good enough."""
        if self._asked is None or self.now() - self._asked > LISTED_FOR:
            if self._refreshing is None:
                self._refreshing = anyio.Event()
                self.group.start_soon(self._list, self._refreshing)
            with anyio.move_on_after(PATIENCE if self.listed else FIRST_PATIENCE):
                await self._refreshing.wait()

    async def _list(self, done: anyio.Event) -> None:
        try:
            points = await self.source.points()
            if [each.key for each in points] != [each.key for each in self.points]:
                self._stretches.clear()
            self.points, self.listed, self.trouble = points, self.now(), None
        except SidecarError as error:
            self._note(error)
        finally:
            self._asked, self._refreshing = self.now(), None
            done.set()

    async def stretch(self, start: int) -> Stretch:
        """A page of restore points, newest first; only with what their keys say, if the store does not answer."""
        if start not in self._stretches:
            try:
                with anyio.fail_after(FIRST_PATIENCE):
                    self._stretches[start] = await self.source.stretch(self.points, start, SHOWN)
            except SidecarError as error:
                self._note(error)
            except TimeoutError:
                log.info("restore points shown as listed", reason="the store is slow")
        return self._stretches.get(start) or self._listed(start)

    def _listed(self, start: int) -> Stretch:
        known = [Entry(each, None, None, None, None, None, None, None) for each in self.points]
        before = known[start + SHOWN] if len(known) > start + SHOWN else None
        return Stretch(tuple(known[start : start + SHOWN]), before, len(known))

    def want(self, pairs: Sequence[tuple[str, str]]) -> None:
        """Have these pairs of states (older, newer) counted next, in this order."""
        new = [pair for pair in pairs if self._is_unknown(pair)]
        self._wanted = new + [pair for pair in self._wanted if pair not in new]
        self._news.set()

    def counted(self, older: str, newer: str) -> _Counted | None:
        """What differs between two states; None if it is not known yet."""
        return self._counted.get((older, newer))

    def is_waiting(self, pairs: Sequence[tuple[str, str]]) -> bool:
        """Whether one of these is still to be counted."""
        return any(pair in self._wanted for pair in pairs)

    def forget_live(self) -> None:
        """Count the live database anew."""
        for pair in [pair for pair in self._counted if pair[1] == LIVE]:
            del self._counted[pair]

    async def run(self) -> None:
        """Count what is wanted, one after the other."""
        while True:
            while self._wanted:
                await self._count(self._wanted[0])
            self._news = anyio.Event()
            await self._news.wait()

    async def _count(self, pair: tuple[str, str]) -> None:
        try:
            found = _Counted(self.now(), counts=await self.source.counts(*pair))
        except SidecarError as error:
            failure = Failure.of(error)
            if failure.may_pass:
                self._note(error)
                await anyio.sleep(RETRY_SECONDS)
                return
            found = _Counted(self.now(), failure=failure)
        except Exception as error:  # the boundary of a job
            log.exception("counting failed", older=pair[0], newer=pair[1])
            found = _Counted(self.now(), failure=Failure(f"this is a bug: {error!r}", "", may_pass=False))
        self._counted[pair] = found
        self._wanted = [each for each in self._wanted if each != pair]

    def _is_unknown(self, pair: tuple[str, str]) -> bool:
        known = self._counted.get(pair)
        return known is None or (pair[1] == LIVE and self.now() - known.at > LIVE_FOR)

    def _note(self, error: SidecarError) -> None:
        since = self.trouble.since if self.trouble else self.now()
        self.trouble = Trouble(since, Failure.of(error))
