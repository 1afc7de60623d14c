"""The health of databases: a level, since when, why, and what to do. The page, `/status` and metrics all use it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from sidecar.status import documentation
from sidecar.status.expiring import attention, untagged_attention
from sidecar.status.model import DatabaseStatus, Status
from sidecar.status.problems import Kind, Problem

OVERDUE = 3  # intervals without a restore point of a change: something is wrong, even if nothing has failed yet
LOOK_FOR = timedelta(hours=24)
ALONE = timedelta(hours=1)  # at least, before changes that only a stream has need attention
_ATTENTION = {Kind.SUSPICION, Kind.DIVERGENCE, Kind.DRILL, Kind.GROWTH, Kind.FINDING, Kind.EMPTY}
TO_DECIDE = frozenset({*_ATTENTION, Kind.DAMAGED})
STORED = TO_DECIDE | {Kind.FIRST_START}  # a first start needs no decision, but somebody should confirm that it was one
_NO_RULE = (
    "the bucket lacks the lifecycle rule for the tag sidecar-tier=stream, or the store takes no tags: a rule for the prefix "
    "`stream/` does the same"
)
_NO_SUBSTITUTE = "a stream is no substitute for restore points"
_SLOW = "is a backup slower than the interval? see the durations, and the log"
_ENDED = {"handed over": "Handed over", "stopped": "Stopped"}


class Level(StrEnum):
    """From good to bad. `ATTENTION` is protected, but needs a decision; `WAIT` is not protected, but nothing is wrong."""

    GOOD = "good"
    ATTENTION = "look"
    WAIT = "wait"
    BAD = "bad"


# Of several databases: one that is still waiting must not hide the loss of another.
_SEVERITY = (Level.GOOD, Level.WAIT, Level.ATTENTION, Level.BAD)


@dataclass(frozen=True, slots=True)
class Health:
    """The health of a database or of all, since when, why, and what to do about it."""

    level: Level
    title: str
    since: datetime | None = None
    reason: str = ""
    hint: str = ""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {**asdict(self), "since": self.since.isoformat() if self.since else None}


def overall(status: Status) -> Health:
    """The worst health of all databases, the oldest if several are equally bad. It names the database if there are several."""
    each = [(name, of_database(status, database)) for name, database in status.databases.items()]
    worst = max(each, key=lambda pair: _SEVERITY.index(pair[1].level))[1].level
    names = [name for name, health in each if health.level is worst]
    candidates = [health for _, health in each if health.level is worst]
    chosen = min(candidates, key=lambda health: health.since or status.now())
    if len(each) == 1 or worst is Level.GOOD:
        return chosen
    which = names[0] if len(names) == 1 else f"{len(names)} of {len(each)} databases"
    reason = f"{which}: {chosen.reason}" if chosen.reason else which
    title = f"{chosen.title}: {which}" if worst is Level.WAIT and len(names) < len(each) else chosen.title
    return Health(worst, title, chosen.since, reason, chosen.hint)


def of_database(status: Status, database: DatabaseStatus) -> Health:
    """The health of a database: its most important finding."""
    found = next(_findings(status, database), None)
    return found or Health(Level.GOOD, "Protected", database.protected_since, *_beginning(status, database))


def _beginning(status: Status, database: DatabaseStatus) -> tuple[str, str]:
    """Reason and hint after an empty start, which is either a first start or a mistyped store, until it is acknowledged."""
    began = _latest(status, database, {Kind.FIRST_START})
    return (f"it started empty at {began.at:%Y-%m-%d %H:%M} UTC: {began.message}", began.hint) if began else ("", "")


def is_open(problem: Problem, now: datetime) -> bool:
    """Whether a problem is an incident that nobody has acknowledged, and whose day is not over."""
    return problem.kind in STORED and (problem.lasting or problem.at > now - LOOK_FOR)


def open_incidents(status: Status, database: str) -> list[Problem]:
    """The open incidents of a database, oldest first."""
    return [each for each in status.problems if each.database == database and is_open(each, status.now())]


def acknowledge_command(kind: Kind) -> str:
    """The command that acknowledges incidents of this kind."""
    return f"sidecar ack {kind}"


def advice(incident: Problem) -> str:
    """The hint of an incident, with the command that acknowledges it."""
    command = acknowledge_command(incident.kind)
    return (
        incident.hint
        if command in incident.hint
        else f"{incident.hint}; `{command}` acknowledges it".removeprefix("; ")
    )


def _others(database: DatabaseStatus) -> str:
    return f", only of {', '.join(database.others)}" if database.others else ""


def _findings(status: Status, database: DatabaseStatus) -> Iterator[Health]:
    """Everything that is not as it should be, the most important first."""
    if status.phase in _ENDED:
        yield _ended(status)
    if status.lease.renewals["lost"]:
        yield _fenced(status, database)
    if database.failing_since:
        since = min(database.unprotected_since or database.failing_since, database.failing_since)
        problem = _latest(status, database, {Kind.FAILURE})
        yield Health(Level.BAD, "Not protected", since, database.last_error or "", problem.hint if problem else "")
    if status.phase in {"starting", "restoring"}:
        yield _booting(status)
    if database.last_outcome == "waiting":
        yield _waiting(status, database)
    if status.phase == "stopping":
        yield Health(Level.WAIT, "Stopping", None, "the last restore point is published once the app has stopped")
    if _overdue(status, database):
        reason = f"no restore point holds the changes of the last {status.unprotected(database.name):.0f} s"
        reason += f", and {_NO_SUBSTITUTE}" if database.stream.active else ""
        yield Health(Level.BAD, "Not protected", database.unprotected_since, reason, _SLOW)
    if database.protected_since is None:
        hint = f"the next one is at {database.next_backup:%H:%M:%S} UTC" if database.next_backup else ""
        began, _ = _beginning(status, database)
        reason = "; ".join(filter(None, ("the first backup of this run is not done yet", began)))
        yield Health(Level.WAIT, "Not protected yet", status.started, reason, hint)
    if status.lease.unsuitable:
        hint = f"a proxy may have been put in front of it; make sure that there is no second machine, and remove it: {documentation.CONDITIONS}"
        yield Health(Level.ATTENTION, "Protected – needs attention", None, status.lease.unsuitable, hint)
    yield from _to_decide(status, database)
    yield from _streaming(status, database)


def _streaming(status: Status, database: DatabaseStatus) -> Iterator[Health]:
    """Findings about a stream. They need attention, not more: restore points protect the database as they do without it."""
    stream, now, title = database.stream, status.now(), "Protected – needs attention"
    interval = status.interval or timedelta(0)
    changed = database.changed_since
    longest = ALONE + OVERDUE * interval if status.by_need else max(OVERDUE * interval, ALONE)
    if stream.active and changed and now - changed > longest:
        reason = f"only the stream has the changes since {changed:%Y-%m-%d %H:%M} UTC, and {_NO_SUBSTITUTE}"
        yield Health(Level.ATTENTION, title, changed, reason, _SLOW)
    if stream.refused and not stream.active:
        hint = "grant what the writer needs below `stream/` in the store, or set stream=off; restore points are published as ever"
        yield Health(Level.ATTENTION, title, stream.since, f"nothing is streamed: {stream.refused}", hint)
    elif stream.is_resting(now) and stream.setting == "on":
        reason = f"streaming is paused until {stream.resting_until:%H:%M:%S} UTC after repeated cuts; the last one: {stream.last_cut}"
        hint = "restore points are published as ever; find out what the last cut says, or set stream=off"
        yield Health(Level.ATTENTION, title, stream.since, reason, hint)
    elif stream.is_missing(now, interval):
        hint = f"restore points are published as ever; set stream=off if that is meant; see {documentation.STREAMING}"
        yield Health(Level.ATTENTION, title, stream.since, f"stream=on, but nothing is streamed: {stream.reason}", hint)
    if found := expiry_attention(status, database.name):
        yield Health(Level.ATTENTION, title, database.protected_since, *found)
    if not stream.expires(now, status.keep.stream):
        reason = f"nothing expires the segments of streams: the oldest is of {stream.oldest:%Y-%m-%d}"
        yield Health(Level.ATTENTION, title, stream.oldest, reason, _NO_RULE)


def expiry_attention(status: Status, name: str) -> tuple[str, str] | None:
    """What is wrong with the expiry of a database's restore points, and what to do."""
    if found := untagged_attention(status.expires, status.databases[name].untagged):
        return found
    stored = status.stored.get(name, {})
    return attention(status.expires, status.listings.get(name), stored, status.now(), billable=status.billable)


