"""The JSON of `/status` and of `sidecar status --json`: documented in docs/json.md, fields are only ever added."""

from datetime import datetime, timedelta

from sidecar.status.bill import bill_of
from sidecar.status.cost import SHORTEST, saved_by_need
from sidecar.status.health import acknowledge_command, of_database, open_incidents, overall
from sidecar.status.model import CHUNKS, COSTS, DRILLS, DatabaseStatus, Status
from sidecar.status.problems import Kind, Problem
from sidecar.status.stream import StreamStatus

# What is shown of each, in this order. A field of the read-model is not shown before it is listed here.
_DATABASE = (
    "name",
    "path",
    "restore_outcome",
    "restore_seconds",
    "restore_bytes",
    "restored_from",
    "size",
    "wal_size",
    "restore_point",
    "restore_point_size",
    "others",
    "last_success",
    "protected_since",
    "last_outcome",
    "next_backup",
    "failing_since",
    "failing_reason",
    "last_error",
    "unprotected_since",
    "uploaded",
    "reused",
    "suspicious",
    "findings",
    "untagged",
    "final_estimate",
    "final_in_place",
    "last_drill",
    "proven",
    "next_drill",
    "drill_outcome",
    "drill_seconds",
    "drill_error",
)
_STREAM = (
    "setting",
    "active",
    "reason",
    "since",
    "protects",
    "name",
    "commits",
    "segments",
    "uploaded",
    "whole_pages",
    "confirmed",
    "pending_since",
    "wal_frames",
    "last_cut",
    "last_cut_at",
)
_LEASE = ("enabled", "holder", "held", "epoch", "waiting_for")
_PUBLICATION = ("at", "key", "size", "uploaded", "reused", "database_size", "seconds")
_PROBLEM = ("at", "database", "message", "hint", "kind")
_BACKUPS = ("published", "unchanged", "streamed", "failed")


def as_json(status: Status) -> dict[str, object]:
    """The state of a daemon, with the health of all and of each database: no secrets, instants in ISO 8601."""
    return {
        "source": "daemon",
        "version": status.version,
        "sqlite_version": status.sqlite_version,
        "store": status.store,
        "now": status.now().isoformat(),
        "phase": status.phase,
        "ready": status.ready,
        "has_command": status.has_command,
        "started": status.started.isoformat(),
        "uptime_seconds": round((status.now() - status.started) / timedelta(seconds=1), 3),
        "interval_seconds": status.interval.total_seconds() if status.interval else None,
        "final_backup_estimate_seconds": status.final_estimate(),
        "credentials_expiry": status.credentials_expiry.isoformat() if status.credentials_expiry else None,
        "notifications": dict(status.notifications),
        "lease": {**_shown(status.lease, _LEASE), "renewals": dict(status.lease.renewals)},
        "expires": status.expires,
        "cost": _cost(status),
        "databases": [_database(status, each) for each in status.databases.values()],
        "problems": [_shown(each, _PROBLEM) for each in status.problems if each.kind is not Kind.FIRST_START],
        "incidents": [incident_as_dict(each) for name in status.databases for each in open_incidents(status, name)],
        "verdict": overall(status).as_dict(),
    }


def incident_as_dict(incident: Problem) -> dict[str, object]:
    """An open incident, with the command that acknowledges it and whether it stays open until then."""
    command = acknowledge_command(incident.kind)
    return {**_shown(incident, _PROBLEM), "lasting": incident.lasting, "acknowledge": command}


def _cost(status: Status) -> dict[str, object] | None:
    cost = status.cost()
    if cost is None:
        return None
    return {
        "currency": "USD",
        "per": "month",
        "since": (status.started + timedelta(seconds=status.boot.seconds if status.boot else 0)).isoformat(),
        **{kind: round(getattr(cost, kind), 4) for kind in (*COSTS, "total", "boot")},
        "sent_bytes": status.sent,
        "received_bytes": status.received,
        "stored_bytes": status.stored,
        "stream": _stream_cost(status),
        "auto_saves": round(_saved_by_need(status), 4),
        "full": _full_bill(status),
    }


def _full_bill(status: Status) -> dict[str, float] | None:
    bill = bill_of(status)
    if bill is None:
        return None
    dollars = {name: round(getattr(bill, name), 4) for name in (*COSTS, "total")}
    return {**dollars, "objects": bill.objects, "stored": bill.stored}


def _saved_by_need(status: Status) -> float:
    """Dollars of storage a month that `restore_points=auto` would save, where restore points are as frequent as until now."""
    if status.by_need or status.interval is None:
        return 0.0
    running = max(SHORTEST, (status.now() - status.started).total_seconds())
    return sum(
        saved_by_need(
            each.restore_point_size,
            max(status.interval.total_seconds(), running / max(1, each.backups["published"])),
            status.keep.recent,
        )
        for each in status.databases.values()
        if each.stream.active
    )


def _stream_cost(status: Status) -> dict[str, float] | None:
    """PUTs, bytes and dollars of a month."""
    cost = status.stream_cost()
    if cost is None:
        return None
    return {
        "segments": round(cost.segments),
        "sent": round(cost.sent),
        "requests": round(cost.requests, 4),
        "egress": round(cost.egress, 4),
        "storage": round(cost.storage, 4),
        "total": round(cost.total, 4),
        "with_5s": round(cost.slower, 4),
    }


def _database(status: Status, database: DatabaseStatus) -> dict[str, object]:
    return {
        **_shown(database, _DATABASE),
        "unprotected_seconds": round(database.unprotected_seconds(status.now()), 3),
        "backups": {outcome: database.backups[outcome] for outcome in _BACKUPS},
        "drills": {outcome: database.drills[outcome] for outcome in DRILLS},
        "history": [_shown(each, _PUBLICATION) for each in database.history],
        "chunks": {**{how: database.chunks[how] for how in CHUNKS}, "written_past": database.written_past},
        "listing": listing.as_dict() if (listing := status.listings.get(database.name)) else None,
        "stream": _stream(database.stream, status.now()),
        "verdict": of_database(status, database).as_dict(),
    }


def _stream(stream: StreamStatus, now: datetime) -> dict[str, object]:
    shown = {**_shown(stream, _STREAM), "lag_seconds": round(stream.lag_seconds(now), 3)}
    resting = stream.resting_until.isoformat() if stream.resting_until and stream.is_resting(now) else None
    waits, mean = stream.waits, stream.waits.mean_seconds
    shown["waits"] = {
        "waiting": waits.waiting,
        "stored": waits.stored,
        "failed": waits.failed,
        "mean_seconds": None if mean is None else round(mean, 3),
    }
    return {**shown, "cuts": {cause: count for cause, count in stream.cuts.items() if count}, "resting_until": resting}


def _shown(what: object, names: tuple[str, ...]) -> dict[str, object]:
    values = {name: getattr(what, name) for name in names}
    return {name: value.isoformat() if isinstance(value, datetime) else value for name, value in values.items()}
