"""Single chunks of a restore point: neighbours in one request, no byte twice, and damage with the number of its chunk."""

import hashlib
from dataclasses import replace
from itertools import accumulate

import pytest

from sidecar.errors import DamagedRestorePoint
from sidecar.model import RestorePoint, Timestamp
from sidecar.repository import chunks as module
from sidecar.repository.chunks import joined
from sidecar.repository.format import index as index_module
from sidecar.repository.format.chunks import Encoder
from sidecar.repository.format.index import Index
from sidecar.repository.format.tail import encode_tail
from sidecar.repository.keys import key_of, point_of
from sidecar.repository.reader import Reader
from tests.fakes import MemoryStore
from tests.unit.test_reader import Inspector

pytestmark = pytest.mark.anyio

AT = Timestamp("20261120T145503.123Z")
CHUNK, COUNT = 4096, 100


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(index_module, "CHUNK_SIZE", CHUNK)
    monkeypatch.setattr("sidecar.repository.reader.TAIL", 8192)
    monkeypatch.setattr(module, "GAP", 2 * CHUNK)
    monkeypatch.setattr(module, "LARGEST_RANGE", 8 * CHUNK)


def content(number: int) -> bytes:
    """Bytes that do not compress."""
    return b"".join(hashlib.sha256(f"{number} {at}".encode()).digest() for at in range(CHUNK // 32))


def published(store: MemoryStore) -> tuple[RestorePoint, list[int]]:
    """A restore point, and where its frames begin."""
    data = [content(number) for number in range(COUNT)]
    frames = [Encoder(1).frame(chunk) for chunk in data]
    digests = b"".join(hashlib.sha256(chunk).digest() for chunk in data)
    index = Index("app.db", str(AT), 4096, COUNT * CHUNK, digests)
    encoded = b"".join(frames) + encode_tail(index, [len(frame) for frame in frames])
    point = point_of(store.add(key_of("app.db", AT), encoded))
    assert point
    return point, list(accumulate(map(len, frames), initial=0))


def reader(store: MemoryStore) -> Reader:
    return Reader(store, Inspector(), part_size=CHUNK)


async def test_neighbours_come_in_one_request_and_every_chunk_is_right() -> None:
    """Chunks 3, 4 and 6 are one range, 50 is another; what lies between is kept as well."""
    store, kept = MemoryStore(), dict[int, bytes]()
    point, offsets = published(store)
    chunks = await reader(store).chunks(point)
    before = store.count("get"), chunks.received
    await chunks.fetch([50, 4, 3, 6, 4], kept.__setitem__)
    assert store.count("get") - before[0] == chunks.requests - 1 == 2
    assert chunks.received - before[1] == offsets[7] - offsets[3] + offsets[51] - offsets[50]
    assert kept == {number: content(number) for number in (3, 4, 5, 6, 50)}


def test_ranges_are_not_longer_than_they_may_be() -> None:
    offsets = tuple(range(0, 101 * CHUNK, CHUNK))
    runs = joined(range(100), offsets)
    assert [number for run in runs for number in run] == list(range(100))
    assert {len(run) for run in runs} == {8, 4}
    assert joined([1, 5], offsets) == [range(1, 2), range(5, 6)]
    assert joined([1, 4], offsets) == [range(1, 5)]


async def test_a_damaged_chunk_is_named_and_a_replaced_object_is_noticed() -> None:
    store = MemoryStore()
    point, offsets = published(store)
    chunks = await reader(store).chunks(point)
    data = bytearray(store.objects[point.key].data)
    data[offsets[7] + 100] ^= 1
    store.objects[point.key] = replace(store.objects[point.key], data=bytes(data))
    with pytest.raises(DamagedRestorePoint, match="chunk 7 of 100"):
        await chunks.fetch([7], lambda *_: None)
    store.add(point.key, bytes(data))
    with pytest.raises(DamagedRestorePoint, match="disappeared or changed"):
        await chunks.fetch([8], lambda *_: None)
