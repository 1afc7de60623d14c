"""Ninety days of a busy app in a store whose clock runs fast: what each way of expiring leaves at the end of each day. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from sidecar.model import Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.retention import EXPIRING, Tagged, derive, lifetime, plan_prune, tier_of

DAY = timedelta(days=1)


def take_expired(points: Sequence[Tagged], now: datetime, keep: RetentionDays) -> list[Tagged]:
    """What rules of a bucket leave: they count whole days, up to the next midnight UTC, and know nothing of the newest.

    https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html
    """
    return [each for each in points if not (each.tier in EXPIRING and _due(each, keep) <= now)]


def _due(point: Tagged, keep: RetentionDays) -> datetime:
    assert point.tier is not None
    due = point.timestamp.instant + lifetime(point.tier, keep)
    midnight = due.replace(hour=0, minute=0, second=0, microsecond=0)
    return due if due == midnight else midnight + DAY


@dataclass(slots=True)
class Stores:
    """The same restore points in a bucket with rules, in a store with tags and in one without, both pruned once a day."""

    keep: RetentionDays
    rules: list[Tagged] = field(default_factory=list)
    tags: list[Tagged] = field(default_factory=list)
    names: list[Timestamp] = field(default_factory=list)
    held: set[str] = field(default_factory=set)

    def publish(self, at: datetime) -> None:
        """A restore point, which supersedes the newest one."""
        stamp = Timestamp.of(at)
        for points in (self.rules, self.tags):
            if points:
                newest = points[-1]
                tier = None if newest.key in self.held else tier_of(newest.timestamp, stamp, self.keep)
                points[-1] = Tagged(newest.key, newest.timestamp, tier)
            points.append(Tagged(str(stamp), stamp, None))
        self.names.append(stamp)

    def hold_newest(self) -> str:
        """A suspicious snapshot comes next: what it supersedes is held."""
        self.held.add(str(self.names[-1]))
        return str(self.names[-1])

    def expire(self, now: datetime) -> None:
        """What is done once a day."""
        self.rules = take_expired(self.rules, now, self.keep)
        gone = set(plan_prune(self.tags, now, self.keep))
        self.tags = [each for each in self.tags if each.key not in gone]
        tiers = derive(self.names, self.keep)
        named = [
            Tagged(str(one), one, None if str(one) in self.held else tier)
            for one, tier in zip(self.names, tiers, strict=True)
        ]
        gone = set(plan_prune(named, now, self.keep))
        self.names = [each for each in self.names if str(each) not in gone]


def live(days: int, interval: timedelta, keep: RetentionDays, start: datetime) -> Iterator[tuple[datetime, Stores]]:
    """The stores at the end of each day, after what expires has expired; one restore point a month is held."""
    stores, now = Stores(keep), start
    for day in range(1, days + 1):
        while now < start + day * DAY:
            stores.publish(now)
            now += interval
        if day % 30 == 10:
            stores.hold_newest()
        stores.expire(start + day * DAY)
        yield now, stores
