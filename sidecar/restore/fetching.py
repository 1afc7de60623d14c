"""Fetches segments and hands them over in order: many at a time to a worker thread, with requests always in flight.

A store answers after some 20 ms however small an object is, and a change of threads costs more than what a small segment
needs. Requests wait neither for each other nor for what is done with the segments. At most `AHEAD` bytes are requested or
wait to be handed over, and as many are in use; a segment that is larger than that is requested once nothing waits.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial

import anyio
from anyio import to_thread

from sidecar.concurrency import run_all
from sidecar.errors import NotFound
from sidecar.model import Bytes
from sidecar.repository.history import SegmentInfo

AHEAD = 4 << 20
AT_ONCE = 16
TOGETHER = 64  # segments that are worth a change of threads

Fetch = Callable[[SegmentInfo], Awaitable[Bytes]]
# A segment and its bytes; None if it is gone from the store.
Fetched = tuple[SegmentInfo, Bytes | None]


async def use_in_order(infos: Iterable[SegmentInfo], fetch: Fetch, use: Callable[[list[Fetched]], bool]) -> None:
    """Fetch segments, and call `use` in a worker thread with those that come next, until all were used or it returns False.

    Raises what `fetch` raises, except `NotFound`, and what `use` raises.
    """
    window = _Window(infos, fetch)
    with anyio.CancelScope() as scope:
        await run_all(partial(window.hand_over, use, scope.cancel), *[window.request] * AT_ONCE)


@dataclass(slots=True)
class _Place:
    info: SegmentInfo
    data: Bytes | None = None
    settled: bool = False


class _Window:
    """The segments that were requested and not handed over yet, in order."""

    def __init__(self, infos: Iterable[SegmentInfo], fetch: Fetch) -> None:
        self._fetch = fetch
        self._following = iter(infos)
        self._next = next(self._following, None)
        self._places: deque[_Place] = deque()
        self._bytes = 0
        self._under_way = 0
        self._settled = anyio.Event()
        self._room = anyio.Event()

    async def request(self) -> None:
        """Request one segment after the other, as long as there is room."""
        while (info := self._next) is not None:
            if self._places and self._bytes + info.size > AHEAD:
                await self._room.wait()
                continue
            self._next = next(self._following, None)
            place = _Place(info)
            self._places.append(place)
            self._bytes += info.size
            self._under_way += 1
            try:
                place.data = await self._fetch(info)
            except NotFound:
                place.data = None
            self._under_way -= 1
            place.settled = True
            self._settled.set()

    async def hand_over(self, use: Callable[[list[Fetched]], bool], end: Callable[[], None]) -> None:
        """Use everything in order; `end` is called if no more is wanted."""
        while self._places or self._next is not None:
            if not (found := self._take()):
                self._settled = anyio.Event()
                await self._settled.wait()
            elif not await to_thread.run_sync(use, found):
                end()
                return

    def _take(self) -> list[Fetched]:
        """The segments that come next, if they are worth handing over, or if no request is under way without them."""
        count = size = 0
        for place in self._places:
            if not place.settled or count == TOGETHER:
                break
            count, size = count + 1, size + place.info.size
        if count < TOGETHER and size < AHEAD // 2 and self._under_way:
            return []
        found = [self._places.popleft() for _ in range(count)]
        self._bytes -= size
        self._room.set()
        self._room = anyio.Event()
        return [(place.info, place.data) for place in found]
