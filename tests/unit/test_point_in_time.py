"""A history applied to a restored file: exactly the commits until an instant, and nothing after what is wrong."""

import random
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from sidecar.errors import DamagedDatabase, NotFound, StoreUnavailable, UnsupportedSegment
from sidecar.model import AtRestorePoint, Bytes, Commit, ObjectInfo, Origin, Position, Timestamp
from sidecar.repository.format.folding import fold, split
from sidecar.repository.format.increment import ClockAnchor, SegmentHeader, decode, encode, first_prev
from sidecar.repository.history import Leg, SegmentInfo, StreamInfo
from sidecar.repository.history import Path as History
from sidecar.repository.keys import StreamName, segment_key_of, segment_of
from sidecar.restore import fetching, pages
from sidecar.restore.point_in_time import PointInTime
from sidecar.restore.reached import End, Reached
from tests.fakes import START as NOW
from tests.harness.recorded import START, STEP, Recorder, recorded
from tests.harness.segments import commits_of, encoded_differences

pytestmark = pytest.mark.anyio

NAME = "app.db"
POINT = AtRestorePoint("app.db/20261120T145503.123Z.sqlite3.zst")
FIRST = str(StreamName(Timestamp("20261120T145503.200Z"), 7, "web 1"))
SECOND = str(StreamName(Timestamp("20261120T150000.000Z"), 8, "web 2"))


class Bucket:
    """Segments by key, on request with what changed in pages. `fetch` is what reads them."""

    def __init__(self, *, differences: bool = False) -> None:
        self._differences = differences
        self.objects: dict[str, bytes] = {}
        self.fetched: list[str] = []

    async def fetch(self, info: SegmentInfo) -> Bytes:
        self.fetched.append(info.key)
        try:
            return self.objects[info.key]
        except KeyError:
            raise NotFound(info.key) from None

    def stream(
        self,
        name: str,
        groups: Sequence[Sequence[Commit]],
        page_size: int,
        after: Origin | None = POINT,
        *,
        limit: int = 1 << 30,
        ahead: int = 0,
    ) -> StreamInfo:
        """Publish each group as a segment, or as several if it is large. The machine's clock is `ahead` microseconds."""
        prev, first, infos, continued = first_prev(name), groups[0][0].number, [], True
        before, pending = dict[int, Bytes](), dict[int, Bytes]()
        for portion in [each for group in groups for each in split(group, 0, limit)]:
            begin = first + (not continued)
            first, continued = portion.last, portion.commits[-1].continued
            clock = ClockAnchor(START, START + ahead)
            header = SegmentHeader(NAME, name, begin, portion.last, page_size, prev, "web 1", 7, "3.53.4", clock, after)
            data = encode(header, portion.commits).data
            if self._differences:
                data = encoded_differences(header, portion.commits, before)
            for commit in portion.commits:
                pending.update(commit.images)
                if not commit.continued:
                    before, pending = before | pending, {}
            prev = decode(data, "s").digest
            key = segment_key_of(NAME, name, begin, portion.last, portion.time)
            self.objects[key] = data
            info = segment_of(ObjectInfo(key, len(data), "etag", NOW))
            assert info
            infos.append(info)
        parsed = StreamName.of(name)
        return StreamInfo(
            name, parsed.start, parsed.epoch, parsed.holder, after, tuple(sorted(infos, key=lambda i: i.key))
        )


def leg(stream: StreamInfo, after: int = 0, upto: int | None = None) -> Leg:
    upto = stream.segments[-1].last if upto is None else upto
    return Leg(stream, after, upto, tuple(each for each in stream.segments if each.last > after and each.first <= upto))


def line(*legs: Leg, stopped: str = "") -> History:
    return History(POINT, legs, Position(legs[-1].stream.name, legs[-1].upto), stopped=stopped)


def alone(commits: Sequence[Commit]) -> list[list[Commit]]:
    return [[each] for each in commits]


