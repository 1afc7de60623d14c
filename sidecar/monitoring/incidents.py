"""What is a person's to decide, for a day and over restarts: kept in the store, since a machine's disk does not survive.

.sidecar/notices/<database>.json    of the last day: at, kind, message, hint; decided: when somebody chose a restore point by hand
"""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import anyio
import structlog

from sidecar.errors import NotFound, PreconditionFailed, SidecarError
from sidecar.lease.fence import Fence
from sidecar.model import IfAbsent, IfMatch, Timestamp
from sidecar.repository.catalog import Replica
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
SAID_AGAIN = timedelta(hours=1)
CLOCK_STEP = timedelta(seconds=10)  # S3 tells its time in whole seconds
DIVERGED_HINT = "`sidecar list --diverged` shows it; to look at it, or to make it the live one: README, 'What another machine wrote'"


def notices_key(database: str) -> str:
    """The key of what is to be decided about a database."""
    return f".sidecar/notices/{quote(database, safe='')}.json"


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store has of one database: notices, oldest first, the instant before which all is decided, the object's ETag."""

    notices: tuple[Problem, ...] = ()
    decided: datetime | None = None
    etag: str | None = None

    def undecided_since(self, now: datetime) -> datetime:
        """From when on something is to be decided, by the store's clock; a decision from the future hides nothing."""
        decided = self.decided if self.decided and self.decided <= now + CLOCK_STEP else None
        return max(now - LOOK_FOR, decided or now - LOOK_FOR)


async def read_notices(store: ObjectStore, database: str, now: datetime) -> Kept:
    """Those of the last day before `now`. Raises what the store does; what is no JSON of ours is nothing."""
    try:
        blob = await store.get(notices_key(database))
    except NotFound:
        return Kept()
    try:
        values = json.loads(bytes(blob.data))
        found = [_parse(database, each, now) for each in values["notices"]]
        decided = _instant(values["decided"]) if values.get("decided") else None
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        log.warning("the notices in the store cannot be read", database=database, error=type(error).__name__)
        return Kept(etag=blob.info.etag)
    recent = tuple(each for each in found if now - each.at < LOOK_FOR)
    return Kept(recent[-KEPT:], decided, blob.info.etag)


async def write_notices(store: ObjectStore, database: str, kept: Kept) -> Kept:
    """Put these in the place of what has the ETag, or where nothing is. Raises `PreconditionFailed` when it is not so."""
    notices = [
        {"at": each.at.isoformat(), "kind": each.kind, "message": each.message, "hint": each.hint}
        for each in kept.notices
    ]
    decided = kept.decided.isoformat() if kept.decided else None
    content = json.dumps({"notices": notices, "decided": decided}, indent=1).encode()
    condition = IfMatch(kept.etag) if kept.etag else IfAbsent()
    return replace(kept, etag=(await store.put(notices_key(database), content, condition=condition)).etag)


async def decide_notices(store: ObjectStore, database: str) -> None:
    """Somebody has decided. Never raises: at worst they are shown for the rest of their day."""
    try:
        now = await store.now()
        there = await read_notices(store, database, now)
        await write_notices(store, database, Kept((), now, there.etag))
    except SidecarError as error:
        log.info("what was to be decided is not forgotten", database=database, error=error.message)


def _parse(database: str, value: dict[str, str], now: datetime) -> Problem:
    return Problem(
        min(_instant(value["at"]), now), database, str(value["message"]), str(value["hint"]), Kind(value["kind"])
    )


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text).astimezone(UTC)


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
        kept = True
        for database in self._status.databases:
            try:
                await self._keep(database)
            except SidecarError as error:
                kept = False
                if not self._failures:
                    log.info("what is to be decided is not kept in the store yet", error=error.message)
        return kept

    async def keep_last(self) -> None:
        """At the end, in a few seconds, and only if there is anything new: the store may be silent. Never raises."""
        try:
            with anyio.move_on_after(LAST_SECONDS, shield=True):
                if any(self._is_new(database) for database in self._status.databases):
                    await self.keep()
        except Exception:  # the exit status is decided, and the lease is to be released
            log.exception("what is to be decided could not be kept, by a bug")

    def _is_new(self, database: str) -> bool:
        kept = self._kept.get(database, Kept())
        return _differ(kept.notices, self._to_decide(database, kept))

    def _to_decide(self, database: str, kept: Kept) -> tuple[Problem, ...]:
        """What is shown, and what was kept and found no room to be shown."""
        since = self._status.now() - LOOK_FOR
        shown = [each for each in self._status.problems if each.database == database and each.kind in TO_DECIDE]
        words = {each.words for each in shown}
        every = sorted((*shown, *(each for each in kept.notices if each.words not in words)), key=lambda each: each.at)
        return tuple(each for each in every if each.at > since)[-KEPT:]

    async def _keep(self, database: str) -> None:
        for _ in range(ATTEMPTS):
            kept = self._kept.get(database) or await self._read(database)
            notices = self._to_decide(database, kept)
            if not _differ(kept.notices, notices):
                return
            self._fence.require()
            try:
                self._kept[database] = await write_notices(self._store, database, replace(kept, notices=notices))
            except PreconditionFailed:  # another machine's are there now: both are kept
                there = await self._read(database)
                for notice in kept.notices if there.decided != kept.decided else ():
                    self._status.problems.forget(notice)
            else:
                return

    async def _read(self, database: str) -> Kept:
        kept = self._kept[database] = await read_notices(self._store, database, self._status.now())
        for notice in kept.notices:
            self._status.problems.remember(notice)
        return kept

    async def keep_looking_for_diverged(self) -> None:
        """Often at first: a machine that was paused, and finds this one in its place, puts its state there soon after."""
        pause = FIRST_RETRY
        while True:
            with suppress(SidecarError):  # the cycles report what is wrong with the store
                await self.look_for_diverged()
            await anyio.sleep(pause)
            pause = min(LONGEST_LOOK, 2 * pause)

    async def look_for_diverged(self) -> None:
        """What other machines put under `diverged/` in the last day is theirs to decide who read this one's page."""
        now = await self._store.now()
        for database in self._status.databases:
            with suppress(SidecarError):  # what is decided would be good to know
                await self._keep(database)
            kept = self._kept.get(database, Kept())
            for notice in await diverged_since(self._replica, database, kept.undecided_since(now)):
                if not any(str(Timestamp.of(notice.at)) in each.message for each in self._status.problems):
                    self._status.problems.remember(replace(notice, at=min(notice.at, self._status.now())))


async def diverged_since(replica: Replica, database: str, after: datetime) -> tuple[Problem, ...]:
    """For each machine that put something under `diverged/` later than this, one notice, of its last."""
    found: dict[str, Problem] = {}
    async for point in replica.points(database, diverged=True, after=Timestamp.of(after)):
        holder = str(point.diverged_holder)
        message = f"{holder} wrote what is not in this database: it is kept under diverged/"
        found[holder] = Problem(point.timestamp.instant, database, message, DIVERGED_HINT, Kind.DIVERGENCE)
    return tuple(found.values())


def _differ(kept: Iterable[Problem], shown: Iterable[Problem]) -> bool:
    """Whether there are others, or one was said again long after."""
    before, now = ({each.words: each.at for each in some} for some in (kept, shown))
    return before.keys() != now.keys() or any(now[key] - at > SAID_AGAIN for key, at in before.items())
