"""What differs between two copies, and what commits wrote in between."""

from dataclasses import replace

from sidecar.backup.unexplained import unexplained
from sidecar.model import Position
from sidecar.repository import Index
from sidecar.repository.format.index import CHUNK_SIZE


def index(content: str, commit: int, stream: str = "s", size: int | None = None) -> Index:
    """A digest for each letter, and a place in a stream."""
    digests = b"".join(letter.encode() * 32 for letter in content)
    position = Position(stream, commit)
    return Index("app.db", "", 4096, len(content) * CHUNK_SIZE if size is None else size, digests, position=position)


def wrote(*written: tuple[int, int]) -> dict[int, int]:
    """Chunks, and the last commit that wrote each."""
    return dict(written)


def found(before: Index, now: Index, written: dict[int, int]) -> list[int]:
    return unexplained(before, now, lambda chunk, after: written.get(chunk, 0) > after)


def test_what_no_commit_wrote_since_the_copy_before() -> None:
    before, now = index("abcd", 5), index("aBCd", 9)
    assert found(before, now, wrote((1, 6), (2, 9))) == []
    assert found(before, now, wrote((1, 5), (2, 9), (3, 7))) == [1]
    assert found(before, now, {}) == [1, 2]


def test_without_a_commit_in_between_nothing_may_differ() -> None:
    assert found(index("ab", 5), index("Ab", 5), wrote((0, 5), (1, 5))) == [0]


def test_where_a_file_ended_only_the_same_size_is_compared() -> None:
    whole, cut = index("ab", 5), index("aB", 9, size=CHUNK_SIZE + 4096)
    assert found(whole, cut, {}) == []
    assert found(cut, replace(cut, digests=whole.digests, position=Position("s", 9)), {}) == [1]
    assert found(index("abc", 5), index("a", 9), {}) == []


def test_copies_of_two_streams_or_page_sizes_are_not_compared() -> None:
    before = index("a", 5)
    assert found(before, index("b", 9, "t"), {}) == []
    assert found(before, replace(index("b", 9), page_size=8192), {}) == []
    assert found(before, replace(index("b", 9), position=None), {}) == []
    assert found(replace(before, position=None), index("b", 9), {}) == []
