"""The JSON of `/status` and of `sidecar status --json`: documented in docs/json.md, fields are only ever added."""

from dataclasses import asdict
from datetime import datetime, timedelta

from sidecar.status.health import of_database, overall
from sidecar.status.model import COSTS, DRILLS, DatabaseStatus, Status

_ELSEWHERE = {"phases", "backups", "failures", "drills", "history"}


def as_json(status: Status) -> dict[str, object]:
    """What a daemon knows, with a verdict on all and on each database: no secrets, instants in ISO 8601."""
    return {
        "source": "daemon",
        "version": status.version,
        "sqlite_version": status.sqlite_version,
        "store": status.store,
        "now": status.now().isoformat(),
        "phase": status.phase,
        "ready": status.ready,
        "started": status.started.isoformat(),
        "uptime_seconds": round((status.now() - status.started) / timedelta(seconds=1), 3),
        "interval_seconds": status.interval.total_seconds() if status.interval else None,
        "final_backup_estimate_seconds": status.final_estimate(),
        "credentials_expiry": status.credentials_expiry.isoformat() if status.credentials_expiry else None,
        "notifications": dict(status.notifications),
        "lease": {**asdict(status.lease), "renewals": dict(status.lease.renewals)},
        "cost": _cost(status),
        "databases": [_database(status, each) for each in status.databases.values()],
        "problems": [{**asdict(each), "at": each.at.isoformat()} for each in status.problems],
        "verdict": overall(status).as_dict(),
    }


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
    }


def _database(status: Status, database: DatabaseStatus) -> dict[str, object]:
    shown: dict[str, object] = {
        name: value.isoformat() if isinstance(value, datetime) else value
        for name, value in asdict(database).items()
        if name not in _ELSEWHERE
    }
    return {
        **shown,
        "unprotected_seconds": round(database.unprotected_seconds(status.now()), 3),
        "backups": {outcome: database.backups[outcome] for outcome in ("published", "unchanged", "failed")},
        "drills": {outcome: database.drills[outcome] for outcome in DRILLS},
        "history": [{**asdict(each), "at": each.at.isoformat()} for each in database.history],
        "listing": listing.as_dict() if (listing := status.listings.get(database.name)) else None,
        "verdict": of_database(status, database).as_dict(),
    }
