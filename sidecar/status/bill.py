"""What keeping and publishing restore points costs once the history is full. Pure; an estimate at the prices of `cost`.

Every restore point is a whole object, whatever it reused: the store copies bytes, and keeps the copies.
"""

from dataclasses import dataclass

from sidecar.policies import Expires, RetentionDays
from sidecar.status.cost import GB, MONTH, PRICES, Prices
from sidecar.status.model import Status

DAY = 24 * 3600.0
HOURS = 24
SMALL = 5 << 20  # bytes; an object up to this size is one PUT
OVERHEAD = 3  # writes beside it: a LIST before, the lease after, the tag of the restore point before
PLACED_WRITES, PLACED_READS = 3, 13  # and that: a copy to a slot, two LIST; HEADs
SLOTS = 2
MULTIPART = 4  # begin, complete, and the parts that the store copies


@dataclass(frozen=True, slots=True)
class Load:
    """How an app is backed up. Sizes in bytes: of a restore point, and of what is uploaded of each.

    A restore point is published every `interval` seconds; `segments` and `streamed` are those of a day, and their bytes.
    """

    size: int
    uploaded: int
    interval: float
    segments: float = 0.0
    streamed: float = 0.0
    part_size: int = 8 << 20


@dataclass(frozen=True, slots=True)
class Bill:
    """US dollars per month with a full history; `objects` restore points are kept, `stored` bytes with their segments."""

    requests: float
    storage: float
    egress: float
    objects: int
    stored: int

    @property
    def total(self) -> float:
        """Everything but starts and drills."""
        return self.requests + self.storage + self.egress


def kept_at_most(keep: RetentionDays, interval: float) -> int:
    """How many restore points a database has whose app writes all day, once the oldest have expired.

    >>> kept_at_most(RetentionDays(recent=2, hourly=14, daily=90, stream=35), 300)
    941
    >>> kept_at_most(RetentionDays(), 300)
    461
    """
    day = DAY / interval
    last_of_hour = min(day, HOURS)
    last_of_day = min(day, 1.0)
    kept = (day - last_of_hour) * keep.recent + (last_of_hour - last_of_day) * keep.hourly + last_of_day * keep.daily
    return round(kept) + 1


def full_bill(load: Load, keep: RetentionDays, prices: Prices = PRICES, *, placed: bool = False) -> Bill:
    """The bill of a month in which the app writes all the time.

    `placed`: tiers are copies, for rules by prefix. So the last ones of hours are there twice while they are recent.
    """
    objects, copied = kept_at_most(keep, load.interval), min(DAY / load.interval, HOURS) if placed else 0.0
    stored = (objects + copied * keep.recent + SLOTS * placed) * load.size + load.streamed * keep.stream
    published, days = MONTH / load.interval, MONTH / DAY
    parts = 1 if load.size <= SMALL else MULTIPART + -(-load.uploaded // load.part_size)
    writes = published * (parts + OVERHEAD + PLACED_WRITES * placed) + (load.segments + copied) * days
    sent = published * load.uploaded + load.streamed * days
    return Bill(
        requests=writes * prices.write + published * (1 + PLACED_READS * placed) * prices.read,
        storage=stored / GB * prices.stored,
        egress=sent / GB * prices.sent,
        objects=objects,
        stored=round(stored),
    )


def noncurrent_day(load: Load, prices: Prices = PRICES) -> float:
    """US dollars per month for each day that a versioned bucket keeps what was deleted: what is published in a day."""
    return (DAY / load.interval * load.size + load.streamed) / GB * prices.stored


def monthly_growth(load: Load, prices: Prices = PRICES) -> float:
    """US dollars by which the bill of a month exceeds that of the month before, where nothing is ever deleted."""
    return noncurrent_day(load, prices) * MONTH / DAY


def bill_of(status: Status) -> Bill | None:
    """The bill of a month with a full history, as all databases are backed up now; None before their first restore points."""
    known = [each for each in status.databases.values() if each.restore_point_size]
    if not status.billable or not known or not status.interval:
        return None
    stream, days = status.stream_cost(), MONTH / DAY
    size = sum(each.restore_point_size for each in known)
    uploaded = sum(each.history[-1].uploaded for each in known if each.history)
    segments, streamed = (stream.segments / days, stream.sent / days) if stream else (0.0, 0.0)
    load = Load(size, uploaded, status.interval.total_seconds(), segments, streamed)
    return full_bill(load, status.keep, placed=status.expires is Expires.PREFIXES)
