"""Where restore points lie in a store whose lifecycle rules select by prefix. Pure: keys in, keys out.

expiring/recent/<database>/20261120T145503.123Z.sqlite3.zst    every restore point, when it is published
expiring/hourly/<database>/…                                   a copy of the last one of an hour, made when it is superseded
expiring/daily/<database>/…                                    the same of a day
held/<database>/…                                              a copy of one that is held; no rule reaches it
<database>/…                                                   as in every other store; no rule reaches it
<database>/99991231T235959.999Z.newest-a, …-b                  slots: copies of the last two that were published

A restore point is known by its key in `<database>/`, wherever it lies: the lease, lineage markers, lists and commands name
nothing else.

The invariant, whatever request is lost, repeated or late, and whichever machine dies or is fenced:
1. The newest restore point of the main line that was reported as protected, and each one that is held, have a copy that no
   rule selects. (A fenced machine that was paused in the middle of its copy may break that until the next cycle of any
   machine; see `slots`.)
2. Whatever the policy keeps lies under no prefix that expires earlier: it is copied to the place of its tier while it is
   recent, and a copy is as old as its own making.
3. Everything else lies under `expiring/`, or is overwritten in one of two slots: the store does not grow for ever.
4. What was published before, in the main place, is read and stays as it was.

The slots are named like restore points in a form of the future. A version of sidecar that does not know them refuses to
work, instead of taking a store for empty in which everything else is at other places or has expired.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from urllib.parse import unquote

from sidecar.model import ObjectInfo, Page, RestorePoint, Timestamp
from sidecar.repository.keys import RESERVED_NAMES, folder_of, point_of
from sidecar.repository.retention import Tier
from sidecar.units import whole_number

SLOT = "99991231T235959.999Z.newest-"
SLOTS = (f"{SLOT}a", f"{SLOT}b")

FRESH = timedelta(hours=20)
"""A restore point of this age is certainly still where it was published: rules count whole days, and the shortest is one."""


class Place(StrEnum):
    """The prefix of a restore point's key at each place."""

    RECENT = "expiring/recent/"
    MAIN = ""
    HOURLY = "expiring/hourly/"
    DAILY = "expiring/daily/"
    HELD = "held/"


TIERS = {Tier.HELD: Place.HELD, Tier.DAILY: Place.DAILY, Tier.HOURLY: Place.HOURLY}
"""The places whose restore points have a tier, the one that decides first. Those of the others have none yet."""

PRUNED = (Place.RECENT, Place.HOURLY, Place.DAILY, Place.MAIN)
"""The places where pruning deletes what has expired."""


@dataclass(frozen=True, slots=True)
class Slot:
    """One of a database's two slots: its key, its object, and the timestamp of the restore point of which that is a copy."""

    key: str
    info: ObjectInfo | None = None
    point: Timestamp | None = None

    @property
    def epoch(self) -> int:
        """The term in which that restore point was published; 0 if it is not known, as without a lease."""
        return epoch_of(self.info) if self.info else 0


def main_point_of(key: str) -> RestorePoint | None:
    """The restore point with this key in its main place; None for every other key, and for diverged ones."""
    point = point_of(ObjectInfo(key, 0, "", datetime.now(UTC)))
    return None if point is None or point.diverged_holder else point


def placed(key: str) -> tuple[Place, RestorePoint] | None:
    """The place that a key is at, other than the main one, and the restore point, under its own key."""
    for place in Place:
        if place and key.startswith(place) and (point := main_point_of(key.removeprefix(place))):
            return place, point
    return None


def slots_of(database: str) -> tuple[str, ...]:
    """The keys of a database's slots."""
    return tuple(f"{folder_of(database)}{name}" for name in SLOTS)


def database_of_slot(key: str) -> str | None:
    """The database whose slot has this key; None for every other key."""
    folder, _, name = key.rpartition("/")
    database = unquote(folder)
    return database if name in SLOTS and key in slots_of(database) else None


def database_of_folder(prefix: str) -> str | None:
    """The database whose restore points are listed by this prefix; None for every other prefix."""
    name = unquote(prefix.removesuffix("/"))
    return name if name and name not in RESERVED_NAMES and prefix == folder_of(name) else None


def places_after(start_after: str, now: datetime) -> tuple[Place, ...]:
    """The places where restore points may be whose keys sort after this one: the youngest are in two places only."""
    point = main_point_of(start_after) or main_point_of(f"{start_after}.sqlite3.zst")
    fresh = point is not None and timedelta(0) <= now - point.timestamp.instant < FRESH
    return (Place.RECENT, Place.MAIN) if fresh else tuple(Place)


def places_for(point: RestorePoint, now: datetime, *, placing: bool) -> tuple[Place, ...]:
    """All places for a restore point, the most likely one first."""
    if not placing:
        first = [Place.MAIN]
    elif now - point.timestamp.instant < FRESH:
        first = [Place.RECENT]
    else:
        first = [Place.HOURLY, Place.DAILY, Place.RECENT]
    return tuple(dict.fromkeys([*first, *Place]))


def epoch_of(info: ObjectInfo) -> int:
    """The term in which a restore point was published, by its metadata; 0 if it is not known, as without a lease."""
    return whole_number(info.metadata.get("epoch")) or 0


def slot_for(point: Timestamp, epoch: int, slots: Sequence[Slot], kept: Timestamp | None = None) -> Slot | None:
    """The slot to copy a restore point of this term to; None if a slot has it.

    It is never the one with the latest content, by its term first: what a fenced machine publishes may have a later
    timestamp than the newest one of the main line, and displaces only what is older than that one. `kept` is what this
    machine took for the newest one until now: it counts as of this term, like all that the main line continues from.
    Nobody is refused, because what the main line names as its newest must get a slot, whatever the slots have.
    """
    if any(slot.point == point for slot in slots):
        return None

    def order(slot: Slot) -> tuple[int, str]:
        term = max(slot.epoch, epoch) if slot.point and slot.point == kept else slot.epoch
        return term if epoch else 0, slot.point.text if slot.point else ""

    return min(slots, key=order)


def merged(pages: Iterable[tuple[Place, Page]], more: Iterable[ObjectInfo], limit: int) -> Page:
    """One page of the listings of several places, each object once and under its own key, without slots.

    `more` are restore points that no listing names, under their own keys.
    """
    found: dict[str, ObjectInfo] = {}
    horizons: list[str] = []  # nothing is known beyond the end of a listing that goes on
    for place, page in pages:
        own = [replace(info, key=info.key.removeprefix(place)) for info in page.objects]
        if page.more:
            horizons.append(own[-1].key)
        for info in own:
            if database_of_slot(info.key) is None:
                found.setdefault(info.key, info)
    for info in more:
        found.setdefault(info.key, info)
    keys = sorted(found, key=str.encode)
    if horizons:
        end = min(horizons, key=str.encode)
        keys = [key for key in keys if key.encode() <= end.encode()]
    return Page(tuple(found[key] for key in keys[:limit]), bool(keys) and (bool(horizons) or len(keys) > limit))
