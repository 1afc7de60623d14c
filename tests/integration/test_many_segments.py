"""A store with 1.2 million segments: a boot, and what follows it, asks for as little as in an empty one."""

from collections.abc import Iterator
from dataclasses import replace
from heapq import merge
from itertools import islice, takewhile
from pathlib import Path

import pytest

from sidecar.lease.record import KEY, Record
from sidecar.model import ObjectInfo, Page, Position
from sidecar.repository.increments import Increments
from sidecar.repository.keys import StreamName, segment_key_of, stream_folder_of
from tests.fakes import MemoryStore
from tests.harness.recorded import Recorder, recorded
from tests.harness.streams import StreamMaker, stream_name
from tests.integration.streamed import SECOND, Streamed, moment
from tests.integration.streaming_machine import streaming
from tests.integration.wiring import NAME

pytestmark = pytest.mark.anyio

EARLIER, LATER = 700_000, 500_000
BEFORE, NOW = (stream_name(moment(-seconds), epoch=1, holder="web") for seconds in (EARLIER + LATER, LATER))


class Long(MemoryStore):
    """Has a segment of one commit for each second of two streams, which are made when they are listed.

    Those that were put there are in it as well.
    """

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """See `base.ObjectStore`."""

        def page() -> Page:
            there = sorted(key for key in self.objects if key.startswith(prefix) and key > start_after)
            made = takewhile(lambda key: key.startswith(prefix), _keys(max(start_after, prefix)))
            keys = list(islice(merge(there, made), limit + 1))
            found = [self.objects[key].info if key in self.objects else self._info(key) for key in keys[:limit]]
            return Page(tuple(found), len(keys) > limit)

        return await self.request("list", prefix, page)

    def _info(self, key: str) -> ObjectInfo:
        return ObjectInfo(key, 8192, '"made"', self.time)


def _keys(after: str) -> Iterator[str]:
    for name, count in ((BEFORE, EARLIER), (NOW, LATER)):
        folder = stream_folder_of(NAME, str(name))
        if after < folder:
            first = 1
        elif after.startswith(folder):
            first = max(1, int(after.removeprefix(folder)[:16]))
        else:
            continue
        keys = (_key(name, number) for number in range(first, count + 1))
        yield from (key for key in keys if key > after)


def _key(name: StreamName, number: int) -> str:
    return segment_key_of(NAME, str(name), number, number, int(name.start.instant.timestamp() + number) * 1000)


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Twelve commits."""
    with recorded(tmp_path / "live.db") as recorder:
        for number in range(12):
            recorder.run(f"INSERT INTO notes (content) VALUES (randomblob({number * 900}))")
        yield recorder


async def test_a_boot_lists_three_times_whatever_the_number_of_segments(recorder: Recorder, tmp_path: Path) -> None:
    """Restore points after the newest one, the tail, and streams that began after us."""
    store = Long()
    scene = Streamed(store, recorder, tmp_path / "before")
    maker = StreamMaker(NOW, NAME, None, recorder.page_size, commits=LATER, prev="0" * 64)
    for commit in recorder.commits:
        at = int(moment(commit.number).instant.timestamp()) * SECOND
        (made,) = maker.segments([replace(commit, number=LATER + commit.number, time=at)])
        store.add(made.key, made.data)
    newest = await scene.point(0, 0.1, Position(str(NOW), LATER))
    record = Record(1, "web", "boot", 60.0, released=True, latest={NAME: newest.key})
    await store.put(KEY, record.to_bytes(), metadata=record.to_metadata())
    store.time = moment(60).instant
    store.requests.clear()
    async with streaming(store, tmp_path / "new" / NAME, "web") as machine:
        await machine.start()
        assert scene.holds(machine.database.path, 12)
        assert machine.streams.active
    assert store.count("list") <= 3
    assert store.count("get") <= 12 + 6
    assert len(await Increments(store).segments(NAME, str(BEFORE), EARLIER - 5)) == 5, "the store is as long as it says"
