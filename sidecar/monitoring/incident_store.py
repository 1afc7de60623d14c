"""Incidents that need a person's decision. They are kept in the store, because a machine's disk may not survive a restart.

.sidecar/notices/<database>.json    notices: the open incidents, with at, kind, message and hint; `lasting` ones stay open
                                    until they are acknowledged, the others for a day;
                                    decided: when somebody last chose a restore point by hand;
                                    acknowledged: the latest acknowledgements, each with its time and note
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from sidecar import documentation
from sidecar.errors import NotFound, SidecarError
from sidecar.log import log
from sidecar.model import IfAbsent, IfMatch, Timestamp
from sidecar.repository import Catalog
from sidecar.status import LOOK_FOR, Kind, Problem, is_open
from sidecar.storage import ObjectStore

KEPT = 20
ACKNOWLEDGED_KEPT = 50
_KINDS = frozenset(Kind)  # a newer version may know others
CLOCK_STEP = timedelta(seconds=10)  # S3 gives its time in whole seconds
DIVERGED_HINT = (
    f"`sidecar list --diverged` shows it; to look at it, or to make it the live database, see {documentation.DIVERGED}"
)


def incidents_key(database: str) -> str:
    """The key of the object that keeps the open incidents of a database."""
    return f".sidecar/notices/{quote(database, safe='')}.json"


@dataclass(frozen=True, slots=True)
class Acknowledgement:
    """Covers an incident, and every earlier one with the same kind and message."""

    at: datetime
    kind: Kind
    message: str
    note: str = ""


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

        A finding never counts as happening again: the same message is about the same rows.
        """
        named = (each for each in self.acknowledged if (each.kind, each.message) == (incident.kind, incident.message))
        return next((each for each in named if each.at >= incident.at or each.kind is Kind.FINDING), None)

    def open_since(self, now: datetime) -> datetime:
        """The time after which incidents are open, by the store's clock. A decision dated in the future is ignored."""
        decided = self.decided if self.decided and self.decided <= now + CLOCK_STEP else None
        return max(now - LOOK_FOR, decided or now - LOOK_FOR)


async def read_incidents(store: ObjectStore, database: str, now: datetime) -> StoredIncidents:
    """Read the incidents of the day before `now`; an object that cannot be parsed counts as none.

    Raises what the store raises.
    """
    try:
        blob = await store.get(incidents_key(database))
    except NotFound:
        return StoredIncidents()
    try:
        values = json.loads(bytes(blob.data))
        found = [_parse(database, each, now) for each in values["notices"] if each["kind"] in _KINDS]
        decided = _parse_instant(values["decided"]) if values.get("decided") else None
        acknowledged = tuple(
            _parse_acknowledgement(each) for each in values.get("acknowledged", ()) if each["kind"] in _KINDS
        )
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        log.warning("unreadable incidents ignored", database=database, error=type(error).__name__)
        return StoredIncidents(etag=blob.info.etag)
    stored = StoredIncidents((), decided, blob.info.etag, acknowledged)
    still_open = [each for each in found if is_open(each, now) and not stored.acknowledgement(each)]
    return replace(stored, incidents=limited(still_open))


async def write_incidents(store: ObjectStore, database: str, stored: StoredIncidents) -> StoredIncidents:
    """Replace the object that has the ETag of `stored`, or create it where there is no ETag.

    Raises `PreconditionFailed` when the store has another object by now.
    """
    incidents = [
        {"at": each.at.isoformat(), "kind": each.kind, "message": each.message, "hint": each.hint}
        | ({"lasting": True} if each.lasting else {})
        for each in stored.incidents
    ]
    decided = stored.decided.isoformat() if stored.decided else None
    acknowledged = [{**asdict(each), "at": each.at.isoformat()} for each in stored.acknowledged[-ACKNOWLEDGED_KEPT:]]
    values = {"notices": incidents, "decided": decided} | ({"acknowledged": acknowledged} if acknowledged else {})
    content = json.dumps(values, indent=1).encode()
    condition = IfMatch(stored.etag) if stored.etag else IfAbsent()
    return replace(stored, etag=(await store.put(incidents_key(database), content, condition=condition)).etag)


async def close_incidents(store: ObjectStore, database: str) -> None:
    """Close every open incident after a person's decision. Never raises: if it fails, they stay visible until they expire."""
    try:
        now = await store.now()
        stored = await read_incidents(store, database, now)
        await write_incidents(store, database, replace(stored, incidents=(), decided=now))
    except SidecarError as error:
        log.info("open incidents not closed", database=database, error=error.message)


async def read_open(catalog: Catalog, database: str, now: datetime) -> tuple[StoredIncidents, tuple[Problem, ...]]:
    """What is stored, and what is open: the stored incidents and those of data under `diverged/`, oldest first.

    `now` is this machine's clock. Raises what the store raises.
    """
    stored = await read_incidents(catalog.store, database, now)
    diverged = await diverged_since(catalog, database, stored.open_since(await catalog.store.now()))
    unseen = tuple(each for each in diverged if not stored.acknowledgement(each))
    return stored, (*unseen, *stored.incidents)


def _parse(database: str, value: dict[str, str], now: datetime) -> Problem:
    at = min(_parse_instant(value["at"]), now)
    lasting = bool(value.get("lasting"))
    return Problem(at, database, str(value["message"]), str(value["hint"]), Kind(value["kind"]), lasting)


def _parse_acknowledgement(value: dict[str, str]) -> Acknowledgement:
    at = _parse_instant(value["at"])
    return Acknowledgement(at, Kind(value["kind"]), str(value["message"]), str(value.get("note", "")))


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
