"""The path through restore points and streams, case by case; `properties/test_stream_history` has the rules for all."""

from sidecar.model import AtRestorePoint, Origin, Position, Timestamp
from sidecar.repository.history import Path, SegmentInfo, StreamInfo, is_beyond_end, is_side_line, trace

POINT = AtRestorePoint("app.db/20261120T145503.123Z.sqlite3.zst")


def segment(first: int, last: int, time: int = 0) -> SegmentInfo:
    return SegmentInfo(f"{last}-{first}-{time}", first, last, time or last * 1000, 1, "e")


def stream(
    number: int, after: Origin | None, *segments: tuple[int, ...], epoch: int | None = None, holder: str = "web"
) -> StreamInfo:
    """Stream S<number>, which began in minute `number`, in epoch `number` unless another one is given."""
    start = Timestamp(f"20261120T15{number:02d}00.000Z")
    found = tuple(segment(*each) for each in segments)
    return StreamInfo(name(number), start, number if epoch is None else epoch, holder, after, found)


def name(number: int) -> str:
    return f"20261120T15{number:02d}00.000Z-S{number}"


def at(number: int, commit: int) -> Position:
    return Position(name(number), commit)


def legs(path: Path) -> list[tuple[str, int, int, list[tuple[int, int]]]]:
    """Stream, after, upto and segments of each leg."""
    return [
        (leg.stream.name[-2:], leg.after, leg.upto, [(each.first, each.last) for each in leg.segments])
        for leg in path.legs
    ]


def sides(path: Path) -> list[tuple[str, int]]:
    return [(side.stream.name[-2:], side.after) for side in path.side_lines]


def test_a_restore_point_without_streams_is_all() -> None:
    assert trace(POINT, [], {}) == Path(POINT, (), POINT)
    assert trace(at(1, 7), [], {}) == Path(at(1, 7), (), at(1, 7))


def test_the_tail_of_the_stream_that_the_restore_point_names() -> None:
    """From the middle of a segment on, and nothing that the restore point has already."""
    path = trace(at(1, 7), [stream(1, None, (1, 3), (4, 7), (8, 8), (9, 12))], {})
    assert legs(path) == [("S1", 7, 12, [(8, 8), (9, 12)])]
    assert (path.end, path.stopped, sides(path)) == (at(1, 12), "", [])
    path = trace(at(1, 5), [stream(1, None, (1, 3), (4, 7), (8, 8))], {})
    assert legs(path) == [("S1", 5, 8, [(4, 7), (8, 8)])]


def test_a_stream_that_begins_at_the_restore_point() -> None:
    path = trace(POINT, [stream(1, POINT, (1, 3)), stream(2, AtRestorePoint("other"), (1, 1))], {})
    assert legs(path) == [("S1", 0, 3, [(1, 3)])]
    assert sides(path) == [("S2", 0)]


def test_the_path_goes_over_to_the_stream_that_continues_it() -> None:
    """What the older one has beyond that is a side line."""
    path = trace(at(1, 2), [stream(1, None, (1, 3), (4, 6), (7, 9)), stream(2, at(1, 5), (1, 4))], {})
    assert legs(path) == [("S1", 2, 5, [(1, 3), (4, 6)]), ("S2", 0, 4, [(1, 4)])]
    assert (path.end, path.stopped, sides(path)) == (at(2, 4), "", [("S1", 5)])


def test_of_several_that_continue_a_position_the_higher_epoch_and_then_the_later_start() -> None:
    base = stream(1, None, (1, 5))
    path = trace(at(1, 0), [base, stream(2, at(1, 5), (1, 2), epoch=9), stream(3, at(1, 5), (1, 3), epoch=8)], {})
    assert (path.end, sides(path)) == (at(2, 2), [("S3", 0)])
    path = trace(at(1, 0), [base, stream(2, at(1, 5), (1, 2), epoch=9), stream(3, at(1, 5), (1, 3), epoch=9)], {})
    assert (path.end, sides(path)) == (at(3, 3), [("S2", 0)])


