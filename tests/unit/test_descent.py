"""A local database beside the streams in the store: kept where it has all of them, else it is a conflict or unproved."""

import pytest

from sidecar.database.lineage import Marker
from sidecar.model import AtRestorePoint, Position, Timestamp
from sidecar.repository.history import Leg, Path, StreamInfo
from sidecar.restore.decision import Tail
from sidecar.restore.descent import tail_of

POINT = "app.db/20261120T145503.123Z.sqlite3.zst"


def history(*legs: tuple[str, int, int]) -> Path:
    made = tuple(
        Leg(StreamInfo(name, Timestamp("20261120T145503.123Z"), 1, "web", None, ()), after, upto, ())
        for name, after, upto in legs
    )
    end = Position(legs[-1][0], legs[-1][2]) if legs else AtRestorePoint(POINT)
    return Path(AtRestorePoint(POINT), made, end)


def marker(*streams: str, restored_to: Position | None = None) -> Marker:
    return Marker("file:///store", POINT, streams=streams, restored_to=restored_to)


@pytest.mark.parametrize(
    ("legs", "local", "proved", "expected"),
    [
        ((), marker(), False, Tail.INCLUDED),
        ((("a", 0, 5),), marker("a"), True, Tail.INCLUDED),
        ((("a", 0, 5),), marker("a"), False, Tail.UNPROVED),
        ((("a", 0, 5),), marker(), True, Tail.FOREIGN),
        ((("a", 0, 5),), marker("b"), True, Tail.FOREIGN),
        ((("a", 0, 5), ("b", 0, 2)), marker("a"), True, Tail.FOREIGN),
        ((("a", 0, 5), ("b", 0, 2)), marker("a", "b"), True, Tail.INCLUDED),
        # Restored to the end of another machine's stream: that has not gone on, or has.
        ((("a", 3, 5),), marker(restored_to=Position("a", 5)), False, Tail.INCLUDED),
        ((("a", 3, 6),), marker(restored_to=Position("a", 5)), True, Tail.FOREIGN),
        ((("a", 3, 5), ("b", 0, 2)), marker("b", restored_to=Position("a", 5)), True, Tail.INCLUDED),
        ((("a", 3, 5), ("b", 0, 2)), marker("b", restored_to=Position("a", 5)), False, Tail.UNPROVED),
        ((("a", 3, 5), ("c", 0, 2)), marker("b", restored_to=Position("a", 5)), True, Tail.FOREIGN),
        # A restore point was published since: its history does not lead through what was restored.
        ((("b", 4, 9),), marker("b", restored_to=Position("a", 5)), True, Tail.INCLUDED),
    ],
)
def test_what_the_streams_have_beyond_a_local_database(
    legs: tuple[tuple[str, int, int], ...], local: Marker, proved: bool, expected: Tail
) -> None:
    assert tail_of(history(*legs), local, proved=proved) is expected
