"""What counts as unprotected while a stream has changes that no restore point holds."""

from datetime import datetime, timedelta
from pathlib import Path

import pytest

from sidecar.database.changes import LONGEST_STREAM, ChangeTracker
from sidecar.model import Database, FileStamp, Signature
from sidecar.status.model import DatabaseStatus, Status
from tests.fakes import START, FakeClock

MINUTE = timedelta(minutes=1)


def written(at: datetime) -> Signature:
    return Signature(FileStamp(1, 4096, round(at.timestamp() * 1e9)), None, racy=False)


@pytest.fixture
def status() -> DatabaseStatus:
    return Status((Database("app.db", Path("/app.db")),), "s3://b", "1", FakeClock().now).databases["app.db"]


@pytest.fixture
def changes(status: DatabaseStatus) -> ChangeTracker:
    """A database that a restore point holds as it was at the start."""
    tracker = ChangeTracker(status)
    tracker.mark_held(written(START), START)
    return tracker


def test_what_a_stream_has_is_protected_but_in_no_restore_point(changes: ChangeTracker, status: DatabaseStatus) -> None:
    changes.observe(written(START + MINUTE), START + MINUTE)
    assert (status.unprotected_since, status.changed_since) == (START + MINUTE, START + MINUTE)
    changes.mark_streamed(START + 2 * MINUTE)
    assert (status.unprotected_since, status.changed_since) == (None, START + MINUTE)
    changes.observe(written(START + 3 * MINUTE), START + 3 * MINUTE)
    assert (status.unprotected_since, status.changed_since) == (START + 3 * MINUTE, START + MINUTE)


def test_a_change_that_the_stream_had_before_it_was_seen_is_in_no_restore_point_either(
    changes: ChangeTracker, status: DatabaseStatus
) -> None:
    changes.observe(written(START), START)
    changes.mark_streamed(START + 2 * MINUTE)
    changes.observe(written(START + MINUTE), START + 2 * MINUTE)
    assert (status.unprotected_since, status.changed_since) == (None, START + MINUTE)


def test_after_a_day_without_a_restore_point_its_age_counts(changes: ChangeTracker, status: DatabaseStatus) -> None:
    """A stream is no substitute: what it has of the last day is unprotected, until a restore point has it."""
    changed = START + MINUTE
    changes.observe(written(changed), changed)
    changes.mark_streamed(changed + LONGEST_STREAM)
    assert status.unprotected_since is None
    changes.mark_streamed(changed + LONGEST_STREAM + MINUTE)
    assert status.unprotected_since == changed
    later = changed + LONGEST_STREAM + 2 * MINUTE
    changes.observe(written(later), later)
    changes.mark_streamed(later + MINUTE)
    assert status.unprotected_since == changed
    changes.mark_held(written(later), later + 2 * MINUTE)
    assert (status.unprotected_since, status.changed_since) == (None, None)


def test_a_damaged_restore_point_counts_from_its_own_instant(changes: ChangeTracker, status: DatabaseStatus) -> None:
    changes.mark_streamed(START + MINUTE)
    changes.mark_lost(START - MINUTE)
    assert (status.unprotected_since, status.changed_since) == (START - MINUTE, START - MINUTE)
