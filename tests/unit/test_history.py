"""The position of a database in its own history: what it descends from, what comes above, what may be copied from."""

from datetime import UTC, datetime, timedelta

import pytest

from sidecar.backup.history import History
from sidecar.database.lineage import Marker
from sidecar.model import RestorePoint, Timestamp
from sidecar.repository.keys import key_of

NAME = "app.db"
START = datetime(2026, 11, 20, 12, tzinfo=UTC)


def point(minutes: int) -> RestorePoint:
    timestamp = Timestamp.of(START + timedelta(minutes=minutes))
    return RestorePoint(key_of(NAME, timestamp), NAME, timestamp, 1, "")


@pytest.mark.parametrize(
    ("last", "pending", "parent", "root"),
    [
        (1, (), 1, "root"),
        (0, (1,), 1, None),  # what was published is known by its key alone: whether it is all of it is not
        (0, (), None, None),
    ],
)
def test_the_marker_says_whether_the_database_descends_from_the_newest(
    last: int, pending: tuple[int, ...], parent: int | None, root: str | None
) -> None:
    marker = Marker("store", point(last).key, tuple(point(each).key for each in pending), "root")
    history = History(NAME)
    assert history.follow(point(1), marker) is (parent is not None)
    assert (history.parent, history.root) == (None if parent is None else point(parent).key, root)
    assert history.newest == point(1).timestamp, "the next one is above it, whoever made it"
    assert history.base == point(1), "and may copy from it"


def test_an_older_restore_point_that_was_restored_stays_below_the_newest() -> None:
    """As after a fallback: the next publish is above the damaged one, and never copies from it."""
    history = History(NAME)
    history.descend_from(point(0), "root")
    history.base = point(0)
    assert not history.follow(point(1), None)
    assert (history.parent, history.newest, history.base) == (point(0).key, point(1).timestamp, point(0))
