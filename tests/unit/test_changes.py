"""What counts as unprotected while a stream has changes that no restore point holds."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sidecar.database.changes import LONGEST_STREAM, ChangeTracker
from sidecar.model import Database, FileStamp, Signature
from sidecar.status.model import DatabaseStatus, Status
from tests.fakes import START, FakeClock

MINUTE = timedelta(minutes=1)


def written(at: datetime, *, inode: int = 1) -> Signature:
    return Signature(FileStamp(inode, 4096, round(at.timestamp() * 1e9)), None, racy=False)


class Watched:
    """A tracker whose instants are minutes after the start, by a clock that is not set unless `clock` says so."""

    def __init__(self, tracker: ChangeTracker, status: DatabaseStatus) -> None:
        self.tracker, self.status = tracker, status
        self.clock = timedelta(0)

    def at(self, minute: float) -> datetime:
        return START + minute * MINUTE + self.clock

    def see(self, signature: Signature, minute: float) -> None:
        self.tracker.observe(signature, self.at(minute), 60 * minute)

    def stream(self, minute: float) -> None:
        """Everything that was committed by then is in the store."""
        self.tracker.mark_streamed(self.at(minute), 60 * minute)

    @property
    def unprotected(self) -> datetime | None:
        return self.status.unprotected_since


@pytest.fixture
def status() -> DatabaseStatus:
    return Status((Database("app.db", Path("/app.db")),), "s3://b", "1", FakeClock().now).databases["app.db"]


@pytest.fixture
def watched(status: DatabaseStatus) -> Watched:
    """A database that a restore point holds as it was at the start."""
    tracker = ChangeTracker(status)
    tracker.mark_held(written(START), START)
    return Watched(tracker, status)


def test_what_a_stream_has_is_protected_but_in_no_restore_point(watched: Watched, status: DatabaseStatus) -> None:
    watched.see(written(START + MINUTE), 1)
    assert (watched.unprotected, status.changed_since) == (START + MINUTE, START + MINUTE)
    watched.stream(2)
    assert (watched.unprotected, status.changed_since) == (None, START + MINUTE)
    watched.see(written(START + 3 * MINUTE), 3)
    assert (watched.unprotected, status.changed_since) == (START + 3 * MINUTE, START + MINUTE)


def test_a_change_that_the_stream_had_before_it_was_seen_is_in_no_restore_point_either(
    watched: Watched, status: DatabaseStatus
) -> None:
    """That the stream has it is known once it has looked again: what the file says of its time proves nothing."""
    watched.see(written(START), 0)
    watched.stream(2)
    watched.see(written(START + MINUTE), 2.01)
    assert (watched.unprotected, status.changed_since) == (START + 2 * MINUTE, START + MINUTE)
    watched.stream(2.02)
    assert (watched.unprotected, status.changed_since) == (None, START + MINUTE)


def test_a_change_with_an_old_time_is_not_taken_for_streamed(watched: Watched) -> None:
    """`touch`, `cp -p`, a clock that was set back, or its last tick: the stream stopped at the second minute."""
    watched.stream(2)
    watched.see(written(START - 60 * MINUTE), 3)
    assert watched.unprotected == START + 2 * MINUTE
    watched.see(written(START - 59 * MINUTE), 9)
    assert watched.unprotected == START + 2 * MINUTE


def test_a_file_with_a_time_in_the_future_is_protected_once_it_is_streamed(watched: Watched) -> None:
    watched.see(written(START + 1000 * MINUTE), 3)
    watched.stream(4)
    assert watched.unprotected is None


def test_a_clock_that_is_set_back_hides_nothing(watched: Watched) -> None:
    """The stream stopped at the second minute, and the next commit came after the clock was set back by an hour."""
    watched.stream(2)
    watched.clock = -60 * MINUTE
    watched.see(written(watched.at(3)), 3)
    assert watched.unprotected == watched.at(3)
    watched.see(written(watched.at(3)), 9)
    assert watched.unprotected == watched.at(3)
    watched.clock *= 2
    watched.see(written(watched.at(3)), 10)
    assert watched.unprotected == watched.at(10), "it counts on from there"


def test_a_clock_that_is_set_back_makes_nothing_of_what_is_streamed(watched: Watched) -> None:
    watched.see(written(START + MINUTE), 1)
    watched.clock = -60 * MINUTE
    watched.stream(2)
    assert watched.unprotected is None


def test_a_file_that_was_replaced_is_not_what_the_stream_looked_at(watched: Watched) -> None:
    """It sees that within a second, and ends: until then it says that it has everything, of the old file."""
    watched.see(written(START), 0)
    watched.stream(1)
    watched.see(written(START, inode=2), 2)
    watched.stream(2 + 1 / 60)
    assert watched.unprotected is not None


def test_a_commit_that_no_segment_has_yet_counts_even_if_the_files_looked_so_before(watched: Watched) -> None:
    """Its frames are in the log, and seen there, before it is a commit. One that a restore point has does not count."""
    watched.see(written(START + MINUTE), 1)
    watched.stream(1.1)
    watched.see(written(START + MINUTE), 1.2)
    watched.tracker.mark_pending(watched.at(1.15))
    assert watched.unprotected == watched.at(1.15)
    watched.tracker.mark_held(written(START + MINUTE), watched.at(2))
    watched.tracker.mark_pending(watched.at(1.15))
    assert watched.unprotected is None


def test_after_a_day_without_a_restore_point_its_age_counts(watched: Watched, status: DatabaseStatus) -> None:
    """A stream is no substitute: what it has of the last day is unprotected, until a restore point has it."""
    day = LONGEST_STREAM / MINUTE
    watched.see(written(START + MINUTE), 1)
    watched.stream(1 + day)
    assert watched.unprotected is None
    watched.stream(2 + day)
    assert watched.unprotected == START + MINUTE
    later = watched.at(3 + day)
    watched.see(written(later), 3 + day)
    watched.stream(4 + day)
    assert watched.unprotected == START + MINUTE
    watched.tracker.mark_held(written(later), later + 2 * MINUTE)
    assert (watched.unprotected, status.changed_since) == (None, None)


def test_a_damaged_restore_point_counts_from_its_own_instant(watched: Watched, status: DatabaseStatus) -> None:
    watched.stream(1)
    watched.tracker.mark_lost(START - MINUTE)
    assert (watched.unprotected, status.changed_since) == (START - MINUTE, START - MINUTE)
