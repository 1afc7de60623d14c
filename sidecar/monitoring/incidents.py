"""Incidents that a person has to decide about, kept in the store for a day: a machine's disk may not survive a restart.

.sidecar/notices/<database>.json    notices: the open incidents of the last day, with at, kind, message and hint;
                                    decided: when somebody last chose a restore point by hand
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import anyio
import structlog

from sidecar import documentation
from sidecar.errors import NotFound, PreconditionFailed, SidecarError
from sidecar.lease.fence import Fence
from sidecar.model import IfAbsent, IfMatch, Timestamp
from sidecar.repository.catalog import Catalog
from sidecar.status.health import LOOK_FOR, TO_DECIDE
from sidecar.status.model import Status
from sidecar.status.problems import Kind, Problem
from sidecar.storage.base import ObjectStore

log = structlog.get_logger()

KEEP_SECONDS = 1.0
FIRST_RETRY = 30.0
LONGEST_RETRY = 3600.0
LONGEST_LOOK = 600.0
LAST_SECONDS = 2.0
ATTEMPTS = 3
KEPT = 20
REPORTED_AGAIN = timedelta(hours=1)
CLOCK_STEP = timedelta(seconds=10)  # S3 gives its time in whole seconds
DIVERGED_HINT = (
    f"`sidecar list --diverged` shows it; to look at it, or to make it the live database, see {documentation.DIVERGED}"
)


def incidents_key(database: str) -> str:
    """The key of the object that keeps the open incidents of a database."""
    return f".sidecar/notices/{quote(database, safe='')}.json"


@dataclass(frozen=True, slots=True)
class StoredIncidents:
    """The object in the store: open incidents of one database, oldest first, and its ETag.

    Everything before `decided` has been decided.
    """

    incidents: tuple[Problem, ...] = ()
    decided: datetime | None = None
    etag: str | None = None

    def open_since(self, now: datetime) -> datetime:
        """The instant after which incidents are open, by the store's clock; a decision in the future hides nothing."""
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
        found = [_parse(database, each, now) for each in values["notices"]]
        decided = _parse_instant(values["decided"]) if values.get("decided") else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        log.warning("unreadable incidents ignored", database=database, error=type(error).__name__)
        return StoredIncidents(etag=blob.info.etag)
    recent = tuple(each for each in found if now - each.at < LOOK_FOR)
    return StoredIncidents(recent[-KEPT:], decided, blob.info.etag)


async def write_incidents(store: ObjectStore, database: str, stored: StoredIncidents) -> StoredIncidents:
    """Replace the object that has the ETag of `stored`, or create it where there is no ETag.

    Raises `PreconditionFailed` when the store has another object by now.
    """
    incidents = [
        {"at": each.at.isoformat(), "kind": each.kind, "message": each.message, "hint": each.hint}
        for each in stored.incidents
    ]
    decided = stored.decided.isoformat() if stored.decided else None
    content = json.dumps({"notices": incidents, "decided": decided}, indent=1).encode()
    condition = IfMatch(stored.etag) if stored.etag else IfAbsent()
    return replace(stored, etag=(await store.put(incidents_key(database), content, condition=condition)).etag)


async def close_incidents(store: ObjectStore, database: str) -> None:
    """Close every open incident, because somebody has decided. Never raises: at worst they are shown until they expire."""
    try:
        now = await store.now()
        stored = await read_incidents(store, database, now)
        await write_incidents(store, database, StoredIncidents((), now, stored.etag))
    except SidecarError as error:
        log.info("open incidents not closed", database=database, error=error.message)


def _parse(database: str, value: dict[str, str], now: datetime) -> Problem:
    at = min(_parse_instant(value["at"]), now)
    return Problem(at, database, str(value["message"]), str(value["hint"]), Kind(value["kind"]))


def _parse_instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