def test_what_a_later_holder_started_from_outweighs_the_epoch_of_a_segment_that_arrived_late() -> None:
    """S3 was fenced and woke up after S4's machine had started from S2."""
    streams = [
        stream(1, None, (1, 5)),
        stream(2, at(1, 5), (1, 2), epoch=2),
        stream(3, at(1, 5), (1, 9), epoch=3),
        stream(4, at(2, 2), (1, 1), epoch=4),
    ]
    path = trace(at(1, 0), streams, {})
    assert [leg.stream.name for leg in path.legs] == [name(1), name(2), name(4)]
    assert sides(path) == [("S3", 0)]


def test_a_stream_is_left_at_its_recorded_end() -> None:
    """Also before its successor has published anything, and whatever a fenced machine adds."""
    streams = [stream(1, None, (1, 4), (5, 9))]
    path = trace(at(1, 2), streams, {name(1): 6})
    assert (legs(path)[0][2], path.end, path.stopped, sides(path)) == (6, at(1, 6), "", [("S1", 6)])
    path = trace(at(1, 2), [*streams, stream(2, at(1, 8), (1, 1)), stream(3, at(1, 6), (1, 1), epoch=1)], {name(1): 6})
    assert (path.end, sides(path)) == (at(3, 1), [("S1", 6), ("S2", 0)])


def test_a_restore_point_beyond_a_recorded_end_leads_nowhere() -> None:
    path = trace(at(1, 7), [stream(1, None, (1, 9))], {name(1): 6})
    assert (path.legs, path.end) == ((), at(1, 7))
    assert path.stopped == f"a fenced machine wrote commit 7 of stream {name(1)}, which ended at commit 6"
    assert is_beyond_end(at(1, 7), {name(1): 6})
    assert not is_beyond_end(at(1, 6), {name(1): 6})
    assert not is_beyond_end(at(2, 7), {name(1): 6})
    assert not is_beyond_end(None, {name(1): 6})


def test_the_path_stops_before_a_gap() -> None:
    path = trace(at(1, 2), [stream(1, None, (1, 4), (7, 9)), stream(2, at(1, 9), (1, 3))], {})
    assert legs(path) == [("S1", 2, 4, [(1, 4)])]
    assert (path.end, path.stopped) == (at(1, 4), f"commits 5 to 6 of stream {name(1)} are missing")
    path = trace(at(1, 2), [stream(1, None, (5, 9))], {})
    assert (path.end, path.stopped) == (at(1, 2), f"commits 3 to 4 of stream {name(1)} are missing")


def test_commits_that_a_later_stream_continues_are_missing_when_they_are_not_there() -> None:
    path = trace(at(1, 2), [stream(1, None, (1, 4)), stream(2, at(1, 6), (1, 3))], {})
    assert (path.end, path.stopped) == (at(1, 4), f"commits 5 to 6 of stream {name(1)} are missing")
    path = trace(at(1, 2), [stream(1, None, (1, 4))], {name(1): 6})
    assert (path.end, path.stopped) == (at(1, 4), f"commits 5 to 6 of stream {name(1)} are missing")
    path = trace(at(1, 6), [stream(1, None, (1, 7)), stream(2, at(1, 7), (4, 5))], {})
    assert (path.end, path.stopped) == (at(1, 7), f"commits 1 to 3 of stream {name(2)} are missing")


def test_a_stream_of_which_nothing_is_left_is_not_skipped() -> None:
    """Its segments have expired, those of the stream that continues it have not: they belong on another state."""
    missing = f"commits 3 to 9 of stream {name(1)} are missing"
    path = trace(at(1, 2), [stream(2, at(1, 9), (1, 3))], {})
    assert (path.legs, path.end, path.stopped) == ((), at(1, 2), missing)
    path = trace(at(1, 2), [], {name(1): 9})
    assert (path.legs, path.end, path.stopped) == ((), at(1, 2), missing)
    path = trace(at(1, 9), [stream(2, at(1, 9), (1, 3))], {})
    assert (path.end, path.stopped) == (at(2, 3), "")


