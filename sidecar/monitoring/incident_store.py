"""Incidents that need a person's decision. They are kept in the store, because a machine's disk may not survive a restart.

.sidecar/notices/<database>.json    notices: the open incidents, with at, kind, message and hint; `lasting` ones stay open
                                    until they are acknowledged, the others for a day;
                                    incidents: those of kinds that the first version did not know: after a rollback it would
                                    ignore the whole object for one of them among the notices. A finding has `findings`, the
                                    digests of all that the check found, and `full_check` if only that sees some of them;
                                    decided: when somebody last chose a restore point by hand;
                                    acknowledged: the latest acknowledgements, each with its time and note

An older version drops what it does not know when it writes: then these incidents and acknowledgements are gone, and shown
again if they happen again.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self
from urllib.parse import quote

from sidecar.errors import NotFound, PreconditionFailed, SidecarError
from sidecar.log import log
from sidecar.model import IfAbsent, IfMatch, Timestamp
from sidecar.repository import Catalog
from sidecar.status import LOOK_FOR, Kind, Problem, covers, digests_of, documentation, is_open, single_finding
from sidecar.storage import ObjectStore

ATTEMPTS = 3
KEPT = 20
ACKNOWLEDGED_KEPT = 50
_KINDS = frozenset(Kind)  # a newer version may know others
_FIRST_KINDS = frozenset({Kind.DIVERGENCE, Kind.SUSPICION, Kind.DRILL, Kind.DAMAGED, Kind.GROWTH})
CLOCK_STEP = timedelta(seconds=10)  # S3 gives its time in whole seconds
DIVERGED_HINT = (
    f"`sidecar list --diverged` shows it; to look at it, or to make it the live database, see {documentation.DIVERGED}"
)


def incidents_key(database: str) -> str:
    """The key of the object that keeps the open incidents of a database."""
    return f".sidecar/notices/{quote(database, safe='')}.json"


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Covers an incident, and every earlier one with the same kind and message, or with no other findings."""

    at: datetime
    kind: Kind
    message: str
    note: str = ""
    findings: frozenset[str] = frozenset()
    full_check: bool = False

    @classmethod
    def of(cls, incident: Problem, at: datetime, note: str = "") -> Self:
        """That of this incident."""
        return cls(at, incident.kind, incident.message, note, incident.findings, incident.full_check)

    def problem(self, database: str) -> Problem:
        """The incident that was seen."""
        return Problem(self.at, database, self.message, "", self.kind, False, self.findings, self.full_check)


@dataclass(frozen=True, slots=True)
class StoredIncidents:
    """The object in the store: open incidents of one database, oldest first, and its ETag.

    Everything before `decided` has been decided.
    """

    incidents: tuple[Problem, ...] = ()
    decided: datetime | None = None
    etag: str | None = None
    acknowledged: tuple[Acknowledgement, ...] = ()

    def acknowledgement(self, incident: Problem) -> Acknowledgement | None:
        """The acknowledgement of an incident, or None if it is open or has happened again since.

        A finding does not happen again before it is repaired: the same line is about the same rows.
        """
        named = (each for each in self.acknowledged if covers(each.problem(incident.database), incident))
        return next((each for each in named if each.at >= incident.at or each.kind is Kind.FINDING), None)

    def open_since(self, now: datetime) -> datetime:
        """The time after which incidents are open, by the store's clock. A decision dated in the future is ignored."""
        decided = self.decided if self.decided and self.decided <= now + CLOCK_STEP else None
        return max(now - LOOK_FOR, decided or now - LOOK_FOR)


