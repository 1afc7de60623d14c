"""The JSON of `/status` stays as it is: people and programs read it."""

import json
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sidecar.errors import Reason
from sidecar.model import Database
from sidecar.status.model import DatabaseStatus, Status
from sidecar.status.serialize import as_json
from sidecar.status.stream import StreamStatus

AT = datetime(2026, 11, 20, 14, 55, 3, 123000, UTC)


def populated() -> Status:
    """A daemon with something in every field; its second database has nothing."""
    now = [AT]
    databases = (Database("app.db", Path("/data/app.db")), Database("idle.db", Path("/data/idle.db")))
    status = Status(databases, "s3://bucket/app", "1.2.3", lambda: now[0])
    status.sqlite_version, status.interval = "3.53.4", timedelta(minutes=5)
    status.lease.enabled, status.lease.holder, status.lease.held, status.lease.epoch = True, "m1", True, 7
    status.lease.renewals["ok"] += 3
    status.enter("running", ready=True)
    status.count_request("put", "ok", 0.1)
    status.notifications["sent"] += 1
    status.credentials_expiry = AT + timedelta(hours=1)
    now[0] = AT + timedelta(minutes=10)
    status.restored("app.db", "restored", 1.5, 4096, "app.db/1")
    status.published("app.db", "app.db/2", 1000, 800, 200, 4096, {"snapshot": 0.5, "upload": 1.0})
    status.succeeded("app.db", "published")
    status.suspected("app.db", "it looks lost", "look at it")
    status.drilled("app.db", "good", "app.db/2", 2.5)
    status.failed("app.db", "no room", "free some", Reason.NO_ROOM)
    database = status.databases["app.db"]
    database.size, database.wal_size, database.untagged, database.others = 4096, 32, 1, ("other.db",)
    database.unprotected_since = AT + timedelta(minutes=9)
    database.next_backup = AT + timedelta(minutes=15)
    database.next_drill = AT + timedelta(hours=24)
    database.final.whole = 3.5
    database.chunks.update(read=30, taken_over=170, compared=5)
    database.written_past = 2
    stream_in(database.stream)
    return status


def stream_in(stream: StreamStatus) -> None:
    """A stream that was cut before, and has commits that are not in the store yet."""
    stream.setting, stream.reason, stream.active, stream.protects = "on", "", True, True
    stream.name, stream.since = "20261120T145505.000Z-0000000007-m1", AT + timedelta(seconds=2)
    stream.commits, stream.segments, stream.uploaded, stream.confirmed, stream.wal_frames = 12, 5, 900, 11, 40
    stream.whole_pages = 2700
    stream.pending_since = AT + timedelta(minutes=9, seconds=59)
    stream.waits.waiting, stream.waits.failed = 2, 1
    stream.waits.seconds.observe(0.25)
    stream.waits.seconds.observe(0.75)
    stream.cuts["reset"] += 1
    stream.last_cut, stream.last_cut_at = "reset: the log was reset", AT + timedelta(seconds=1)


def test_fields_values_and_their_order_stay() -> None:
    """Written by the version before the fields were listed one by one."""
    expected = Path(__file__).with_name("status.json").read_text()
    assert json.dumps(as_json(populated()), indent=4) == expected.rstrip("\n")


def test_a_new_field_of_the_read_model_is_not_shown_by_itself() -> None:
    """What is known of a database is more than what is promised: its histograms and failures by reason are metrics."""
    databases = as_json(populated())["databases"]
    assert isinstance(databases, list)
    known = {field.name for field in fields(DatabaseStatus)}
    assert known - set(databases[0]) == {
        "phases",
        "failures",
        "quick_findings",
        "checked",
        "changed_since",
        "written_past",
        "takes_over",
        "final",
    }
