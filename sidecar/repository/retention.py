"""Which restore points may expire, and when. Pure: names and instants in, decisions out.

When a restore point is superseded it gets a tier, as the tag `sidecar-tier`, and rules on that tag expire it: the
bucket's lifecycle rules on S3, `plan_prune` for a directory. What has no tag never expires, which is why the newest one
has none: lifecycle rules count an object's own age and know no "keep the newest"
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html), and an app may sleep for a year.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import pairwise

from sidecar.model import Timestamp

TIER_TAG = "sidecar-tier"


class Tier(StrEnum):
    """What the tag says. Nothing expires `HELD`."""

    RECENT = "recent"
    HOURLY = "hourly"
    DAILY = "daily"
    HELD = "held"


KEEP = {Tier.RECENT: timedelta(days=2), Tier.HOURLY: timedelta(days=14), Tier.DAILY: timedelta(days=90)}
"""Ages at which restore points expire; the bucket's lifecycle rules are to say the same."""

GRACE = timedelta(days=14)
"""What a superseded restore point has left of its time, at least; else it gets no tier."""

OTHERS = 2
"""Pruning leaves this many restore points beside the newest."""

SILENCE = timedelta(days=14)
"""A gap in the history, after which a clock must prove itself: has the app slept, or is the clock wrong?"""

PROOF = timedelta(days=1)
"""For how long the history must go on after such a gap before anything is pruned."""


def tier_of(superseded: Timestamp, successor: Timestamp) -> Tier | None:
    """The tier of a restore point whose next newer one is `successor`: the last one of each UTC day, of each hour, others.

    None for one that was the newest for so long that its tier's rule would expire it almost at once: what an app that
    wakes up after months publishes must not take with it the only restore point from before.
    """
    if _day(superseded) != _day(successor):
        newest_for = successor.instant - superseded.instant
        return Tier.DAILY if newest_for <= KEEP[Tier.DAILY] - GRACE else None
    return Tier.RECENT if _hour(superseded) == _hour(successor) else Tier.HOURLY


@dataclass(frozen=True, slots=True)
class Tagged:
    """A restore point in the store, and its tier: None without a tag, or with one that is not ours."""

    key: str
    timestamp: Timestamp
    tier: Tier | None


def plan_prune(points: Sequence[Tagged], now: datetime) -> list[str]:
    """Keys of the restore points of one database that have expired, oldest first, by the store's clock.

    Never the newest one, a held one, or one without a tier; never so many that fewer than `OTHERS` remain beside the
    newest. None at all while the clock cannot be trusted: it is behind the newest, or has leapt ahead since.
    """
    ordered = sorted(points, key=lambda point: point.timestamp)
    if not ordered or not _trusted([point.timestamp.instant for point in ordered], now):
        return []
    others = ordered[:-1]
    expired = [point for point in others if _expired(point, now)]
    return [point.key for point in expired[: max(0, len(others) - OTHERS)]]


def _expired(point: Tagged, now: datetime) -> bool:
    return point.tier in KEEP and now - point.timestamp.instant > KEEP[point.tier]


def _trusted(history: list[datetime], now: datetime) -> bool:
    """Whether `now` follows from the history, oldest first: no step back, and no leap that is not a day in the past."""
    if now < history[-1]:
        return False
    leaps = [after for before, after in pairwise([*history, now]) if after - before > SILENCE]
    return not leaps or now - leaps[-1] >= PROOF


def _day(timestamp: Timestamp) -> str:
    return timestamp.text[:8]


def _hour(timestamp: Timestamp) -> str:
    return timestamp.text[:11]
