"""A daemon's open incidents: it shows the stored ones, stores new ones, and picks up acknowledgements."""

from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from itertools import count

import anyio

from sidecar.errors import PreconditionFailed, SidecarError
from sidecar.lease import Fence
from sidecar.log import log
from sidecar.model import Timestamp
from sidecar.monitoring.incident_store import (
    ATTEMPTS,
    Acknowledgement,
    StoredIncidents,
    diverged_since,
    limited,
    read_incidents,
    write_incidents,
)
from sidecar.repository import Catalog
from sidecar.status import (
    TO_DECIDE,
    DatabaseStatus,
    Problem,
    Status,
    covers,
    digests_of,
    is_open,
    is_resolved,
    open_incidents,
)

KEEP_SECONDS = 1.0
FIRST_RETRY = 30.0
LONGEST_RETRY = 3600.0
LONGEST_LOOK = 600.0
LAST_SECONDS = 2.0
ACKNOWLEDGED_SECONDS = 20.0  # between two looks for acknowledgements while the page is amber
QUESTIONS_EVERY = 3  # an unconfirmed first start does not make the page amber: only every third look is for it
REPORTED_AGAIN = timedelta(hours=1)


class Incidents:
    """The open incidents of one daemon: shows what its predecessor left in the store, and stores what is new."""

    def __init__(self, catalog: Catalog, status: Status, fence: Fence) -> None:
        self._catalog = catalog
        self._store = catalog.lease_store
        self._status = status
        self._fence = fence
        self._stored: dict[str, StoredIncidents] = {}  # by database, once read
        self._failures = 0
        status.problems.held = []

    @property
    def work(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """The loops to run beside the app."""
        return self.run, self.keep_looking_for_diverged, self.keep_looking_for_acknowledgements

    async def run(self) -> None:
        """Store new incidents for as long as the daemon runs."""
        while True:
            await self.tell_held()
            self._failures = 0 if await self.store_new() else self._failures + 1
            pause = (
                min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(self._failures - 1, 20)) if self._failures else KEEP_SECONDS
            )
            await anyio.sleep(pause)

    async def store_new(self) -> bool:
        """Store the incidents that the page shows, and return False if that failed. Sends no request if nothing is new."""
        succeeded = True
        for database in self._status.databases:
            try:
                await self._synchronize(database)
            except SidecarError as error:
                succeeded = False
                if not self._failures:
                    log.info("open incidents not stored", error=error.message)
        return succeeded

    async def tell_held(self) -> None:
        """Notify receivers of findings, except of those already in the store: every start finds them again."""
        while held := self._status.problems.held:
            with suppress(SidecarError):  # then it is unknown what is stored: better to notify twice than never
                if held[0].database not in self._stored:
                    await self._read(held[0].database)
            self._tell(held.pop(0))

    def _tell(self, finding: Problem) -> None:
        stored = self._stored.get(finding.database, StoredIncidents())
        if stored.acknowledgement(finding):
            self._status.problems.forget(finding)
        elif not any(covers(each, finding) for each in stored.incidents):
            self._status.tell(finding.kind, finding.database, finding.message, finding.hint)

    async def store_last(self) -> None:
        """Store what is new before the daemon exits, within `LAST_SECONDS`: the store may not answer. Never raises."""
        try:
            for finding in self._status.problems.held or ():
                self._tell(finding)
            self._status.problems.held = None
            with anyio.move_on_after(LAST_SECONDS, shield=True):
                if any(self._is_new(database) for database in self._status.databases):
                    await self.store_new()
        except Exception:  # the exit status is decided, and the lease has to be released
            log.exception("open incidents not stored because of a bug")

    def _is_new(self, database: str) -> bool:
        stored = self._stored.get(database, StoredIncidents())
        return _differ(stored, self._current(database, stored))

    def _current(self, database: str, stored: StoredIncidents) -> StoredIncidents:
        """What should be stored: the incidents that the page shows, and the stored ones that it has no room for.

        A stored finding that the page does not show was repaired, if our own check would have found it. To acknowledge it
        says nothing about the next time.
        """
        found = self._status.databases[database]
        acknowledged = tuple(filter(None, (_still_valid(each, found) for each in stored.acknowledged)))
        shown = open_incidents(self._status, database)
        identities = {each.identity for each in shown}
        hidden = (each for each in stored.incidents if each.identity not in identities and not is_resolved(found, each))
        every = sorted((*shown, *hidden), key=lambda each: each.at)
        still_open = [each for each in every if is_open(each, self._status.now())]
        incidents = limited([each for each in still_open if not stored.acknowledgement(each)])
        return replace(stored, incidents=incidents, acknowledged=acknowledged)

    async def _synchronize(self, database: str) -> None:
        for _ in range(ATTEMPTS):
            stored = self._stored.get(database) or await self._read(database)
            new = self._current(database, stored)
            if not _differ(stored, new):
                return
            self._fence.require_held()
            try:
                self._stored[database] = await write_incidents(self._store, database, new)
            except PreconditionFailed:  # another machine has written meanwhile: keep its incidents and ours
                found = await self._read(database)
                for incident in stored.incidents if found.decided != stored.decided else ():
                    self._status.problems.forget(incident)
            else:
                return

    async def _read(self, database: str) -> StoredIncidents:
        stored = self._stored[database] = await read_incidents(self._store, database, self._status.now())
        for incident in open_incidents(self._status, database):
            if acknowledgement := stored.acknowledgement(incident):
                self._status.acknowledged(incident, acknowledgement.note, told=acknowledgement.at < incident.at)
        for incident in stored.incidents:
            if not is_resolved(self._status.databases[database], incident):
                self._show(incident)
        return stored

    def _show(self, incident: Problem) -> None:
        """Show a stored incident, in the place of a finding that is among its own: it is from a more thorough check."""
        for known in open_incidents(self._status, incident.database):
            if known.identity != incident.identity and covers(incident, known):
                self._status.problems.forget(known)
        self._status.problems.remember(incident)

    async def keep_looking_for_acknowledgements(self) -> None:
        """Check the store for acknowledgements of what the page shows, less often if the page is not amber."""
        for tick in count():
            await anyio.sleep(ACKNOWLEDGED_SECONDS)
            for database in self._status.databases:
                amber = any(each.kind in TO_DECIDE for each in open_incidents(self._status, database))
                if amber or tick % QUESTIONS_EVERY == 0:
                    with suppress(SidecarError):  # the cycles report what is wrong with the store
                        await self.refresh(database)

    async def refresh(self, database: str) -> None:
        """Take what others acknowledged or decided off the page. Sends no request if nothing is open."""
        before = self._stored.get(database)
        if before is None or not open_incidents(self._status, database):
            return
        found = await self._read(database)
        for incident in before.incidents if found.decided != before.decided else ():
            self._status.problems.forget(incident)

    async def keep_looking_for_diverged(self) -> None:
        """Look for diverged data, often at first: a fenced machine that wakes up stores its state soon after our start."""
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
            with suppress(SidecarError):  # an unread decision shows an incident too many, never one too few
                if database not in self._stored:
                    await self._read(database)
            stored = self._stored.get(database, StoredIncidents())
            for incident in await diverged_since(self._catalog, database, stored.open_since(now)):
                if not stored.acknowledgement(incident) and not any(
                    str(Timestamp.of(incident.at)) in each.message for each in self._status.problems
                ):
                    self._status.problems.remember(replace(incident, at=min(incident.at, self._status.now())))


def _still_valid(acknowledgement: Acknowledgement, found: DatabaseStatus) -> Acknowledgement | None:
    """An acknowledgement without the findings that are repaired; None when all of them are."""
    if not is_resolved(found, acknowledgement.problem(found.name)):
        return acknowledgement
    left = acknowledgement.findings & digests_of(found.findings)
    return replace(acknowledgement, findings=left) if left else None


def _differ(stored: StoredIncidents, new: StoredIncidents) -> bool:
    """Whether the stored incidents must be written again: one is missing, obsolete, or was reported again much later."""
    before, now = ({each.identity: each.at for each in some.incidents} for some in (stored, new))
    again = before.keys() == now.keys() and any(now[key] - at > REPORTED_AGAIN for key, at in before.items())
    return before.keys() != now.keys() or again or stored.acknowledged != new.acknowledged
