"""Segments are fetched many at a time and used in order: what is in flight, what waits, and how it ends."""

import random
import threading
from collections.abc import Sequence

import anyio
import anyio.lowlevel
import pytest

from sidecar.errors import NotFound, StoreUnavailable
from sidecar.model import Bytes
from sidecar.repository.history import SegmentInfo
from sidecar.restore import fetching
from sidecar.restore.fetching import AT_ONCE, TOGETHER, Fetched, use_in_order

pytestmark = pytest.mark.anyio


def infos(count: int, size: int = 100) -> list[SegmentInfo]:
    return [SegmentInfo(f"s{number:06}", number, number, number, size, "etag") for number in range(1, count + 1)]


class Used:
    """What was used, by number, and in how many calls."""

    def __init__(self) -> None:
        self.numbers: list[int] = []
        self.data: list[Bytes | None] = []
        self.calls = 0

    def __call__(self, fetched: list[Fetched]) -> bool:
        self.calls += 1
        self.numbers += [info.first for info, _ in fetched]
        self.data += [data for _, data in fetched]
        return True


async def at_once(info: SegmentInfo) -> Bytes:
    return info.key.encode()


async def test_they_are_used_in_order_whatever_comes_first() -> None:
    chance, used, fetched = random.Random(1), Used(), list[int]()

    async def fetch(info: SegmentInfo) -> Bytes:
        for _ in range(chance.randrange(20)):
            await anyio.lowlevel.checkpoint()
        fetched.append(info.first)
        return info.key.encode()

    await use_in_order(infos(500), fetch, used)
    assert used.numbers == list(range(1, 501))
    assert used.data == [info.key.encode() for info in infos(500)]
    assert sorted(fetched) == used.numbers != fetched


async def test_a_change_of_threads_serves_many() -> None:
    used = Used()

    async def fetch(info: SegmentInfo) -> Bytes:
        await anyio.lowlevel.checkpoint()
        return b""

    await use_in_order(infos(20 * TOGETHER), fetch, used)
    assert used.calls == 20


async def test_requests_go_on_while_others_are_slow_or_used() -> None:
    """The first request ends only once many later ones have; its use only once those after them were requested."""
    many, later = anyio.Event(), threading.Event()

    async def fetch(info: SegmentInfo) -> Bytes:
        if info.first == 1:
            await many.wait()
        if info.first == 5 * AT_ONCE:
            many.set()
        if info.first == 10 * TOGETHER:
            later.set()
        await anyio.lowlevel.checkpoint()
        return b""

    def use(_: list[Fetched]) -> bool:
        return later.wait(10)

    used = Used()
    with anyio.fail_after(30):
        await use_in_order(infos(10 * TOGETHER + 5), fetch, lambda fetched: use(fetched) and used(fetched))
    assert len(used.numbers) == 10 * TOGETHER + 5


@pytest.mark.parametrize("sizes", [[100] * 300, [990, 10, 3000, 5, 5, 5, 2000, 2000, 1], [5000] * 10])
async def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch, sizes: Sequence[int]) -> None:
    """Besides those in use, there are at most `AHEAD` bytes, or a single segment."""
    monkeypatch.setattr(fetching, "AHEAD", 1000)
    there, most = 0, 0

    async def fetch(info: SegmentInfo) -> Bytes:
        nonlocal there, most
        there += info.size
        most = max(most, there)
        await anyio.lowlevel.checkpoint()
        return b""

    def use(fetched: list[Fetched]) -> bool:
        nonlocal there
        there -= sum(info.size for info, _ in fetched)
        return True

    every = [SegmentInfo("", number, number, number, size, "") for number, size in enumerate(sizes)]
    await use_in_order(every, fetch, use)
    assert there == 0
    assert most <= 2 * max(1000, *sizes)


async def test_nothing_more_is_requested_once_it_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests under way are cancelled."""
    monkeypatch.setattr(fetching, "AHEAD", 1000)
    requested, cancelled = list[int](), list[int]()

    async def fetch(info: SegmentInfo) -> Bytes:
        requested.append(info.first)
        if info.first > 5:
            try:
                await anyio.sleep_forever()
            finally:
                cancelled.append(info.first)
        return b""

    monkeypatch.setattr(fetching, "TOGETHER", 5)
    with anyio.fail_after(10):
        await use_in_order(infos(1000), fetch, lambda fetched: fetched[-1][0].first < 5)
    assert max(requested) <= 20
    assert sorted(cancelled) == [each for each in requested if each > 5]


async def test_one_that_is_gone_has_no_bytes() -> None:
    async def fetch(info: SegmentInfo) -> Bytes:
        if info.first == 3:
            raise NotFound(info.key)
        return b"x"

    used = Used()
    await use_in_order(infos(5), fetch, used)
    assert used.data == [b"x", b"x", None, b"x", b"x"]


async def test_failures_are_raised_as_they_are() -> None:
    async def fetch(info: SegmentInfo) -> Bytes:
        if info.first == 3:
            raise StoreUnavailable("scripted")
        return b""

    with pytest.raises(StoreUnavailable, match="scripted"):
        await use_in_order(infos(5), fetch, Used())

    def use(_: list[Fetched]) -> bool:
        raise OSError("scripted")

    with pytest.raises(OSError, match="scripted"):
        await use_in_order(infos(5), at_once, use)


async def test_none_at_all() -> None:
    used = Used()
    await use_in_order([], at_once, used)
    assert used.calls == 0
