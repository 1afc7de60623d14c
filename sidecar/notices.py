"""What is a person's to decide, for a day and over restarts: kept in the store, since a machine's disk does not survive.

.sidecar/notices/<database>.json    of the last day: at, kind, message, hint; decided: when somebody chose a restore point by hand
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
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
FIRST_RETRY = 30.0
LONGEST_RETRY = 3600.0
LAST_SECONDS = 5.0
DIVERGED_HINT = "`sidecar list --diverged` shows it; to look at it, or to make it the live one: README, 'What another machine wrote'"


def notices_key(database: str) -> str:
    """The key of what is to be decided about a database."""
    return f".sidecar/notices/{quote(database, safe='')}.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store has of one database: notices, oldest first, and the instant before which all is decided."""

    notices: tuple[Problem, ...] = ()
    decided: datetime | None = None


async def read_notices(store: ObjectStore, database: str, now: datetime) -> Kept:
    """Those of the last day before `now`. Raises what the store does; what is no JSON of ours is nothing."""
    try:
        data = (await store.get(notices_key(database))).data
    except NotFound:
        return Kept()
    try:
        values = json.loads(bytes(data))
        found = [_parse(database, each, now) for each in values["notices"]]
        decided = min(_instant(values["decided"]), now) if values.get("decided") else None
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        log.warning("the notices in the store cannot be read", database=database, error=repr(error))
        return Kept()
    return Kept(tuple(each for each in found if now - each.at < LOOK_FOR)[-PROBLEMS:], decided)


async def write_notices(store: ObjectStore, database: str, kept: Kept) -> None:
    """Put these in the place of what is there."""
    notices = [
        {"at": each.at.isoformat(), "kind": each.kind, "message": each.message, "hint": each.hint}
        for each in kept.notices
    ]
    decided = kept.decided.isoformat() if kept.decided else None
    await store.put(notices_key(database), json.dumps({"notices": notices, "decided": decided}, indent=1).encode())


async def decide_notices(store: ObjectStore, database: str) -> None:
    """Somebody has decided. Never raises: at worst they are shown for the rest of their day."""
    try:
        await write_notices(store, database, Kept(decided=await store.now()))
    except SidecarError as error:
        log.info("what was to be decided is not forgotten", database=database, error=error.message)


def _parse(database: str, value: dict[str, str], now: datetime) -> Problem:
    return Problem(
        min(_instant(value["at"]), now), database, str(value["message"]), str(value["hint"]), Kind(value["kind"])
    )


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


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
        self._kept: dict[str, Kept] = {}  # by database, once its are known
        self._failures = 0

    async def run(self) -> None:
        """Keep them for as long as the daemon runs."""
        while True:
            self._failures = 0 if await self.keep() else self._failures + 1
            pause = (
                min(LONGEST_RETRY, FIRST_RETRY * 2 ** min(self._failures - 1, 20)) if self._failures else KEEP_SECONDS
            )
            await anyio.sleep(pause)

    async def keep(self) -> bool:
        """See that the store has what is shown. Asks it for nothing when nothing is new; False when it failed."""
        try:
            for database in self._status.databases:
                await self._keep(database)
        except SidecarError as error:
            if not self._failures:
                log.info("what is to be decided is not kept in the store yet", error=error.message)
            return False
        return True

    async def keep_last(self) -> None:
        """At the end, in a few seconds, and only if there is anything new: the store may be silent."""
        with anyio.move_on_after(LAST_SECONDS, shield=True):
            if any(
                _said(_to_decide(self._status, each)) - _said(self._kept.get(each, Kept()).notices)
                for each in self._status.databases
            ):
                await self.keep()

    async def _keep(self, database: str) -> None:
        if database not in self._kept:
            kept = await read_notices(self._store, database, self._status.now())
            for notice in reversed(kept.notices):
                self._status.remember(notice)
            self._kept[database] = kept
        notices = _to_decide(self._status, database)
        if _said(notices) != _said(self._kept[database].notices):
            self._fence.require()
            kept = replace(self._kept[database], notices=tuple(notices))
            await write_notices(self._store, database, kept)
            self._kept[database] = kept

    async def look_for_diverged(self) -> None:
        """What other machines put under `diverged/` in the last day is theirs to decide who read this one's page."""
        since = await self._store.now() - LOOK_FOR
        for database in self._status.databases:
            await self._keep(database)  # what is decided is to be known
            after = max(since, self._kept[database].decided or since)
            async for point in self._replica.points(database, diverged=True, after=Timestamp.of(after)):
                if any(str(point.timestamp) in each.message for each in self._status.problems):
                    continue  # told when it was moved aside, here
                message = f"{point.diverged_holder} wrote what is not in this database: it is kept under diverged/"
                at = min(point.timestamp.instant, self._status.now())
                self._status.remember(Problem(at, database, message, DIVERGED_HINT, Kind.DIVERGENCE))


def _said(notices: Iterable[Problem]) -> set[tuple[Kind, str]]:
    return {(each.kind, each.message) for each in notices}
