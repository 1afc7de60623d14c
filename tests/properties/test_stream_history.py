"""The path through random trees of streams: a chain without a gap, which uses nothing beyond a recorded end."""

import random
from dataclasses import dataclass, replace

from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.model import AtRestorePoint, Origin, Position, Timestamp
from sidecar.repository.history import Path, SegmentInfo, StreamInfo, trace

POINT = AtRestorePoint("app.db/20261120T145503.123Z.sqlite3.zst")


@dataclass(frozen=True, slots=True)
class Tree:
    """Streams as they were written, those of them that are left, recorded ends, and where a path starts."""

    written: dict[str, int]
    left: tuple[StreamInfo, ...]
    ends: dict[str, int]
    start: Origin


@st.composite
def trees(draw: st.DrawFn, *, whole: bool = False) -> Tree:
    """A whole tree has no gaps and no ends: everything that was written is there."""
    streams: list[StreamInfo] = []
    written: dict[str, int] = {}
    for number in range(draw(st.integers(1, 6))):
        after: Origin | None = None
        if streams and draw(st.sampled_from([True, True, True, False])):
            parent = draw(st.sampled_from([each.name for each in streams]))
            after = Position(parent, draw(st.integers(0, written[parent])))
        elif draw(st.booleans()) or whole:
            after = POINT
        start = Timestamp(f"20261120T16{number:02d}00.000Z")
        stream = StreamInfo(f"{start}-S{number}", start, draw(st.integers(1, 4)), "web", after, ())
        segments = _segments(draw, stream.name)
        written[stream.name] = segments[-1].last
        expired = not whole and not draw(st.integers(0, 4))
        kept = segments if whole else tuple(each for each in segments if not expired and draw(st.integers(0, 9)))
        streams.append(replace(stream, segments=kept))
    ends = {}
    if not whole:
        named = draw(st.sets(st.sampled_from(sorted(written)), max_size=2))
        ends = {name: draw(st.integers(0, written[name])) for name in sorted(named)}
    begin: Origin = POINT
    if draw(st.integers(0, 3)):
        name = draw(st.sampled_from([each.name for each in streams]))
        begin = Position(name, draw(st.integers(0, written[name])))
    return Tree(written, tuple(each for each in streams if each.segments), ends, begin)


def _segments(draw: st.DrawFn, name: str) -> tuple[SegmentInfo, ...]:
    """At least one; a commit may go over two segments."""
    found: list[SegmentInfo] = []
    last = 0
    for ms in range(draw(st.integers(1, 5))):
        first = last if found and draw(st.integers(0, 5)) == 0 else last + 1
        last = first + draw(st.integers(0, 3))
        found.append(SegmentInfo(f"{name}/{last:03d}-{first:03d}-{ms}", first, last, ms, 1, "e"))
    return tuple(found)


def resolved(origin: Origin | None, tree: Tree) -> Origin | None:
    """A position before the first commit of a stream is the one that this continues."""
    streams = {each.name: each for each in tree.left}
    while isinstance(origin, Position) and not origin.commit and origin.stream in streams and origin != tree.start:
        origin = streams[origin.stream].after
    return origin


def covered(path: Path) -> list[Position]:
    return [Position(leg.stream.name, number) for leg in path.legs for number in range(leg.after + 1, leg.upto + 1)]


@settings(max_examples=300)
@given(trees())
def test_the_path_is_a_chain(tree: Tree) -> None:
    """Each leg begins where the one before it ends, and each commit on the path is in its segments."""
    path = trace(tree.start, tree.left, tree.ends)
    at: Origin = tree.start
    for leg in path.legs:
        begin = Position(leg.stream.name, leg.after)
        assert at in {begin, resolved(begin, tree)}
        assert leg.after < leg.upto
        held = {number for each in leg.segments for number in range(each.first, each.last + 1)}
        assert held >= set(range(leg.after + 1, leg.upto + 1))
        assert all(each in leg.stream.segments for each in leg.segments)
        at = Position(leg.stream.name, leg.upto)
    assert path.end == at


@given(trees())
def test_nothing_beyond_a_recorded_end_is_used(tree: Tree) -> None:
    path = trace(tree.start, tree.left, tree.ends)
    assert all(each.commit <= tree.ends.get(each.stream, each.commit) for each in covered(path))
    for before, leg in zip(path.legs, path.legs[1:], strict=False):
        assert tree.ends.get(before.stream.name, before.upto) == before.upto or leg.after != 0


@given(trees(), st.randoms(use_true_random=False))
def test_the_order_of_a_listing_does_not_matter(tree: Tree, order: random.Random) -> None:
    shuffled = [replace(each, segments=tuple(order.sample(each.segments, len(each.segments)))) for each in tree.left]
    order.shuffle(shuffled)
    paths = [trace(tree.start, streams, tree.ends) for streams in (tree.left, shuffled)]
    assert covered(paths[0]) == covered(paths[1])
    assert (paths[0].end, paths[0].stopped) == (paths[1].end, paths[1].stopped)


@given(trees(whole=True))
def test_the_path_leads_to_the_highest_epoch_that_can_be_reached(tree: Tree) -> None:
    """Where nothing is missing it does not stop, and it ends with all of the last stream."""
    path = trace(tree.start, tree.left, tree.ends)
    assert not path.stopped
    reachable = [each for each in tree.left if _reaches(each, tree)]
    if reachable:
        best = max(reachable, key=lambda each: (each.epoch, each.start))
        visited = {leg.stream.name for leg in path.legs} | {side.stream.name for side in path.side_lines if side.after}
        assert best.name in visited or not _contributes(best, tree, path)
    if path.legs:
        last = path.legs[-1]
        follows = [each for each in tree.left if each.after == Position(last.stream.name, last.upto)]
        assert last.upto == tree.written[last.stream.name] or follows or resolved(path.end, tree) == path.end


def _reaches(stream: StreamInfo, tree: Tree) -> bool:
    """Whether the start is an ancestor of the stream, at or before the place where it was left."""
    streams = {each.name: each for each in tree.left}
    origin: Origin | None = Position(stream.name, tree.written[stream.name])
    while isinstance(origin, Position):
        if isinstance(tree.start, Position) and origin.stream == tree.start.stream:
            return origin.commit >= tree.start.commit
        origin = streams[origin.stream].after if origin.stream in streams else None
    return origin == tree.start


def _contributes(stream: StreamInfo, tree: Tree, path: Path) -> bool:
    """Whether commits of it are on the path if the path leads through it: not if it is left before its first one."""
    return not (
        isinstance(tree.start, Position) and tree.start == Position(stream.name, tree.written[stream.name])
    ) and (not any(each.after == Position(stream.name, 0) for each in tree.left))


@given(trees(), st.integers(0, 5_000))
def test_with_an_instant_the_path_is_a_beginning_of_the_whole_one(tree: Tree, until: int) -> None:
    whole = covered(trace(tree.start, tree.left, tree.ends))
    part = covered(trace(tree.start, tree.left, tree.ends, until))
    assert whole[: len(part)] == part