@pytest.fixture
def bucket() -> Bucket:
    return Bucket()


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Ten small transactions."""
    with recorded(tmp_path / "live.db") as recorder:
        for number in range(10):
            recorder.run(f"INSERT INTO notes (content) VALUES (randomblob({number * 900}))")
        yield recorder


@pytest.fixture
def file(tmp_path: Path, recorder: Recorder) -> Path:
    """A restored restore point: the state before the first commit."""
    path = tmp_path / "restored.db"
    path.write_bytes(recorder.states[0])
    return path


async def apply(bucket: Bucket, file: Path, history: History, until: int | None = None) -> Reached:
    return await PointInTime(bucket.fetch).apply(file, NAME, history, until)


def at(number: int) -> int:
    """The time of a commit."""
    return START + number * STEP


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("auto_vacuum", [0, 1, 2])
@pytest.mark.parametrize("seed", range(4))
async def test_every_instant_has_exactly_the_commits_until_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, page_size: int, auto_vacuum: int, seed: int
) -> None:
    """Byte for byte, at the instant of each commit and just before the next, however they are cut into segments and streams,
    with whole pages or what changed in them. Each seed looks at a quarter of the commits, at both ends, and at the cut."""
    chance = random.Random(f"{page_size} {auto_vacuum} {seed}")
    monkeypatch.setattr(pages, "WINDOW", chance.choice([page_size, 40_000, 1 << 24]))
    monkeypatch.setattr(fetching, "AHEAD", chance.choice([1, 3000, 1 << 22]))
    bucket, file = Bucket(differences=seed % 2 == 0), tmp_path / "restored.db"
    with recorded(tmp_path / "live.db", page_size, auto_vacuum) as recorder:
        recorder.wander(chance, 24)
    cut, more = chance.randrange(1, 24), chance.randrange(0, 3)
    limit = chance.choice([page_size, 4 * page_size, 1 << 20])
    first = bucket.stream(FIRST, list(groups(chance, recorder.commits[: cut + more])), page_size, limit=limit)
    rest = [replace(each, number=each.number - cut) for each in recorder.commits[cut:]]
    second = bucket.stream(SECOND, list(groups(chance, rest)), page_size, Position(FIRST, cut), limit=limit)
    history = line(leg(first, upto=cut), leg(second))
    for number in sorted({*range(seed, 25, 4), 0, cut, cut + 1, 24}):
        for until in (at(number), at(number + 1) - 1):
            file.write_bytes(recorder.states[0])
            reached = await apply(bucket, file, history, until)
            assert file.read_bytes() == recorder.states[number]
            place = Position(FIRST, number) if number <= cut else Position(SECOND, number - cut)
            assert (reached.position, reached.commits) == (place if number else POINT, number)
            assert reached.end is (End.INSTANT if number < 24 else End.NEWEST)
            assert reached.time == (at(number) if number else None)


def groups(chance: random.Random, commits: Sequence[Commit]) -> Iterator[Sequence[Commit]]:
    start = 0
    while start < len(commits):
        size = chance.randrange(1, 6)
        yield commits[start : start + size]
        start += size


async def test_a_restore_point_within_a_stream_is_entered_at_its_commit(
    bucket: Bucket, file: Path, recorder: Recorder
) -> None:
    """Also where that commit is in the middle of a segment, and one that is folded."""
    commits = recorder.commits
    stream = bucket.stream(FIRST, [commits[:4], [fold(commits[4:8])], commits[8:]], 4096)
    for after in range(11):
        file.write_bytes(recorder.states[after])
        reached = await apply(bucket, file, line(leg(stream, after)))
        assert file.read_bytes() == recorder.states[10]
        assert reached.position == (Position(FIRST, 10) if after < 10 else POINT)


async def test_what_changed_is_applied_to_no_other_page_than_the_one_it_was_made_from(file: Path) -> None:
    """A restore point whose page differs from what the writer had, even in one byte: the restore stops before, and says so."""
    before, bucket = file.read_bytes(), Bucket(differences=True)
    pages = {1: before[:4096], 2: before[4096:8192]}
    changed = [{1: pages[1], 2: pages[2][:100] + bytes([number]) * 9 + pages[2][109:]} for number in range(3)]
    commits = [Commit(number + 1, at(number + 1), 2, images) for number, images in enumerate(changed)]
    stream = bucket.stream(FIRST, alone(commits), 4096)
    content = changed[0][1] + changed[0][2]
    file.write_bytes(content)
    reached = await apply(bucket, file, line(leg(stream, after=1)))
    assert (file.read_bytes(), reached.end) == (changed[2][1] + changed[2][2], End.NEWEST)
    for wrong in (4096 + 3000, 60):
        file.write_bytes(content[:wrong] + b"?" + content[wrong + 1 :])
        reached = await apply(bucket, file, line(leg(stream, after=1)))
        assert (reached.commits, reached.end) == (0, End.BROKEN)
        assert "commit 2 of segment" in reached.stopped
        assert "does not fit what precedes it" in reached.stopped
        assert file.read_bytes() == content[:wrong] + b"?" + content[wrong + 1 :]
    file.write_bytes(content[:4096])
    reached = await apply(bucket, file, line(leg(stream, after=1)))
    assert "has only what changed in page 2, which nothing before it has" in reached.stopped


async def test_folded_commits_are_all_applied_or_none(bucket: Bucket, file: Path, recorder: Recorder) -> None:
    commits = recorder.commits
    history = line(leg(bucket.stream(FIRST, [commits[:2], [fold(commits[2:6])], commits[6:]], 4096)))
    reached = await apply(bucket, file, history, at(5))
    assert file.read_bytes() == recorder.states[2]
    assert reached == Reached(Position(FIRST, 2), 2, at(2), at(2), End.INSTANT)


async def test_segments_after_the_instant_are_not_fetched(
    bucket: Bucket, file: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "AHEAD", 1)
    history = line(leg(bucket.stream(FIRST, alone(recorder.commits), 4096)))
    await apply(bucket, file, history, at(4))
    assert len(bucket.fetched) == 5


async def test_the_machines_own_clock_is_told(bucket: Bucket, file: Path, recorder: Recorder) -> None:
    """It decides nothing."""
    history = line(leg(bucket.stream(FIRST, alone(recorder.commits), 4096, ahead=60_000_000)))
    reached = await apply(bucket, file, history, at(4))
    assert (reached.time, reached.machine_time) == (at(4), at(4) + 60_000_000)
    assert file.read_bytes() == recorder.states[4]


Damage = Callable[[Bucket, StreamInfo, str], None]


def flip(bucket: Bucket, _stream: StreamInfo, key: str) -> None:
    data = bytearray(bucket.objects[key])
    data[len(data) // 2] ^= 1
    bucket.objects[key] = bytes(data)


def cut(bucket: Bucket, _stream: StreamInfo, key: str) -> None:
    bucket.objects[key] = bucket.objects[key][:-1]


def empty(bucket: Bucket, _stream: StreamInfo, key: str) -> None:
    bucket.objects[key] = b""


def remove(bucket: Bucket, _stream: StreamInfo, key: str) -> None:
    del bucket.objects[key]


def repeat(bucket: Bucket, stream: StreamInfo, key: str) -> None:
    """A good segment of the same stream under another one's key."""
    bucket.objects[key] = bucket.objects[stream.segments[1].key]


