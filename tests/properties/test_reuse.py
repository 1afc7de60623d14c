"""The plan of a publish against a model: what the store assembles is the next database, within every rule of parts."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from sidecar.repository.format.index import CHUNK_SIZE, Index
from sidecar.repository.format.tail import Contents
from sidecar.repository.reuse import Fresh, Reused, Rules, plan

MINIMUM = 50
RULES = Rules(minimum_part=MINIMUM, copy_limit=200)

# A chunk is a letter; its frame's size follows from the letter, so that equal chunks have equal frames.
chunks = st.lists(st.integers(0, 25), min_size=1, max_size=60)


def size_of(letter: int) -> int:
    return 1 + (letter * 7) % 31


def index_of(letters: list[int]) -> Index:
    digests = b"".join(hashlib.sha256(bytes([letter])).digest() for letter in letters)
    return Index("db", "", 4096, len(letters) * CHUNK_SIZE, digests)


def contents_of(letters: list[int], tail: int = 9) -> Contents:
    offsets = [0]
    for letter in letters:
        offsets.append(offsets[-1] + size_of(letter))
    return Contents(index_of(letters), tuple(offsets), offsets[-1] + tail)


edits = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 25)), max_size=8)


@st.composite
def histories(draw: st.DrawFn) -> tuple[list[int], list[int]]:
    """A database and what became of it: edited, grown, cut, moved, or replaced altogether."""
    old = draw(st.lists(st.integers(0, 25), min_size=1, max_size=120))
    new = list(old)
    for place, letter in draw(edits):
        new[place % len(new)] = letter
    new += draw(st.lists(st.integers(0, 25), max_size=20))
    new = new[: draw(st.integers(1, len(new)))]
    shift = draw(st.integers(0, 5))
    return old, draw(st.sampled_from([new, new[shift:] or new, draw(chunks)]))


@given(histories())
def test_the_assembled_object_is_the_next_database_and_keeps_every_rule(history: tuple[list[int], list[int]]) -> None:
    """Segments cover every chunk once and in order; copies are of equal chunks; all parts have allowed sizes."""
    old, new = history
    parent = contents_of(old)
    segments = plan(index_of(new), parent, RULES)

    assert [number for segment in segments for number in segment.chunks] == list(range(len(new)))
    assert isinstance(segments[-1], Fresh), "the tail is uploaded"
    for segment, following in zip(segments, [*segments[1:], None], strict=True):
        if isinstance(segment, Reused):
            span = segment.span
            assert span.end is not None
            copied = old[segment.first_in_parent : segment.first_in_parent + len(segment.chunks)]
            assert copied == [new[number] for number in segment.chunks]
            assert (span.start, span.end) == (
                parent.offsets[segment.first_in_parent],
                parent.offsets[segment.first_in_parent + len(copied)],
            )
            assert span.end - span.start >= MINIMUM
            assert span.end <= parent.offsets[-1], "the parent's own index is never copied"
        elif following is not None:
            assert sum(size_of(new[number]) for number in segment.chunks) >= MINIMUM
            assert isinstance(following, Reused), "two uploads in a row are one"


@given(histories())
def test_changed_chunks_that_compress_to_nothing_do_not_make_a_part_too_small(
    history: tuple[list[int], list[int]],
) -> None:
    """An upload before a copy reaches the minimum by unchanged chunks alone, whatever the changed ones compress to."""
    old, new = history
    known = set(old)
    for segment in plan(index_of(new), contents_of(old), RULES)[:-1]:
        if isinstance(segment, Fresh):
            assert sum(size_of(new[number]) for number in segment.chunks if new[number] in known) >= MINIMUM


@given(chunks)
def test_an_unchanged_database_is_all_copied_but_for_what_is_too_small(letters: list[int]) -> None:
    parent = contents_of(letters)
    segments = plan(index_of(letters), parent, RULES)
    total = parent.offsets[-1]
    uploaded = sum(len(segment.chunks) for segment in segments if isinstance(segment, Fresh))
    assert uploaded == (len(letters) if total < MINIMUM or parent.size <= MINIMUM else 0)


@given(chunks)
def test_without_a_parent_everything_is_uploaded(letters: list[int]) -> None:
    assert plan(index_of(letters), None, RULES) == [Fresh(range(len(letters)))]


@given(st.integers(2, 400))
def test_long_copies_are_cut_into_parts_of_allowed_size(length: int) -> None:
    letters = [number % 26 for number in range(length)]
    for segment in plan(index_of(letters), contents_of(letters), RULES):
        if isinstance(segment, Reused):
            assert segment.span.end is not None
            assert MINIMUM <= segment.span.end - segment.span.start <= RULES.copy_limit
