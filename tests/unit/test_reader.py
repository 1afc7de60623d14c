"""Reading a restore point: in as few requests as its size needs, and never anything but the whole, right database."""

import hashlib
from pathlib import Path

import pytest

from sidecar.database.base import YieldToApp
from sidecar.errors import DamagedDatabase, DamagedRestorePoint
from sidecar.model import RestorePoint, Timestamp
from sidecar.repository import reader as restore_module
from sidecar.repository.format import index as restore_point_format
from sidecar.repository.format.chunks import Encoder
from sidecar.repository.format.index import DIGEST_SIZE, Index
from sidecar.repository.format.tail import encode_tail
from sidecar.repository.keys import key_of, point_of
from sidecar.repository.reader import Reader
from tests.fakes import MemoryStore

pytestmark = pytest.mark.anyio

AT = Timestamp("20261120T145503.123Z")
CHUNK = 4096


class Inspector:
    """Implements `base.IntegrityCheck`: SQLite finds what `verdict` says."""

    def __init__(self, verdict: str = "") -> None:
        self.verdict = verdict
        self.asked: list[str] = []

    async def check(self, path: Path, mode: str, yield_to_app: YieldToApp | None = None) -> None:
        self.asked.append(mode)
        if self.verdict:
            raise DamagedDatabase(self.verdict)


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many chunks, little data."""
    monkeypatch.setattr(restore_point_format, "CHUNK_SIZE", CHUNK)
    monkeypatch.setattr(restore_module, "CHUNK_SIZE", CHUNK)
    monkeypatch.setattr(restore_module, "TAIL", 512)


def database(chunks: int, *, extra: int = 0) -> bytes:
    """Bytes that do not compress, so that sizes on the wire are predictable."""
    blocks = (hashlib.sha256(str(number).encode()).digest() for number in range((chunks * CHUNK + extra) // 32 + 1))
    return b"".join(blocks)[: chunks * CHUNK + extra]


def encoded(data: bytes, *, name: str = "app.db", at: Timestamp = AT) -> bytes:
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    digests = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
    frames = [Encoder(1).frame(chunk) for chunk in chunks]
    index = Index(name, str(at), 4096, len(data), digests)
    assert len(digests) == len(chunks) * DIGEST_SIZE
    return b"".join(frames) + encode_tail(index, [len(frame) for frame in frames])


def published(store: MemoryStore, data: bytes) -> RestorePoint:
    point = point_of(store.add(key_of("app.db", AT), data))
    assert point
    return point


def reader(store: MemoryStore, inspector: Inspector | None = None, part_size: int = 4 * CHUNK) -> Reader:
    return Reader(store, inspector or Inspector(), part_size=part_size, concurrency=3, integrity="full")


@pytest.mark.parametrize(("chunks", "extra"), [(1, 0), (2, 0), (3, 17), (20, 0), (100, 1)])
async def test_a_database_of_any_size_is_restored_byte_for_byte(tmp_path: Path, chunks: int, extra: int) -> None:
    store, inspector, target = MemoryStore(), Inspector(), tmp_path / "app.db"
    data = database(chunks, extra=extra)
    restored = await reader(store, inspector).download(published(store, encoded(data)), target)
    assert target.read_bytes() == data
    assert restored.contents.index.database_size == len(data)
    assert inspector.asked == ["full"]


async def test_a_small_restore_point_is_one_request(tmp_path: Path) -> None:
    store = MemoryStore()
    await reader(store).download(published(store, encoded(database(2))), tmp_path / "app.db")
    assert store.count() == 1


async def test_a_large_one_is_read_once_in_ranges_of_a_part(tmp_path: Path) -> None:
    """The tail, again with its real length (the first guess was short), then runs of frames: no byte twice but the tail."""
    store = MemoryStore()
    parts = reader(store, part_size=8 * CHUNK)
    await parts.download(published(store, encoded(database(100))), tmp_path / "app.db")
    assert store.count() <= 3 + 100 // 7 + 1


async def test_progress_goes_up_to_the_whole_object(tmp_path: Path) -> None:
    store, told = MemoryStore(), list[tuple[int, int]]()
    point = published(store, encoded(database(50)))
    await reader(store).download(point, tmp_path / "app.db", lambda done, total: told.append((done, total)))
    assert [done for done, _ in told] == sorted(done for done, _ in told)
    assert told[-1] == (point.size, point.size)
    assert {total for _, total in told} == {point.size}


@pytest.mark.parametrize("chunks", [2, 30])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.6])
async def test_a_flipped_bit_is_found_and_nothing_is_left(tmp_path: Path, chunks: int, where: float) -> None:
    store, target = MemoryStore(), tmp_path / "app.db"
    broken = bytearray(encoded(database(chunks)))
    broken[int(where * len(broken)) + 30] ^= 1
    with pytest.raises(DamagedRestorePoint, match=r"restore point .* is damaged: "):
        await reader(store).download(published(store, bytes(broken)), target)
    assert list(tmp_path.iterdir()) == []


async def test_what_sqlite_finds_wrong_is_damage_of_the_restore_point(tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(DamagedRestorePoint, match=r"app\.db/.*: row 7 missing from index"):
        await reader(store, Inspector("row 7 missing from index")).download(
            published(store, encoded(database(3))), tmp_path / "app.db"
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("name", "at"), [("other.db", AT), ("app.db", AT.next())])
async def test_an_object_that_is_another_restore_point_is_refused(name: str, at: Timestamp) -> None:
    """A copied or renamed object, or a store that mixes up its answers."""
    store = MemoryStore()
    with pytest.raises(DamagedRestorePoint, match="its index says"):
        await reader(store).contents(published(store, encoded(database(2), name=name, at=at)))


async def test_an_object_that_changes_while_it_is_read_is_refused(tmp_path: Path) -> None:
    store = MemoryStore()
    point = published(store, encoded(database(50)))
    store.hook = lambda _operation, _key: published(store, encoded(database(50))) if store.count() == 5 else None
    with pytest.raises(DamagedRestorePoint, match="disappeared or changed while it was read"):
        await reader(store).download(point, tmp_path / "app.db")
    assert list(tmp_path.iterdir()) == []


async def test_an_object_that_is_gone_is_refused() -> None:
    store = MemoryStore()
    point = published(store, encoded(database(1)))
    store.objects.clear()
    with pytest.raises(DamagedRestorePoint, match="disappeared"):
        await reader(store).contents(point)


@pytest.mark.parametrize("front", range(10))
@pytest.mark.timeout(10)
async def test_a_seek_table_without_anything_before_it_is_damage_not_an_endless_loop(front: int) -> None:
    """There is no more of the object to ask for."""
    whole = encoded(database(1))
    table = 8 + 2 * 8 + 9
    store = MemoryStore()
    with pytest.raises(DamagedRestorePoint):
        await reader(store, part_size=8).contents(published(store, whole[len(whole) - table - front :]))
    assert store.count() <= 3