def overtake(bucket: Bucket, stream: StreamInfo, key: str) -> None:
    """The next one in its place."""
    bucket.objects[key] = bucket.objects[stream.segments[6].key]


def forge(changed: dict[str, object], bytes_of: Callable[[bytes], bytes] = lambda image: image) -> Damage:
    """A whole segment under the right key that does not belong there."""

    def damage(bucket: Bucket, _stream: StreamInfo, key: str) -> None:
        segment = decode(bucket.objects[key], key)
        header = replace(segment.header, **changed)  # type: ignore[arg-type]
        commits = [
            replace(each, images={page: bytes_of(bytes(image)) for page, image in each.images.items()})
            for each in commits_of(segment)
        ]
        bucket.objects[key] = encode(header, commits).data

    return damage


DAMAGES = {
    "flipped": flip,
    "cut": cut,
    "empty": empty,
    "gone": remove,
    "an earlier one": repeat,
    "a later one": overtake,
    "of another database": forge({"database": "other.db"}),
    "of another stream": forge({"stream": SECOND}),
    "not after the one before": forge({"prev": "0" * 64}),
    "of other pages": forge({"page_size": 2048}, lambda image: image[:2048]),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
async def test_what_is_wrong_ends_the_history_before_it(
    bucket: Bucket, file: Path, recorder: Recorder, damage: Damage
) -> None:
    """Nothing of it is applied, and nothing after it, although that is good."""
    stream = bucket.stream(FIRST, alone(recorder.commits), 4096)
    key = stream.segments[5].key
    damage(bucket, stream, key)
    reached = await apply(bucket, file, line(leg(stream)))
    assert file.read_bytes() == recorder.states[5]
    assert (reached.position, reached.end) == (Position(FIRST, 5), End.BROKEN)
    assert key in reached.stopped


async def test_the_first_segment_of_a_stream_is_the_first(bucket: Bucket, file: Path, recorder: Recorder) -> None:
    stream = bucket.stream(FIRST, alone(recorder.commits), 4096)
    forge({"prev": "0" * 64})(bucket, stream, stream.segments[0].key)
    reached = await apply(bucket, file, line(leg(stream)))
    assert file.read_bytes() == recorder.states[0]
    assert (reached.position, reached.end, reached.commits) == (POINT, End.BROKEN, 0)


async def test_a_missing_number_is_never_skipped(bucket: Bucket, file: Path, recorder: Recorder) -> None:
    """Whoever listed the segments may have missed one: the keys are not trusted."""
    stream = bucket.stream(FIRST, alone(recorder.commits), 4096)
    holed = replace(stream, segments=(*stream.segments[:5], *stream.segments[6:]))
    reached = await apply(bucket, file, line(leg(holed)))
    assert file.read_bytes() == recorder.states[5]
    assert reached.end is End.BROKEN


async def test_a_stream_is_not_entered_before_its_predecessor_has_reached_it(
    bucket: Bucket, file: Path, recorder: Recorder
) -> None:
    first = bucket.stream(FIRST, alone(recorder.commits[:4]), 4096)
    rest = [replace(each, number=each.number - 5) for each in recorder.commits[5:]]
    second = bucket.stream(SECOND, alone(rest), 4096, Position(FIRST, 5))
    reached = await apply(bucket, file, line(leg(first, upto=5), leg(second)))
    assert file.read_bytes() == recorder.states[4]
    assert (reached.position, reached.end) == (Position(FIRST, 4), End.BROKEN)
    assert "no commit 5" in reached.stopped


async def test_damage_after_the_instant_is_no_damage(bucket: Bucket, file: Path, recorder: Recorder) -> None:
    stream = bucket.stream(FIRST, alone(recorder.commits), 4096)
    flip(bucket, stream, stream.segments[7].key)
    assert (await apply(bucket, file, line(leg(stream)), at(6))).end is End.INSTANT
    assert file.read_bytes() == recorder.states[6]


async def test_why_a_history_ends_is_passed_on(bucket: Bucket, file: Path, recorder: Recorder) -> None:
    stream = bucket.stream(FIRST, alone(recorder.commits), 4096)
    reached = await apply(bucket, file, line(leg(stream), stopped="commit 11 is missing"))
    assert (reached.end, reached.stopped) == (End.NEWEST, "commit 11 is missing")


async def test_a_segment_of_a_newer_version_is_not_taken_for_the_end(
    bucket: Bucket, file: Path, recorder: Recorder
) -> None:
    stream = bucket.stream(FIRST, alone(recorder.commits), 4096)
    raw = zstandard.ZstdDecompressor().decompress(bucket.objects[stream.segments[5].key])
    bucket.objects[stream.segments[5].key] = zstandard.ZstdCompressor().compress(raw.replace(b"SIDEINC1", b"SIDEINC2"))
    with pytest.raises(UnsupportedSegment):
        await apply(bucket, file, line(leg(stream)))


async def test_an_unreachable_store_is_not_taken_for_the_end(bucket: Bucket, file: Path, recorder: Recorder) -> None:
    stream = bucket.stream(FIRST, alone(recorder.commits), 4096)

    async def fetch(info: SegmentInfo) -> Bytes:
        if info.first == 6:
            raise StoreUnavailable("unreachable")
        return await bucket.fetch(info)

    with pytest.raises(StoreUnavailable):
        await PointInTime(fetch).apply(file, NAME, line(leg(stream)))


async def test_a_transaction_without_its_last_part_is_not_applied(
    bucket: Bucket, file: Path, recorder: Recorder
) -> None:
    """A machine died between two of its objects. The file is that of the commit before."""
    giant = ["INSERT INTO notes (content) VALUES (randomblob(60000))"] * 4
    recorder.run(*giant)
    stream = bucket.stream(FIRST, alone(recorder.commits), 4096, limit=40_000)
    parts = [each for each in stream.segments if each.last == 11]
    assert len(parts) > 5
    broken = replace(stream, segments=tuple(each for each in stream.segments if each != parts[-1]))
    reached = await apply(bucket, file, line(leg(broken, upto=10)))
    assert file.read_bytes() == recorder.states[10]
    assert reached.position == Position(FIRST, 10)
    file.write_bytes(recorder.states[0])
    flip(bucket, stream, parts[2].key)
    reached = await apply(bucket, file, line(leg(stream)))
    assert file.read_bytes() == recorder.states[10]
    assert (reached.position, reached.end) == (Position(FIRST, 10), End.BROKEN)
    flip(bucket, stream, parts[2].key)
    file.write_bytes(recorder.states[0])
    assert (await apply(bucket, file, line(leg(stream)))).position == Position(FIRST, 11)
    assert file.read_bytes() == recorder.states[11]
    assert [each.name for each in file.parent.iterdir() if "live" not in each.name] == [file.name]


async def test_folded_commits_in_several_parts_are_one_transaction(
    bucket: Bucket, file: Path, recorder: Recorder
) -> None:
    """A backlog that was folded, and is too large for one segment: its later parts begin with its last number."""
    folded = fold(recorder.commits[2:])
    stream = bucket.stream(FIRST, [recorder.commits[:2], [folded]], 4096, limit=2 * 4096)
    stream = replace(stream, segments=tuple(sorted(stream.segments, key=lambda each: each.key)))
    assert [each.first for each in stream.segments[-2:]] == [10, 10]
    reached = await apply(bucket, file, line(leg(stream)))
    assert (reached.stopped, reached.position) == ("", Position(FIRST, 10))
    assert file.read_bytes() == recorder.states[10]


async def test_a_result_whose_first_page_says_another_size_is_refused(
    bucket: Bucket, file: Path, recorder: Recorder
) -> None:
    commits = [*recorder.commits[:-1], replace(recorder.commits[-1], pages=recorder.commits[-1].pages + 1)]
    with pytest.raises(DamagedDatabase, match="its first page says"):
        await apply(bucket, file, line(leg(bucket.stream(FIRST, alone(commits), 4096))))


async def test_memory_is_bounded_whatever_the_length(tmp_path: Path, bucket: Bucket) -> None:
    """200 MiB of images, among them a transaction of 100 MiB in parts: 32 MiB and one segment at a time at most."""
    size, part = 65536, 4 << 20
    image, file = bytes(size), tmp_path / "restored.db"
    header = bytearray(image)
    header[16:18], header[28:32] = (1).to_bytes(2, "big"), (3500).to_bytes(4, "big")
    file.write_bytes(header)
    commits = [
        Commit(
            number,
            at(number),
            3500,
            {1 + number * 40 + each: random.Random(number).randbytes(8) * (size // 8) for each in range(1, 40)},
        )
        for number in range(1, 40)
    ]
    giant = Commit(40, at(40), 3500, {1800 + each: (each + 1).to_bytes(8, "big") * (size // 8) for each in range(1600)})
    stream = bucket.stream(FIRST, alone([*commits, giant]), size, limit=part)
    del commits
    tracemalloc.start()
    try:
        reached = await apply(bucket, file, line(leg(stream)))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert reached.commits == 40
    assert peak < (32 << 20) + 3 * part
    with file.open("rb") as restored:
        restored.seek(1799 * size)
        assert restored.read(8) == (1).to_bytes(8, "big")
