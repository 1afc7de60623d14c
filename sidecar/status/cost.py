"""Estimates the cost of a month from measured usage. Pure; all prices are in `PRICES`.

An estimate, not a bill: list prices, without free tiers, of one store and one machine.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.policies import LONGEST_WAIT, SMALL_OBJECT

MONTH = 30 * 24 * 3600.0
SHORTEST = 3600.0
SLOWER = 5.0  # the `stream_interval` that a stream's cost is compared with, in seconds
DAY = 24 * 3600.0
GB = 1e9


@dataclass(frozen=True, slots=True)
class Prices:
    """US dollars: for one request of each class, for a GB stored for a month, and for a GB that leaves machine or store."""

    write: float
    read: float
    stored: float
    sent: float
    received: float


PRICES = Prices(
    write=0.005 / 1000,  # PUT, COPY, POST, LIST: https://aws.amazon.com/s3/pricing/, us-east-1, S3 Standard
    read=0.0004 / 1000,  # GET, HEAD and all others
    stored=0.023,
    sent=0.02,  # from a machine in North America or Europe: https://fly.io/docs/about/pricing/
    received=0.09,  # from S3 to the internet
)

WRITES = frozenset({"put", "create_upload", "put_part", "copy_part", "complete_upload", "copy", "list", "tag"})
READS = frozenset({"get", "head", "tags"})


@dataclass(frozen=True, slots=True)
class Measured:
    """Requests by operation and bytes transferred in a number of `seconds`, and the bytes that the store holds now.

    `rarely` is the time between drills, which receive most of the bytes: one in the first minutes is not a trend.
    """

    seconds: float
    requests: Mapping[str, int]
    sent: int = 0
    received: int = 0
    stored: int = 0
    rarely: float = 0.0


@dataclass(frozen=True, slots=True)
class Streamed:
    """Segments, each of one PUT, and their bytes in a number of `seconds`, with this `stream_interval` in seconds.

    Segments expire after `days`.
    """

    seconds: float
    interval: float
    segments: int
    sent: int
    days: int


@dataclass(frozen=True, slots=True)
class StreamCost:
    """US dollars per month of the segments: their PUTs, sending them, and keeping them until they expire.

    `segments` and `sent` are those of a month. `slower` is what the PUTs would cost with `stream_interval=5s`.
    """

    segments: float
    sent: float
    requests: float
    egress: float
    storage: float
    slower: float

    @property
    def total(self) -> float:
        """The cost of a month, once the oldest segments expire."""
        return self.requests + self.egress + self.storage


@dataclass(frozen=True, slots=True)
class Cost:
    """US dollars per month. `egress` is the traffic out of the machine (restore points) and the store (drills).

    `boot` is separate, in US dollars per start, because a start restores once and not every few hours.
    """

    requests: float
    storage: float
    egress: float
    boot: float = 0.0

    @property
    def total(self) -> float:
        """The cost of a month without starts."""
        return self.requests + self.storage + self.egress


def estimate(measured: Measured, boot: Measured | None = None, prices: Prices = PRICES) -> Cost:
    """Extrapolate the usage since the `boot` to a month. Less than an hour counts as an hour."""
    seconds = max(measured.seconds, SHORTEST)
    factor, received = MONTH / seconds, MONTH / max(seconds, measured.rarely)
    return Cost(
        requests=factor * _requests(measured, prices),
        storage=measured.stored / GB * prices.stored,
        egress=(factor * measured.sent * prices.sent + received * measured.received * prices.received) / GB,
        boot=_once(boot, prices) if boot else 0.0,
    )


def estimate_stream(streamed: Streamed, prices: Prices = PRICES) -> StreamCost:
    """Extrapolate what was streamed to a month, as `estimate` does.

    With a longer interval segments are as much farther apart: where an app commits once a minute, nothing changes.
    """
    seconds = max(streamed.seconds, SHORTEST)
    segments, sent = MONTH / seconds * streamed.segments, MONTH / seconds * streamed.sent
    apart = MONTH / segments + max(0.0, SLOWER - streamed.interval) if segments else MONTH
    return StreamCost(
        segments=segments,
        sent=sent,
        requests=segments * prices.write,
        egress=sent / GB * prices.sent,
        storage=sent * streamed.days * DAY / MONTH / GB * prices.stored,
        slower=MONTH / apart * prices.write if segments else 0.0,
    )


@dataclass(frozen=True, slots=True)
class Load:
    """What is known before the first month: `size` bytes of a restore point, in parts of `part` bytes; times in seconds.

    `whole`: the store copies nothing. `equal_parts`: each copy is cut, and parts around it are uploaded. `looked_up`: a
    conditional write takes a HEAD as well. `placed`: tiers are copies. None means no stream, or no lease.
    """

    size: int
    interval: float
    part: int
    stream_interval: float | None
    lease_ttl: float | None
    whole: bool = False
    equal_parts: bool = False
    looked_up: bool = False
    placed: bool = False


CHANGED = 0.1  # of a restore point, between one and the next
AROUND_PUBLISH = Measured(
    0.0, {"create_upload": 1, "complete_upload": 1, "tag": 1, "list": 1, "put": 1, "head": 3, "tags": 2}
)
PLACING = Measured(0.0, {"copy": 1, "list": 2, "head": 13})


def forecast(load: Load, *, idle: bool = False, prices: Prices = PRICES) -> Cost:
    """US dollars per month of requests and traffic, without what is stored, if the app writes all the time or never."""
    renewals = 3 * MONTH / load.lease_ttl if load.lease_ttl else 0.0
    writes = renewals * prices.write
    if idle:
        return Cost(requests=writes, storage=0.0, egress=0.0)
    publishes = MONTH / load.interval
    copies, uploaded = _parts(load)
    segments = MONTH / load.stream_interval if load.stream_interval else 0.0
    looks = (segments if load.looked_up else 0.0) * prices.read
    placing = _requests(PLACING, prices) if load.placed else 0.0
    each = _requests(AROUND_PUBLISH, prices) + placing + (copies + uploaded / load.part) * prices.write
    return Cost(
        requests=writes + looks + segments * prices.write + publishes * each,
        storage=0.0,
        egress=publishes * uploaded / GB * prices.sent,
    )


def _parts(load: Load) -> tuple[float, float]:
    """How many parts of a restore point are copied, and how many bytes are uploaded."""
    if load.whole:
        return 0.0, float(load.size)
    if not load.equal_parts:
        return 2.0, load.size * CHANGED
    uploaded = min(float(load.size), load.size * CHANGED + 2 * load.part)
    return (load.size - uploaded) / load.part, uploaded


def saved_by_need(size: int, interval: float, recent_days: int, prices: Prices = PRICES) -> float:
    """US dollars of storage in a month that `restore_points=auto` saves at most, for an app that always changes something.

    `size` is that of a restore point. With `always` there is one every `interval`, in seconds, for as long as the tier
    `recent` keeps it; with `auto` one an hour, which the tier `hourly` keeps in both cases.
    """
    if size <= SMALL_OBJECT or interval >= LONGEST_WAIT:
        return 0.0
    fewer = recent_days * DAY * (1 / interval - 1 / LONGEST_WAIT)
    return fewer * size / GB * prices.stored


def busiest(interval: float) -> float:
    """US dollars of PUTs in a month in which a segment is written every `interval` seconds."""
    return estimate_stream(Streamed(MONTH, interval, round(MONTH / interval), 0, days=1)).requests


def _once(measured: Measured, prices: Prices) -> float:
    return _requests(measured, prices) + (measured.sent * prices.sent + measured.received * prices.received) / GB


def _requests(measured: Measured, prices: Prices) -> float:
    writes = sum(count for operation, count in measured.requests.items() if operation in WRITES)
    reads = sum(count for operation, count in measured.requests.items() if operation in READS)
    return writes * prices.write + reads * prices.read
