"""Segments with what changed in pages: any restore reads the same pages, and nothing is ever made of a wrong previous image.

Databases are made of random bytes, in which some pages change a little, some wholly and some not at all. Restores begin at
any place where the store has a restore point, with a file of which no page is right.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from random import Random

import pytest
import zstandard
from hypothesis import event, given, settings
from hypothesis import strategies as st

from sidecar.backup.previous_images import Copies, ImageCache, PreviousImages
from sidecar.errors import DamagedSegment, UnsupportedSegment
from sidecar.model import Bytes, Commit, Followed
from sidecar.repository.format.differences import encode_smaller
from sidecar.repository.format.folding import fold, split
from sidecar.repository.format.increment import ClockAnchor, SegmentHeader, decode, first_prev
from tests.harness.documented import documented_reader
from tests.harness.segments import commits_in, encoded_differences

SIZE = 512
STREAM = "20261120T145503.123Z-0000000007-web"
Database = dict[int, bytes]


@st.composite
def histories(draw: st.DrawFn, most: int = 12) -> list[Commit]:
    """Commits of a database that grows and shrinks; a page that is cut off may come back, changed or not."""
    chance, size = Random(draw(st.integers(0, 1 << 32))), draw(st.integers(1, 6))
    database: Database = {}
    commits: list[Commit] = []
    for number in range(1, draw(st.integers(2, most)) + 1):
        before, size = size, draw(st.integers(1, 9))
        changed = draw(st.sets(st.integers(1, size + 2), max_size=4)) | set(range(before + 1, size + 1)) | {1}
        for page in changed:
            database[page] = _changed(chance, database.get(page))
        commits.append(Commit(number, number * 1_000_000, size, {page: database[page] for page in sorted(changed)}))
    return commits


def _changed(chance: Random, page: bytes | None) -> bytes:
    if page is None or chance.random() < 0.2:
        return chance.randbytes(SIZE)
    changed = bytearray(page)
    for _ in range(chance.randrange(3)):
        changed[chance.randrange(SIZE)] ^= chance.randrange(1, 256)
    return bytes(changed)


def header_of(first: int, last: int, prev: str = "") -> SegmentHeader:
    return SegmentHeader("app.db", STREAM, first, last, SIZE, prev, "web", 7, "3.53.4", ClockAnchor(1, 1))


@given(histories(), st.integers(0, 12))
def test_what_was_encoded_is_decoded_to_the_same_pages(commits: list[Commit], cut: int) -> None:
    """Also where each page that has a previous image is stored as its difference, even if that is larger."""
    before: dict[int, Bytes] = {}
    for part in filter(None, (commits[:cut], commits[cut:])):
        data = encoded_differences(header_of(part[0].number, part[-1].number), part, before)
        assert commits_in(data, before) == tuple(part)
        smaller = encode_smaller(header_of(part[0].number, part[-1].number), part, 0, before.get)
        assert commits_in(smaller.encoded.data, before) == tuple(part)
        assert len(smaller.encoded.data) <= smaller.whole
        assert smaller.mistake == ""
        for commit in part:
            before.update(commit.images)


def test_differences_are_chosen_where_they_are_smaller_and_only_there() -> None:
    """For each transaction by itself: one that changes a byte, and one that changes all."""
    chance = Random(1)
    before = {page: chance.randbytes(SIZE) for page in range(1, 9)}
    little = {page: image[:7] + b"!" + image[8:] for page, image in before.items()}
    other = {page: (b"%d words, " % page * SIZE)[:SIZE] for page in before}
    commits = [Commit(1, 1, 8, little), Commit(2, 2, 8, other)]
    smaller = encode_smaller(header_of(1, 2), commits, 0, before.get)
    records = decode(smaller.encoded.data, "s").records
    assert [len(record.differences) for record in records] == [8, 0]
    assert len(smaller.encoded.data) * 2 < smaller.whole
    only = encode_smaller(header_of(2, 2), commits[1:], 0, before.get)
    assert not decode(only.encoded.data, "s").records[0].differences
    assert len(only.encoded.data) == only.whole


def test_a_mistake_in_what_changed_is_found_before_it_is_published(monkeypatch: pytest.MonkeyPatch) -> None:
    """A bit that flips in memory, say: the pages are stored whole."""
    before = {1: Random(1).randbytes(SIZE)}
    commit = Commit(1, 1, 1, {1: b"x" + before[1][1:]})
    monkeypatch.setattr("sidecar.repository.format.records.xored", lambda _one, _other: b"y" + bytes(SIZE - 1))
    found = encode_smaller(header_of(1, 1), [commit], 0, before.get)
    assert "does not fit" in found.mistake
    assert commits_in(found.encoded.data) == (commit,)


@given(histories(4), st.data())
def test_no_flipped_byte_gives_other_pages(commits: list[Commit], data: st.DataObject) -> None:
    """In the object, in what it decompresses to, and in a previous image."""
    first, rest = commits[:1], commits[1:]
    before = dict(first[0].images)
    written = encoded_differences(header_of(2, commits[-1].number), rest, before)
    place, flip = data.draw(st.integers(0, len(written) - 1)), data.draw(st.integers(1, 255))
    with pytest.raises((DamagedSegment, UnsupportedSegment)):
        commits_in(flipped(written, place, flip), before)
    raw = zstandard.ZstdDecompressor().decompress(written)
    place = data.draw(st.integers(0, len(raw) - 1))
    with pytest.raises((DamagedSegment, UnsupportedSegment)):
        commits_in(zstandard.ZstdCompressor(write_checksum=True).compress(flipped(raw, place, flip)), before)
    used = sorted({page for record in decode(written, "s").records for page in record.differences} & before.keys())
    for page in used:
        wrong = before | {page: flipped(bytes(before[page]), data.draw(st.integers(0, SIZE - 1)), flip)}
        with pytest.raises(DamagedSegment, match="does not fit what precedes it"):
            commits_in(written, wrong)
        with pytest.raises(DamagedSegment, match=f"only what changed in page {page}, which nothing before it has"):
            commits_in(written, {other: image for other, image in before.items() if other != page})


def flipped(data: bytes, place: int, flip: int) -> bytes:
    return data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :]


@dataclass(slots=True)
class Writer:
    """Publishes segments as the daemon does, while restore points are copied. `points` are where restores may begin."""

    images: PreviousImages
    limit: int
    published: list[bytes] = field(default_factory=list)
    points: list[int] = field(default_factory=lambda: [0])
    differences: int = 0
    prev: str = first_prev(STREAM)
    begun: int | None = None
    last: int = 0

    def publish(self, commits: Sequence[Commit], *, folded: bool) -> None:
        first, self.last = self.last + 1, commits[-1].number
        for portion in split([fold(commits)] if folded else commits, first, self.limit):
            start = self.images.start(portion.first, portion.commits)
            copies = self.images.copies
            header = header_of(portion.first, portion.last, self.prev)
            smaller = encode_smaller(header, portion.commits, start, self.images.find)
            self.images.keep(portion.commits[start:], copies)
            self.published.append(smaller.encoded.data)
            self.prev = smaller.encoded.digest
            self.differences += sum(len(each.differences) for each in decode(smaller.encoded.data, "s").records)


STEPS = st.lists(st.sampled_from(["segment", "segment", "folded", "copy", *range(4), "other"]), min_size=2)


@settings(max_examples=120)
@given(histories(24), STEPS, st.integers(1, 6), st.sampled_from([700, 4000, 1 << 20]), st.integers(SIZE, 9 * SIZE))
def test_a_restore_from_any_restore_point_finds_all_that_it_needs(
    commits: list[Commit], steps: list[str | int], each: int, memory: int, limit: int
) -> None:
    """Whenever copies begin, wherever their place is in what was captured meanwhile, and with as little memory as one page.

    The restore point itself is no help: it may differ from the stream where nothing depends on it.
    """
    cache = ImageCache(memory)
    writer, other = Writer(PreviousImages(cache), limit), PreviousImages(cache)
    waiting = list(commits)
    for step in [*steps, 1, *["segment"] * len(commits)]:
        if step in {"segment", "folded"} and waiting:
            writer.publish(waiting[:each], folded=step == "folded")
            del waiting[:each]
        elif step == "copy" and writer.begun is None:
            writer.images.begin_copy()
            writer.begun = writer.last
        elif isinstance(step, int) and writer.begun is not None:  # the copy shows any commit from when it began
            writer.points.append(min(writer.begun + step, len(commits)))
            writer.images.end_copy(writer.points[-1])
            writer.begun = None
        elif step == "other":
            other.keep(commits[:2], other.copies)
        assert cache.size <= memory
    event("with differences" if writer.differences else "without")
    for point in writer.points:
        require_restored(writer.published, commits, point)


def require_restored(segments: Sequence[bytes], commits: Sequence[Commit], point: int) -> None:
    """The result of our decoder and of the documented one, both without a previous image in the restore point."""
    images, pending = dict[int, Bytes](), dict[int, Bytes]()
    for data in segments:
        for record in decode(data, "s").records:
            if record.number > point:
                pending.update(record.commit(images.get).images)
                if not record.continued:
                    images.update(pending)
                    pending = {}
    expected = state(commits, point)
    assert {page: image for page, image in images.items() if page in expected} == expected
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "app.db")
        file.write_bytes(b"?" * SIZE * 12)
        documented_reader()["apply"](file, segments, point)
        content = file.read_bytes()
    if point < commits[-1].number:
        assert len(content) == commits[-1].pages * SIZE
        assert {page: content[(page - 1) * SIZE : page * SIZE] for page in expected} == expected


def state(commits: Sequence[Commit], point: int) -> Mapping[int, Bytes]:
    """The last images after a restore point, of the pages that the database has in the end."""
    images: dict[int, Bytes] = {}
    for commit in commits[point:]:
        images.update(commit.images)
    return {page: image for page, image in images.items() if page <= commits[-1].pages}


def test_a_copy_that_begins_while_a_segment_is_encoded_leaves_no_image_behind() -> None:
    """What it was encoded from may be as old as the copy."""
    images = PreviousImages(ImageCache())
    commit = Commit(1, 1, 1, {1: b"a" * SIZE})
    copies = images.copies
    assert images.start(1, [commit]) == 0
    images.begin_copy()
    images.keep([commit], copies)
    images.end_copy(1)
    assert images.find(1) is None
    assert images.start(2, [replace(commit, number=2)]) == 0
    assert images.start(1, [replace(commit, number=3, folded=True)]) == 1


def test_a_stream_that_begins_during_a_copy_knows_of_it() -> None:
    """The copy may begin in its middle. A copy of another run of the feed says nothing about its commits."""
    copies, images = Copies(), PreviousImages(ImageCache())
    commits = [Commit(number, number, 1, {1: b"a" * SIZE}) for number in (1, 2, 3)]
    copies.place(None)
    copies.begin()
    copies.follow(7, images)
    assert images.start(1, commits) == 3
    copies.place(Followed(7, 2, lambda _part, _after: False))
    assert images.start(1, commits) == 2
    copies.begin()
    copies.place(Followed(6, 3, lambda _part, _after: False))
    assert images.start(1, commits) == 2
    copies.leave()
    assert images.start(1, commits) == 3


def test_a_stream_that_ended_keeps_no_memory() -> None:
    cache = ImageCache()
    images, other = PreviousImages(cache), PreviousImages(cache)
    for each in (images, other):
        each.keep([Commit(1, 1, 1, {1: b"a" * SIZE})], 0)
    size = cache.size
    images.close()
    assert (images.find(1), other.find(1), cache.size) == (None, b"a" * SIZE, size // 2)


def test_pages_that_change_a_little_all_the_time_are_sent_once_after_each_restore_point() -> None:
    """Whole in the first segment and while a copy's place is not known, and as differences from the second one after it on."""
    chance = Random(1)
    page, commits = chance.randbytes(SIZE), list[Commit]()
    for number in range(1, 13):
        page = flipped(page, chance.randrange(SIZE), 1)
        commits.append(Commit(number, number, 1, {1: page}))
    writer, seen = Writer(PreviousImages(ImageCache()), SIZE), []
    for number, commit in enumerate(commits, 1):
        if number == 5:
            writer.images.begin_copy()
        if number == 8:
            writer.images.end_copy(8)
        before = writer.differences
        writer.publish([commit], folded=False)
        seen.append(writer.differences - before)
    assert seen == [0, 1, 1, 1, 0, 0, 0, 0, 0, 1, 1, 1]
    require_restored(writer.published, commits, 8)
