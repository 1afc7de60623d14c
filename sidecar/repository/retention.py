"""Which restore points may expire, and when. Pure: names and instants in, decisions out.

When a restore point is superseded it gets a tier, as the tag `sidecar-tier`, and rules on that tag expire it: the
bucket's lifecycle rules on S3, `plan_prune` for a directory. An object without the tag never expires. The newest restore
point has none, because lifecycle rules go by an object's own age and cannot keep the newest one
(https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html), and an app may sleep for a year.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import pairwise
from math import inf

from sidecar.model import Position, Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.history import SegmentInfo

TIER_TAG = "sidecar-tier"


class Tier(StrEnum):
    """The values of the tag. Nothing expires `HELD`."""

    RECENT = "recent"
    HOURLY = "hourly"
    DAILY = "daily"
    HELD = "held"
    STREAM = "stream"  # for segments, which get it when they are written


EXPIRING = frozenset({Tier.RECENT, Tier.HOURLY, Tier.DAILY, Tier.STREAM})

GRACE = timedelta(days=14)
"""A superseded restore point gets a tier only if that leaves it at least this long, or half of the tier's days if those are
fewer: it holds all that was published while it was the newest, and somebody must have the time to want it back."""

SPARED = 2
"""Pruning keeps this many restore points in addition to the newest one."""

SILENCE = timedelta(days=14)
"""After a gap this long in the history, or as long as the hourly tier if that is shorter, the clock is not trusted at first:
the app may have slept, or the clock is wrong. A smaller jump leaves hourly and daily restore points at least."""

PROOF = timedelta(days=1)
"""How long the history must continue after such a gap before the clock is trusted and anything is pruned."""


def lifetime(tier: Tier, keep: RetentionDays) -> timedelta:
    """The age at which objects of this tier expire; the bucket's lifecycle rules must match. Not for `HELD`."""
    return timedelta(days=getattr(keep, tier))


def tier_of(superseded: Timestamp, successor: Timestamp, keep: RetentionDays) -> Tier | None:
    """The tier of a restore point that `successor` superseded.

    It is daily for the last one of a UTC day, hourly for the last one of an hour, else recent. Rules count the age of an
    object from its creation, not from when it was superseded: one that was the newest for so long that its tier would leave
    it less than the grace gets the next longer tier, and None if none leaves that much. When an app wakes up after months,
    its first publish must not expire the only earlier restore point.

    The successor counts by the beginning of its day, or its hour. So any later restore point of that period gives the same
    tier, and a store without tags, in which the successor itself may have expired, still shows it.
    """
    if _day(superseded) != _day(successor):
        natural, since = Tier.DAILY, successor.instant.replace(hour=0, minute=0, second=0, microsecond=0)
    elif _hour(superseded) != _hour(successor):
        natural, since = Tier.HOURLY, successor.instant.replace(minute=0, second=0, microsecond=0)
    else:
        return Tier.RECENT
    newest_for = since - superseded.instant
    for tier in (Tier.HOURLY, Tier.DAILY)[natural is Tier.DAILY :]:
        life = lifetime(tier, keep)
        if newest_for <= life - min(GRACE, life / 2):
            return tier
    return None


@dataclass(frozen=True, slots=True)
class Tagged:
    """A restore point in the store with its tier; None if it has no tag, or one that is not ours."""

    key: str
    timestamp: Timestamp
    tier: Tier | None


def plan_prune(points: Sequence[Tagged], now: datetime, keep: RetentionDays) -> list[str]:
    """Keys of the restore points of one database that have expired, oldest first, by the store's clock.

    The newest one, held ones and those without a tier never expire, and `SPARED` others are always kept. Nothing expires
    while the clock cannot be trusted: it is behind the newest restore point, or has jumped ahead.
    """
    ordered = sorted(points, key=lambda point: point.timestamp)
    if not trusts([point.timestamp for point in ordered], now, keep):
        return []
    others = ordered[:-1]
    expired = [point for point in others if _expired(point, now, keep)]
    return [point.key for point in expired[: max(0, len(others) - SPARED)]]


@dataclass(frozen=True, slots=True)
class NewestKnown:
    """When the newest restore point was published, and its position in a stream, if it names one."""

    timestamp: Timestamp
    position: Position | None


def derive(points: Sequence[Timestamp], keep: RetentionDays) -> list[Tier | None]:
    """The tiers of restore points of the main line, oldest first, in a store without tags: as tags would have them.

    Only those that are left are needed: the last one of a day or an hour stays longer than what it superseded.
    """
    return [*(tier_of(older, newer, keep) for older, newer in pairwise(points)), *([None] if points else [])]


def trusts(points: Sequence[Timestamp], now: datetime, keep: RetentionDays) -> bool:
    """Whether the store's clock is plausible given these restore points, so that ages can be computed from it."""
    return bool(points) and not distrust(points, now, keep)


def distrust(points: Sequence[Timestamp], now: datetime, keep: RetentionDays) -> str:
    """Why the store's clock is not trusted given these restore points: a step back, or a jump within the last day."""
    history = sorted(point.instant for point in points)
    if history and now < history[-1]:
        return f"the store's clock, {now:%Y-%m-%d %H:%M} UTC, is behind the newest restore point"
    silence = min(SILENCE, lifetime(Tier.HOURLY, keep))
    jumps = [after for before, after in pairwise([*history, now]) if after - before > silence]
    if jumps and now - jumps[-1] < PROOF:
        return (
            f"nothing was published for {silence.days} days before {jumps[-1]:%Y-%m-%d %H:%M} UTC: the store's clock counts "
            "again once restore points have been published for a day"
        )
    return ""


def is_expired(segment: SegmentInfo, stream: str, newest: NewestKnown, now: datetime, keep: RetentionDays) -> bool:
    """Whether a segment is old enough to be deleted and not needed by the history of the newest restore point.

    Call it only while `trusts` is true.
    """
    if needed_from(newest, stream) <= segment.last:
        return False
    written = datetime.fromtimestamp(segment.time / 1000, UTC)
    return written < newest.timestamp.instant and now - written > lifetime(Tier.STREAM, keep)


def needed_from(newest: NewestKnown, stream: str) -> float:
    """The first commit of a stream that the history of the newest restore point may need; infinite if it needs none.

    It needs what follows the restore point in its own stream, and every later stream entirely.
    """
    position = newest.position
    if position and position.stream == stream:
        return position.commit + 1
    return 1 if stream > (position.stream if position else newest.timestamp.text) else inf


def _expired(point: Tagged, now: datetime, keep: RetentionDays) -> bool:
    if point.tier is None or point.tier not in EXPIRING:
        return False
    return now - point.timestamp.instant > lifetime(point.tier, keep)


def _day(timestamp: Timestamp) -> str:
    return timestamp.text[:8]


def _hour(timestamp: Timestamp) -> str:
    return timestamp.text[:11]