async def read_incidents(
    store: ObjectStore, database: str, now: datetime, *, ahead: timedelta = timedelta(0)
) -> StoredIncidents:
    """Read the incidents of the day before `now`; an object that cannot be parsed counts as none.

    One from a later time is dated `ahead` of `now` at most. Raises what the store raises.
    """
    try:
        blob = await store.get(incidents_key(database))
    except NotFound:
        return StoredIncidents()
    try:
        values = json.loads(bytes(blob.data))
        listed = (*values["notices"], *values.get("incidents", ()))
        found = [_parse(database, each, now + ahead) for each in listed if each["kind"] in _KINDS]
        decided = _parse_instant(values["decided"]) if values.get("decided") else None
        acknowledged = tuple(
            _parse_acknowledgement(each) for each in values.get("acknowledged", ()) if each["kind"] in _KINDS
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        log.warning("unreadable incidents ignored", database=database, error=type(error).__name__)
        return StoredIncidents(etag=blob.info.etag)
    stored = StoredIncidents((), decided, blob.info.etag, acknowledged)
    found.sort(key=lambda each: each.at)
    still_open = [each for each in found if is_open(each, now) and not stored.acknowledgement(each)]
    return replace(stored, incidents=limited(still_open))


async def write_incidents(store: ObjectStore, database: str, stored: StoredIncidents) -> StoredIncidents:
    """Replace the object that has the ETag of `stored`, or create it where there is no ETag.

    Raises `PreconditionFailed` when the store has another object by now.
    """
    first = [_as_json(each) for each in stored.incidents if each.kind in _FIRST_KINDS]
    later = [_as_json(each) for each in stored.incidents if each.kind not in _FIRST_KINDS]
    decided = stored.decided.isoformat() if stored.decided else None
    acknowledged = [
        {
            "at": each.at.isoformat(),
            "kind": each.kind,
            "message": each.message,
            "note": each.note,
            **_findings_json(each),
        }
        for each in stored.acknowledged[-ACKNOWLEDGED_KEPT:]
    ]
    added = {"incidents": later, "acknowledged": acknowledged}
    values = {"notices": first, "decided": decided} | {name: each for name, each in added.items() if each}
    content = json.dumps(values, indent=1).encode()
    condition = IfMatch(stored.etag) if stored.etag else IfAbsent()
    return replace(stored, etag=(await store.put(incidents_key(database), content, condition=condition)).etag)


async def close_incidents(store: ObjectStore, database: str) -> None:
    """Close every open incident after a person's decision. Never raises: if it fails, they stay visible until they expire."""
    try:
        for _ in range(ATTEMPTS):
            now = await store.now()
            stored = await read_incidents(store, database, now)
            try:
                await write_incidents(store, database, replace(stored, incidents=(), decided=now))
            except PreconditionFailed:  # a daemon has stored something meanwhile
                continue
            return
        log.info("open incidents not closed", database=database, error="they changed at each attempt")
    except SidecarError as error:
        log.info("open incidents not closed", database=database, error=error.message)


async def read_open(
    catalog: Catalog, database: str, now: datetime, *, ahead: timedelta = timedelta(0)
) -> tuple[StoredIncidents, tuple[Problem, ...]]:
    """What is stored, and what is open: the stored incidents and those of data under `diverged/`, oldest first.

    `now` is this machine's clock. Raises what the store raises.
    """
    stored = await read_incidents(catalog.lease_store, database, now, ahead=ahead)
    diverged = await diverged_since(catalog, database, stored.open_since(await catalog.lease_store.now()))
    unseen = tuple(each for each in diverged if not stored.acknowledgement(each))
    return stored, (*unseen, *stored.incidents)


def _as_json(incident: Problem) -> dict[str, object]:
    lasting = {"lasting": True} if incident.lasting else {}
    named = {"at": incident.at.isoformat(), "kind": incident.kind, "message": incident.message, "hint": incident.hint}
    return {**named, **lasting, **_findings_json(incident)}


def _findings_json(what: Problem | Acknowledgement) -> dict[str, object]:
    full = {"full_check": True} if what.full_check else {}
    return {"findings": sorted(what.findings), **full} if what.findings else {}


def _parse(database: str, value: dict[str, Any], latest: datetime) -> Problem:
    at, lasting, message = min(_parse_instant(value["at"]), latest), bool(value.get("lasting")), str(value["message"])
    kind, full = Kind(value["kind"]), bool(value.get("full_check"))
    return Problem(at, database, message, str(value["hint"]), kind, lasting, _parse_findings(value), full)


def _parse_acknowledgement(value: dict[str, Any]) -> Acknowledgement:
    at, kind, message = _parse_instant(value["at"]), Kind(value["kind"]), str(value["message"])
    full = bool(value.get("full_check", kind is Kind.FINDING and "findings" not in value))
    return Acknowledgement(at, kind, message, str(value.get("note", "")), _parse_findings(value), full)


def _parse_findings(value: dict[str, Any]) -> frozenset[str]:
    """The digests; a version before them wrote the message alone, which tells what a single finding is."""
    if "findings" in value:
        return frozenset(map(str, value["findings"]))
    single = single_finding(str(value["message"])) if value["kind"] == Kind.FINDING else None
    return digests_of((single,)) if single else frozenset()


def limited(incidents: Sequence[Problem]) -> tuple[Problem, ...]:
    """All lasting incidents and the newest of the others, at most `KEPT`, in their original order."""
    others = [each for each in incidents if not each.lasting]
    room = max(0, KEPT - (len(incidents) - len(others)))
    dropped = {each.identity for each in others[: max(0, len(others) - room)]}
    return tuple(each for each in incidents if each.identity not in dropped)[-KEPT:]


def _parse_instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


async def diverged_since(catalog: Catalog, database: str, after: datetime) -> tuple[Problem, ...]:
    """One incident for each machine that stored data under `diverged/` after this time, about its latest state."""
    found: dict[str, Problem] = {}
    async for point in catalog.points(database, diverged=True, after=Timestamp.of(after)):
        holder = str(point.diverged_holder)
        message = f"{holder} wrote changes that are not in this database; they are kept under diverged/"
        found[holder] = Problem(point.timestamp.instant, database, message, DIVERGED_HINT, Kind.DIVERGENCE)
    return tuple(found.values())
