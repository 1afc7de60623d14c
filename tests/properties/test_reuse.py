"""The plan of a publish against a model: what the store assembles is the next database, within every rule of parts."""

import hashlib

from hypothesis import given
from hypothesis import strategies as st

from sidecar.repository.format.index import CHUNK_SIZE, Index
from sidecar.repository.format.tail import Contents
from sidecar.repository.reuse import CopiedChunks, NewChunks, PartLimits, plan_reuse

MINIMUM = 50
LIMITS = PartLimits(minimum_part=MINIMUM, copy_limit=200)

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
    runs = plan_reuse(index_of(new), parent, LIMITS)

    assert [number for run in runs for number in run.chunks] == list(range(len(new)))
    assert isinstance(runs[-1], NewChunks), "the tail is uploaded"
    for run, following in zip(runs, [*runs[1:], None], strict=True):
        if isinstance(run, CopiedChunks):
            span = run.span
            assert span.end is not None
            copied = old[run.first_in_parent : run.first_in_parent + len(run.chunks)]
            assert copied == [new[number] for number in run.chunks]
            assert (span.start, span.end) == (
                parent.offsets[run.first_in_parent],
                parent.offsets[run.first_in_parent + len(copied)],
            )
            assert span.end - span.start >= MINIMUM
            assert span.end <= parent.offsets[-1], "the parent's own index is never copied"
        elif following is not None:
            assert sum(size_of(new[number]) for number in run.chunks) >= MINIMUM
            assert isinstance(following, CopiedChunks), "two uploads in a row are one"


@given(histories())
def test_changed_chunks_that_compress_to_nothing_do_not_make_a_part_too_small(
    history: tuple[list[int], list[int]],
) -> None:
    """An upload before a copy reaches the minimum by unchanged chunks alone, whatever the changed ones compress to."""
    old, new = history
    known = set(old)
    for run in plan_reuse(index_of(new), contents_of(old), LIMITS)[:-1]:
        if isinstance(run, NewChunks):
            assert sum(size_of(new[number]) for number in run.chunks if new[number] in known) >= MINIMUM


@given(chunks)
def test_an_unchanged_database_is_all_copied_but_for_what_is_too_small(letters: list[int]) -> None:
    parent = contents_of(letters)
    runs = plan_reuse(index_of(letters), parent, LIMITS)
    total = parent.offsets[-1]
    uploaded = sum(len(run.chunks) for run in runs if isinstance(run, NewChunks))
    assert uploaded == (len(letters) if total < MINIMUM or parent.size <= MINIMUM else 0)


@given(chunks)
def test_without_a_parent_everything_is_uploaded(letters: list[int]) -> None:
    assert plan_reuse(index_of(letters), None, LIMITS) == [NewChunks(range(len(letters)))]


@given(st.integers(2, 400))
def test_long_copies_are_cut_into_parts_of_allowed_size(length: int) -> None:
    letters = [number % 26 for number in range(length)]
    for run in plan_reuse(index_of(letters), contents_of(letters), LIMITS):
        if isinstance(run, CopiedChunks):
            assert run.span.end is not None
            assert MINIMUM <= run.span.end - run.span.start <= LIMITS.copy_limit