def _to_decide(status: Status, database: DatabaseStatus) -> Iterator[Health]:
    """Findings about a database that is protected and needs attention."""
    found = [each for each in status.problems if each.kind in TO_DECIDE and is_open(each, status.now())]
    found = [each for each in found if each.database in {database.name, ""}]
    if found:
        last, more = found[-1], len(found) - 1
        lost = any(each.kind is Kind.DAMAGED for each in found)
        title = "Protected, but changes were lost" if lost else "Protected – needs attention"
        hint = advice(last) if last.database else last.hint
        hint = f"{hint}; {more} more below, under 'Last problems'" if more else hint
        yield Health(Level.ATTENTION, title, last.at, last.message, hint)
    if remark := status.remarks.get(database.name):
        yield Health(Level.ATTENTION, "Protected – needs attention", database.protected_since, *remark)
    if status.remark:
        yield Health(Level.ATTENTION, "Protected – needs attention", database.protected_since, *status.remark)


def _waiting(status: Status, database: DatabaseStatus) -> Health:
    who = "the app" if status.has_command else "no command was given; another process"
    hint = f"{who} may create it later; is `databases` right?"
    reason = f"{database.path} does not exist yet, or has zero bytes"
    if database.restore_outcome == "started_empty":
        reason += f", and {status.store} has no restore point of {database.name}{_others(database)}"
    return Health(Level.WAIT, "Nothing to protect yet", status.started, reason, hint)


