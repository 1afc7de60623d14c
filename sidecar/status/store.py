"""What a store alone says about databases, without a daemon: what it holds, who wrote there last, and whether that is good."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from sidecar.policies import Expires
from sidecar.status.health import TO_DECIDE, Health, Level, advice
from sidecar.status.listing import Listing
from sidecar.status.problems import Kind, Problem
from sidecar.status.serialize import incident_as_dict
from sidecar.units import format_duration


@dataclass(frozen=True, slots=True)
class StoredDatabase:
    """A database as the store has it. Sizes in bytes, ages in seconds by the store's clock.

    `restore_point` is the newest key. It is `gone` when the lease object names it and the store does not have it;
    `damage` is what its index shows to be wrong. `streamed_to` is when the last commit was made that a restore would reach after
    it, None if there is none. `stored_bytes` are by tier.
    """

    name: str
    restore_point: str | None = None
    restore_point_size: int | None = None
    age_seconds: float | None = None
    streamed_to: datetime | None = None
    last_drill: datetime | None = None
    drill_outcome: str | None = None
    stored_bytes: Mapping[str, int] | None = None
    listing: Listing | None = None
    gone: bool = False
    damage: str | None = None

    def as_dict(self) -> dict[str, object]:
        """The JSON of `status --json`."""
        return {
            "name": self.name,
            "restore_point": self.restore_point,
            "restore_point_size": self.restore_point_size,
            "age_seconds": self.age_seconds,
            "streamed_to": self.streamed_to.isoformat() if self.streamed_to else None,
            "last_drill": self.last_drill.isoformat() if self.last_drill else None,
            "drill_outcome": self.drill_outcome,
            "stored_bytes": dict(self.stored_bytes or {}),
            "listing": self.listing.as_dict() if self.listing else None,
        }


@dataclass(frozen=True, slots=True)
class LastHolder:
    """The machine that has the lease, or had it last: how long ago it renewed it, and for how long that lasts, in seconds."""

    holder: str
    epoch: int
    released: bool
    age: float
    ttl: float

    @property
    def holds(self) -> bool:
        """Whether its term has not ended."""
        return not self.released and self.age <= self.ttl

    def as_dict(self) -> dict[str, object]:
        """The JSON of `status --json`."""
        return {"holder": self.holder, "held": self.holds, "epoch": self.epoch}


@dataclass(frozen=True, slots=True)
class StoreStatus:
    """What the store says of all databases. `health` is the verdict on them."""

    store: str
    databases: tuple[StoredDatabase, ...]
    holder: LastHolder | None
    health: Health
    incidents: tuple[Problem, ...] = ()
    expires: Expires | None = None

    def as_dict(self) -> dict[str, object]:
        """The JSON of `status --json`."""
        return {
            "source": "store",
            "store": self.store,
            "expires": self.expires,
            "lease": self.holder.as_dict() if self.holder else None,
            "databases": [each.as_dict() for each in self.databases],
            "incidents": [incident_as_dict(each) for each in self.incidents],
            "verdict": self.health.as_dict(),
        }


def status_of_machine(store: str, known: Mapping[str, str | None], reason: str, hint: str) -> dict[str, Any]:
    """The JSON of `status --json` where neither a daemon nor the store answers.

    `known` has for each database the key of the restore point that it descends from, as this machine's disk has it.
    """
    return {
        "source": "machine",
        "store": store,
        "lease": None,
        "databases": [{"name": name, "restore_point": key} for name, key in known.items()],
        "verdict": Health(Level.BAD, "Unknown: the store does not answer", None, reason, hint).as_dict(),
    }


def judge(
    databases: Sequence[StoredDatabase], holder: LastHolder | None, incidents: Sequence[Problem], *, place: str
) -> Health:
    """The verdict: missing restore points first, then open incidents, then whether a machine runs.

    `place` names the store, and says why databases may be missing there.
    """
    missing = _missing(databases, place)
    if missing and missing.level is Level.BAD:
        return missing
    rest = _at_rest(holder, incidents)
    if missing is None:
        return rest
    # A database without restore points hides nothing about the others.
    worst = rest if rest.level is Level.ATTENTION else missing
    hint = "; ".join(filter(None, (missing.hint, rest.hint)))
    return replace(worst, reason=f"{missing.reason}; {rest.reason}", hint=hint)


def _missing(databases: Sequence[StoredDatabase], place: str) -> Health | None:
    """None when the newest restore point of every database is there and its index is whole."""
    gone = [each.restore_point for each in databases if each.restore_point and each.gone]
    damaged = [each.damage for each in databases if each.damage]
    missing = [each.name for each in databases if each.restore_point is None]
    reasons = [
        *([f"the newest restore point is gone from the store: {', '.join(gone)}"] if gone else []),
        *damaged,
        *([f"there is no restore point of {', '.join(missing)} in {place}"] if missing else []),
    ]
    if not reasons:
        return None
    anew = "a running sidecar publishes a new one, else `sidecar backup` does"
    if gone:
        hint = f"`sidecar list` shows which older ones are left; {anew}"
    elif damaged:
        hint = f"`sidecar verify --all` shows which older ones are good; {anew}"
    else:
        hint = "are `store` and the database's name right, is the store's file system mounted, and does a daemon run?"
    some = not gone and not damaged and len(missing) < len(databases)
    title = f"The store has nothing of {', '.join(missing)}" if some else "Not protected"
    return Health(Level.ATTENTION if some else Level.BAD, title, None, "; ".join(reasons), hint)


def _at_rest(holder: LastHolder | None, incidents: Sequence[Problem]) -> Health:
    """Whether a machine runs whose own page knows more, and what is left for a person to decide."""
    machine = _machine(holder)
    incidents = [each for each in incidents if each.kind in TO_DECIDE]
    if not incidents:
        return machine
    last = max(reversed(incidents), key=lambda each: (each.kind is Kind.DAMAGED, each.at))
    reason, hint = f"{last.database}: {last.message}", advice(last)
    if machine.level is Level.ATTENTION:  # its disk may be the only copy of something
        reason, hint = f"{machine.reason}; {reason}", f"{machine.hint}; {hint}"
    return Health(Level.ATTENTION, "Needs attention", last.at, reason, hint)


def _machine(holder: LastHolder | None) -> Health:
    title = "The store has what was published"
    if holder is None or holder.released:
        who = f"{holder.holder}, the last one, shut down cleanly" if holder else "no machine is known"
        return Health(Level.WAIT, title, None, f"no sidecar runs: {who}", "")
    age = format_duration(timedelta(seconds=round(holder.age)))
    if holder.holds:
        hint = "its own page, and `sidecar status` on it, say whether it is protected"
        return Health(Level.WAIT, title, None, f"{holder.holder} runs: it renewed its lease {age} ago", hint)
    reason = f"{holder.holder} has not renewed its lease for {age}, and did not shut down cleanly"
    hint = "what is neither in its newest restore point nor in its stream is on its disk only, if that is still there: start it again"
    return Health(Level.ATTENTION, title, None, reason, hint)
