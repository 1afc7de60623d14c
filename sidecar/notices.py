"""What is a person's to decide, for a day and over restarts: kept in the store, since a machine's disk does not survive.

.sidecar/notices/<database>.json    of the last day: at, kind, message, hint
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from urllib.parse import quote

import anyio
import structlog

from sidecar.domain import Timestamp
from sidecar.errors import NotFound, SidecarError
from sidecar.ports import Fence, ObjectStore
from sidecar.replica import Replica
from sidecar.status import PROBLEMS, Kind, Problem, Status
from sidecar.verdict import LOOK_FOR, TO_DECIDE

log = structlog.get_logger()

KEEP_SECONDS = 1.0
RETRY_SECONDS = 30.0
LAST_SECONDS = 5.0
DIVERGED_HINT = "`sidecar list --diverged` shows it; to look at it, or to make it the live one: README, 'What another machine wrote'"


def notices_key(database: str) -> str:
    """The key of what is to be decided about a database."""
    return f".sidecar/notices/{quote(database, safe='')}.json"


async def read_notices(store: ObjectStore, database: str, now: datetime) -> tuple[Problem, ...]:
    """Those of the last day before `now`, oldest first. Raises what the store does; what is no JSON of ours is nothing."""
    try:
        data = (await store.get(notices_key(database))).data
    except NotFound:
        return ()
    try:
        found = [_parse(database, each, now) for each in json.loads(bytes(data))["notices"]]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("the notices in the store cannot be read", database=database, error=repr(error))
        return ()
    return tuple(each for each in found if now - each.at < LOOK_FOR)[-PROBLEMS:]


async def write_notices(store: ObjectStore, database: str, notices: Iterable[Problem]) -> None:
    """Put these in the place of what is kept."""
    content = [
        {"at": each.at.isoformat(), "kind": each.kind, "message": each.message, "hint": each.hint} for each in notices
    ]
    await store.put(notices_key(database), json.dumps({"notices": content}, indent=1).encode())


async def forget_notices(store: ObjectStore, database: str, now: datetime) -> None:
    """Somebody has decided. Never raises: at worst they are shown for the rest of their day."""
    try:
        if await read_notices(store, database, now):
            await write_notices(store, database, ())
    except SidecarError as error:
        log.info("what was to be decided is not forgotten", database=database, error=error.message)


def _parse(database: str, value: dict[str, str], now: datetime) -> Problem:
    at = datetime.fromisoformat(value["at"]).astimezone(UTC)
    return Problem(min(at, now), database, str(value["message"]), str(value["hint"]), Kind(value["kind"]))


def _to_decide(status: Status, database: str) -> list[Problem]:
    since = status.now() - LOOK_FOR
    return [
        each for each in status.problems if each.database == database and each.kind in TO_DECIDE and each.at > since
    ]


class Notices:
    """Those of one daemon's databases: what a predecessor left is shown again, what comes is kept."""

    def __init__(self, replica: Replica, status: Status, fence: Fence) -> None:
        self._replica = replica
        self._store = replica.store
        self._status = status
        self._fence = fence
        self._kept: dict[str, set[tuple[Kind, str]]] = {}  # by database, once its are known

    async def run(self) -> None:
        """Keep them for as long as the daemon runs."""
        while True:
            await anyio.sleep(KEEP_SECONDS if await self.keep() else RETRY_SECONDS)

    async def keep(self) -> bool:
        """See that the store has what is shown. Asks it for nothing when nothing is new; False when it failed."""
        try:
            for database in self._status.databases:
                await self._keep(database)
        except SidecarError as error:
            log.info("what is to be decided is not kept in the store yet", error=error.message)
            return False
        return True

    async def keep_last(self) -> None:
        """At the end, in a few seconds, and only if there is anything new: the store may be silent."""
        with anyio.move_on_after(LAST_SECONDS, shield=True):
            if any(
                _said(_to_decide(self._status, each)) - self._kept.get(each, set()) for each in self._status.databases
            ):
                await self.keep()

    async def _keep(self, database: str) -> None:
        if database not in self._kept:
            found = await read_notices(self._store, database, self._status.now())
            for notice in reversed(found):
                self._status.remember(notice)
            self._kept[database] = _said(found)
        notices = _to_decide(self._status, database)
        if _said(notices) != self._kept[database]:
            self._fence.require()
            await write_notices(self._store, database, notices)
            self._kept[database] = _said(notices)

    async def look_for_diverged(self) -> None:
        """What other machines put under `diverged/` in the last day is theirs to decide who read this one's page."""
        now = await self._store.now()
        for database in self._status.databases:
            async for point in self._replica.points(database, diverged=True, after=Timestamp.of(now - LOOK_FOR)):
                if any(str(point.timestamp) in each.message for each in self._status.problems):
                    continue  # told when it was moved aside, here
                message = f"{point.diverged_holder} wrote what is not in this database: it is kept under diverged/"
                at = min(point.timestamp.instant, self._status.now())
                self._status.remember(Problem(at, database, message, DIVERGED_HINT, Kind.DIVERGENCE))


def _said(notices: Iterable[Problem]) -> set[tuple[Kind, str]]:
    return {(each.kind, each.message) for each in notices}