def _booting(status: Status) -> Health:
    if holder := status.lease.waiting_for:
        reason = f"waiting for the lease of {holder}"
        hint = "stop that machine, or wait until it is gone for lease_ttl"
        return Health(Level.WAIT, "Waiting for another machine", status.started, reason, hint)
    title = "Restoring" if status.phase == "restoring" else "Starting"
    if status.trouble:
        hint = "sidecar tries again until `restore_timeout`; it does not start the app on an empty database"
        return Health(Level.WAIT, title, status.started, status.trouble, hint)
    problem = status.problems[-1] if status.problems else None
    reason = problem.message if problem else "the app starts when its databases are there"
    return Health(Level.WAIT, title, status.started, reason, problem.hint if problem else "")


def _fenced(status: Status, database: DatabaseStatus) -> Health:
    problem = next((each for each in reversed(status.problems) if each.kind is Kind.DIVERGENCE), None)
    reason = f"{status.lease.waiting_for or 'another machine'} has taken over: writes on this machine are kept under diverged/ at best"
    since = database.unprotected_since or (problem.at if problem else None)
    return Health(
        Level.BAD, "Fenced: not protected", since, reason, "make sure that only one machine runs: stop one of the two"
    )


def _ended(status: Status) -> Health:
    other = status.lease.waiting_for or "another machine"
    reason = f"{other} continues from here" if status.phase == "handed over" else "the app has ended"
    return Health(Level.WAIT, _ENDED[status.phase], None, reason)


def _overdue(status: Status, database: DatabaseStatus) -> bool:
    limit = status.interval * OVERDUE if status.interval else None
    return limit is not None and status.unprotected(database.name) > limit.total_seconds()


def _latest(
    status: Status, database: DatabaseStatus, kinds: set[Kind], since: datetime | None = None
) -> Problem | None:
    for problem in reversed(status.problems):
        if problem.kind in kinds and problem.database in {database.name, ""} and (since is None or problem.at >= since):
            return problem
    return None