class Incidents:
    """The open incidents of one daemon: shows what its predecessor left in the store, and stores what is new."""

    def __init__(self, catalog: Catalog, status: Status, fence: Fence) -> None:
        self._catalog = catalog
        self._store = catalog.store
        self._status = status
        self._fence = fence
        self._stored: dict[str, StoredIncidents] = {}  # by database, once read
        self._failures = 0

    async def run(self) -> None:
        """Store new incidents for as long as the daemon runs."""
        while True:
            self._failures = 0 if await self.store_new() else self._failures + 1
            pause = (
                min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(self._failures - 1, 20)) if self._failures else KEEP_SECONDS
            )
            await anyio.sleep(pause)

    async def store_new(self) -> bool:
        """Store the incidents that the page shows; False when that failed. Sends no request when nothing is new."""
        succeeded = True
        for database in self._status.databases:
            try:
                await self._synchronize(database)
            except SidecarError as error:
                succeeded = False
                if not self._failures:
                    log.info("open incidents not stored", error=error.message)
        return succeeded

    async def store_last(self) -> None:
        """Store what is new at the end, within `LAST_SECONDS`: the store may be silent. Never raises."""
        try:
            with anyio.move_on_after(LAST_SECONDS, shield=True):
                if any(self._is_new(database) for database in self._status.databases):
                    await self.store_new()
        except Exception:  # the exit status is decided, and the lease has to be released
            log.exception("open incidents not stored because of a bug")

    def _is_new(self, database: str) -> bool:
        stored = self._stored.get(database, StoredIncidents())
        return _differ(stored.incidents, self._open(database, stored))

    def _open(self, database: str, stored: StoredIncidents) -> tuple[Problem, ...]:
        """The incidents that are shown, and those in the store that found no room on the page."""
        since = self._status.now() - LOOK_FOR
        shown = [each for each in self._status.problems if each.database == database and each.kind in TO_DECIDE]
        identities = {each.identity for each in shown}
        hidden = (each for each in stored.incidents if each.identity not in identities)
        every = sorted((*shown, *hidden), key=lambda each: each.at)
        return tuple(each for each in every if each.at > since)[-KEPT:]

    async def _synchronize(self, database: str) -> None:
        for _ in range(ATTEMPTS):
            stored = self._stored.get(database) or await self._read(database)
            incidents = self._open(database, stored)
            if not _differ(stored.incidents, incidents):
                return
            self._fence.require_held()
            try:
                new = replace(stored, incidents=incidents)
                self._stored[database] = await write_incidents(self._store, database, new)
            except PreconditionFailed:  # another machine has written meanwhile: keep its incidents and ours
                found = await self._read(database)
                for incident in stored.incidents if found.decided != stored.decided else ():
                    self._status.problems.forget(incident)
            else:
                return

    async def _read(self, database: str) -> StoredIncidents:
        stored = self._stored[database] = await read_incidents(self._store, database, self._status.now())
        for incident in stored.incidents:
            self._status.problems.remember(incident)
        return stored

    async def keep_looking_for_diverged(self) -> None:
        """Look for diverged data, often at first: a machine that wakes up fenced stores its state soon after we started."""
        pause = FIRST_RETRY
        while True:
            with suppress(SidecarError):  # the cycles report what is wrong with the store
                await self.look_for_diverged()
            await anyio.sleep(pause)
            pause = min(LONGEST_LOOK, 2 * pause)

    async def look_for_diverged(self) -> None:
        """Show what other machines stored under `diverged/` in the last day, until somebody decides about it."""
        now = await self._store.now()
        for database in self._status.databases:
            with suppress(SidecarError):  # without the stored decision too much is shown, not too little
                await self._synchronize(database)
            stored = self._stored.get(database, StoredIncidents())
            for incident in await diverged_since(self._catalog, database, stored.open_since(now)):
                if not any(str(Timestamp.of(incident.at)) in each.message for each in self._status.problems):
                    self._status.problems.remember(replace(incident, at=min(incident.at, self._status.now())))


async def diverged_since(catalog: Catalog, database: str, after: datetime) -> tuple[Problem, ...]:
    """One incident for each machine that stored something under `diverged/` after this instant: its last state."""
    found: dict[str, Problem] = {}
    async for point in catalog.points(database, diverged=True, after=Timestamp.of(after)):
        holder = str(point.diverged_holder)
        message = f"{holder} wrote changes that are not in this database; they are kept under diverged/"
        found[holder] = Problem(point.timestamp.instant, database, message, DIVERGED_HINT, Kind.DIVERGENCE)
    return tuple(found.values())


def _differ(stored: Iterable[Problem], shown: Iterable[Problem]) -> bool:
    """Whether the store lacks an incident, has one too many, or has one that was reported again long after."""
    before, now = ({each.identity: each.at for each in some} for some in (stored, shown))
    return before.keys() != now.keys() or any(now[key] - at > REPORTED_AGAIN for key, at in before.items())
