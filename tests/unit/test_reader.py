"""Reading a restore point: in as few requests as its size needs, and never anything but the whole, right database."""

import hashlib
from pathlib import Path

import pytest

from sidecar.database.base import YieldToApp
from sidecar.database.findings import CheckReport
from sidecar.errors import DamagedRestorePoint
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
    """Implements `base.IntegrityCheck`: SQLite has these findings, and cannot read what `unreadable` says."""

    def __init__(self, *findings: str, unreadable: str = "") -> None:
        self.findings = findings
        self.unreadable = unreadable
        self.asked: list[str] = []

    async def check(self, path: Path, mode: str, yield_to_app: YieldToApp | None = None) -> CheckReport:
        self.asked.append(mode)
        return CheckReport.of(mode, self.findings, self.unreadable)

    async def unreadable_live(self, path: Path, yield_to_app: YieldToApp | None = None) -> str:
        return self.unreadable


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


def encoded(data: bytes, *, name: str = "app.db", at: Timestamp = AT, check: CheckReport | None = None) -> bytes:
    chunks = [data[start : start + CHUNK] for start in range(0, len(data), CHUNK)]
    digests = b"".join(hashlib.sha256(chunk).digest() for chunk in chunks)
    frames = [Encoder(1).frame(chunk) for chunk in chunks]
    index = Index(name, str(at), 4096, len(data), digests, check=check)
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


async def test_table_that_cannot_be_read_is_damage_of_the_restore_point(tmp_path: Path) -> None:
    store = MemoryStore()
    with pytest.raises(DamagedRestorePoint, match=r"app\.db/.*: table t cannot be read"):
        await reader(store, Inspector("row 7 missing from index", unreadable="table t cannot be read")).download(
            published(store, encoded(database(3))), tmp_path / "app.db"
        )
    assert list(tmp_path.iterdir()) == []


async def test_what_else_sqlite_finds_is_a_finding(tmp_path: Path) -> None:
    """The digests are right, so this is what was published: the app has it so."""
    store = MemoryStore()
    inspector = Inspector("row 7 missing from index")
    found = await reader(store, inspector).download(published(store, encoded(database(3))), tmp_path / "app.db")
    assert found.check.findings == ("row 7 missing from index",)
    assert (tmp_path / "app.db").read_bytes() == database(3)


@pytest.mark.parametrize(
    ("known", "outcome"),
    [
        (None, "damaged"),
        (CheckReport("none", ("row 7 missing from index",)), "damaged"),  # nobody knew of the table
        (CheckReport("none", ("table t cannot be read",), "table t cannot be read"), "finding"),
        (CheckReport("quick", ("table t cannot be read",), "table t cannot be read"), "finding"),
        (CheckReport("quick"), "finding"),  # the same bytes were read when they were published
    ],
)
async def test_table_that_was_known_to_be_unreadable_is_a_finding(
    tmp_path: Path, known: CheckReport | None, outcome: str
) -> None:
    """Older data would not be better: the app had it so."""
    store = MemoryStore()
    point = published(store, encoded(database(3), check=known))
    download = reader(store, Inspector(unreadable="table t cannot be read")).download(point, tmp_path / "app.db")
    if outcome == "damaged":
        with pytest.raises(DamagedRestorePoint):
            await download
    else:
        assert (await download).check.findings == ("table t cannot be read",)


@pytest.mark.parametrize(
    ("mode", "known", "asked"),
    [
        ("quick", CheckReport("quick", ("a finding",)), []),
        ("quick", CheckReport("full", ("a finding",)), []),
        ("full", CheckReport("strict", ("a finding",)), []),
        ("full", CheckReport("quick"), ["full"]),
        ("quick", CheckReport("none", ("a finding",)), ["quick"]),
        ("quick", None, ["quick"]),
        ("none", CheckReport("none", ("a finding",)), []),
    ],
)
async def test_boot_does_not_repeat_the_check_of_the_publisher(
    tmp_path: Path, mode: str, known: CheckReport | None, asked: list[str]
) -> None:
    """And has its findings, so that they are told by every machine. A check that looks for more is made."""
    store, inspector = MemoryStore(), Inspector("a finding")
    trusting = Reader(store, inspector, part_size=4 * CHUNK, integrity=mode, trusting=True)
    found = await trusting.download(published(store, encoded(database(3), check=known)), tmp_path / "app.db")
    assert (inspector.asked, found.check.findings) == (asked, ("a finding",))


@pytest.mark.parametrize(("name", "at"), [("other.db", AT), ("app.db", AT.next())])
async def test_an_object_that_is_another_restore_point_is_refused(name: str, at: Timestamp) -> None:
    """A copied or renamed object, or a store that mixes up its answers."""
    store = MemoryStore()
    with pytest.raises(DamagedRestorePoint, match="its index names"):
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
