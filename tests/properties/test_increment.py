"""Segments under random commits: read back as written, folded and split without a difference to the database."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from sidecar.model import AtRestorePoint, Commit, LogPosition, Position
from sidecar.repository.format.folding import bytes_of, fold, split
from sidecar.repository.format.increment import ClockAnchor, SegmentHeader, decode, encode
from sidecar.repository.keys import segment_key_of
from tests.harness.documented import documented_reader
from tests.harness.segments import commits_in, commits_of

SIZE = 512
Database = dict[int, bytes]


@st.composite
def histories(draw: st.DrawFn) -> list[Commit]:
    """Commits as SQLite makes them: a database that grows has an image of each new page."""
    number, size = draw(st.integers(1, 1 << 40)), draw(st.integers(1, 6))
    time = draw(st.integers(0, 1 << 52))
    commits: list[Commit] = []
    for _ in range(draw(st.integers(1, 6))):
        before, size = size, draw(st.integers(1, 9))
        new = set(range(before + 1, size + 1))
        changed = draw(st.sets(st.integers(1, max(size, before) + 2), max_size=4)) | new
        images = {page: bytes([draw(st.integers(0, 255))]) * SIZE for page in changed}
        commits.append(Commit(number, time, size, images))
        number, time = number + 1, time + draw(st.integers(0, 1 << 30))
    return commits


def applied(commits: Sequence[Commit]) -> tuple[Database, int]:
    """The changed pages of the database after these commits, applied and cut one by one; and its size."""
    database: Database = {}
    for commit in commits:
        database.update({page: bytes(image) for page, image in commit.images.items()})
        if not commit.continued:
            database = {page: image for page, image in database.items() if page <= commit.pages}
    return database, commits[-1].pages


origins = st.one_of(
    st.none(),
    st.builds(Position, st.text(max_size=9), st.integers(0, 1 << 53)),
    st.builds(AtRestorePoint, st.text(max_size=9)),
)
logs = st.none() | st.builds(
    LogPosition, st.binary(min_size=8, max_size=8), st.integers(0, 1 << 32), st.tuples(*[st.integers(0, 2**32 - 1)] * 2)
)


@st.composite
def headers(draw: st.DrawFn, commits: Sequence[Commit]) -> SegmentHeader:
    return SegmentHeader(
        database=draw(st.text(max_size=9)),
        stream=draw(st.text(max_size=9)),
        first=commits[0].number,
        last=commits[-1].number,
        page_size=SIZE,
        prev=draw(st.binary(min_size=32, max_size=32)).hex(),
        holder=draw(st.text(max_size=9)),
        epoch=draw(st.integers(0, 1 << 53)),
        sqlite="3.53.4",
        clock=ClockAnchor(draw(st.integers(0, 1 << 53)), draw(st.integers(0, 1 << 53))),
        after=draw(origins),
        log=draw(logs),
        unsummed=draw(st.booleans()),
        closing=draw(st.booleans()),
    )


@given(st.data(), histories())
def test_a_segment_is_read_back(data: st.DataObject, commits: list[Commit]) -> None:
    header = data.draw(headers(commits))
    written = encode(header, commits)
    segment = decode(written.data, "s")
    assert (segment.header, commits_of(segment), segment.digest) == (header, tuple(commits), written.digest)


@given(st.data(), histories())
def test_the_documented_reader_reads_it(data: st.DataObject, commits: list[Commit]) -> None:
    header = data.draw(headers(commits))
    written = encode(header, commits)
    reader = documented_reader()
    found, digest, size = reader["segment"](written.data, header.prev)
    assert (digest, size) == (written.digest, SIZE)
    for (number, time, pages, flags, stored, check), commit in zip(found, commits, strict=True):
        assert (number, time, pages, flags) == (commit.number, commit.time / 1e6, commit.pages, 0)
        assert reader["whole"](stored, check, {}) == commit.images


@given(histories())
def test_folded_commits_make_the_same_database(commits: list[Commit]) -> None:
    folded = fold(commits)
    assert applied([folded]) == applied(commits)
    assert (folded.number, folded.time) == (commits[-1].number, commits[-1].time)
    assert folded.folded is (len(commits) > 1)


@given(st.data(), histories())
def test_folding_in_steps_is_folding_at_once(data: st.DataObject, commits: list[Commit]) -> None:
    cut = data.draw(st.integers(1, len(commits)))
    assert fold([fold(commits[:cut]), *commits[cut:]]) == fold(commits)


@given(histories(), st.integers(SIZE, 8 * SIZE))
def test_split_commits_make_the_same_database(commits: list[Commit], limit: int) -> None:
    """Each portion makes a valid segment within the limit, their keys sort in their order, and no commit is lost."""
    first = commits[0].number
    portions = split(commits, first, limit)
    pieces = [commit for portion in portions for commit in portion.commits]
    assert applied(pieces) == applied(commits)
    whole = [commit.number for commit in pieces if not commit.continued]
    assert whole == [commit.number for commit in commits]
    assert all(bytes_of(portion.commits) <= limit for portion in portions)
    keys = [segment_key_of("a", "b", each.first, each.last, each.time + 10**12) for each in portions]
    assert keys == sorted(set(keys))
    for before, portion in zip([None, *portions], portions, strict=False):
        expected = before.last + (not before.commits[-1].continued) if before else first
        assert portion.first == expected
        header = SegmentHeader("a", "b", portion.first, portion.last, SIZE, "", "", 1, "", ClockAnchor(1, 1))
        assert commits_in(encode(header, portion.commits).data) == portion.commits


@given(histories(), st.integers(SIZE, 8 * SIZE))
def test_a_folded_run_is_split_under_its_first_number(commits: list[Commit], limit: int) -> None:
    portions = split([fold(commits)], commits[0].number, limit)
    assert (portions[0].first, portions[-1].last) == (commits[0].number, commits[-1].number)
    assert applied([commit for each in portions for commit in each.commits]) == applied(commits)
    for portion in portions:
        header = SegmentHeader("a", "b", portion.first, portion.last, SIZE, "", "", 1, "", ClockAnchor(1, 1))
        encode(header, portion.commits)