def test_two_segments_with_the_same_commits_end_the_path() -> None:
    path = trace(at(1, 0), [stream(1, None, (1, 4), (5, 7), (6, 8), (9, 9))], {})
    assert (path.end, path.stopped) == (at(1, 7), f"two segments of stream {name(1)} hold commit 6")


def test_a_transaction_over_several_segments_is_one_commit() -> None:
    parts = ((1, 5, 4_997), (5, 5, 4_998), (5, 5, 4_999), (5, 6, 6_000))
    path = trace(at(1, 3), [stream(1, None, *parts)], {})
    assert legs(path) == [("S1", 3, 6, [(1, 5), (5, 5), (5, 5), (5, 6)])]
    path = trace(at(1, 3), [stream(1, None, *parts, (7, 7)), stream(2, at(1, 5), (1, 1))], {})
    assert legs(path)[0] == ("S1", 3, 5, [(1, 5), (5, 5), (5, 5), (5, 6)])


def test_a_stream_whose_beginning_is_not_proved_is_beside_the_path() -> None:
    path = trace(at(1, 0), [stream(1, None, (1, 4)), stream(2, None, (1, 3))], {})
    assert (path.end, sides(path)) == (at(1, 4), [("S2", 0)])
    assert "it does not record what it continues" in path.side_lines[0].reason


def test_earlier_streams_are_not_mentioned() -> None:
    path = trace(at(2, 1), [stream(1, None, (1, 4)), stream(2, at(1, 4), (1, 3))], {})
    assert (path.end, sides(path)) == (at(2, 3), [])


def test_until_an_instant_the_path_is_as_long_as_it_has_to_be() -> None:
    """With the first segment that is later, for its commits before that; and later streams are not missing."""
    streams = [stream(1, None, (1, 2), (3, 4), (5, 6)), stream(2, at(1, 9), (1, 3))]
    for until, last in [(0, 2), (2_000_000, 4), (3_999_999, 4), (4_000_000, 6)]:
        path = trace(at(1, 0), streams, {}, until)
        assert (path.end, path.stopped) == (at(1, last), "")
    assert trace(at(1, 0), streams, {}, 6_000_000).stopped == f"commits 7 to 9 of stream {name(1)} are missing"


def test_streams_that_continue_each_other_are_no_endless_path() -> None:
    """Only damage or malice makes such headers."""
    path = trace(at(1, 0), [stream(1, at(2, 1), (1, 1)), stream(2, at(1, 1), (1, 1)), stream(3, at(3, 1), (1, 1))], {})
    assert path.end == at(2, 1)


def test_later_streams_show_which_positions_the_main_line_left() -> None:
    """Machine 2 went on from commit 6 of S1, machine 3 from commit 8 of what machine 2 wrote; the lease has only the latter."""
    later = [stream(4, at(1, 6)), stream(5, at(4, 8))]
    ends = {name(4): 8}
    assert [is_side_line(at(1, commit), later, ends) for commit in (6, 7)] == [False, True]
    assert [is_side_line(at(4, commit), later[1:], ends) for commit in (8, 9)] == [False, True]
    assert is_side_line(at(2, 0), later, ends), "a stream that the main line passed by"
    assert is_side_line(at(1, 7), later[:1], {name(4): 8})


def test_what_proves_nothing_makes_no_side_line() -> None:
    assert not is_side_line(at(1, 7), [], {})
    assert not is_side_line(at(1, 7), [stream(2, None), stream(3, at(2, 1))], {}), "entered through a restore point"
    assert not is_side_line(at(1, 7), [stream(2, at(1, 6), epoch=1), stream(3, at(1, 7))], {}), "a lower epoch"
    assert not is_side_line(at(1, 7), [stream(2, at(1, 6))], {name(1): 7}), "the lease knows better"
    assert not is_side_line(at(1, 7), [stream(2, at(3, 1)), stream(3, at(2, 1))], {}), "a ring"


def test_a_stream_that_continues_a_restore_point_passes_by_what_began_after_it() -> None:
    restore_point = AtRestorePoint("app.db/20261120T150300.000Z.sqlite3.zst")
    later = [stream(9, restore_point)]
    assert [is_side_line(at(number, 5), later, {}) for number in (1, 4)] == [False, True]
