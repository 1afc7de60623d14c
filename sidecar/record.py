"""The lease object, `lease.json`: what is in it, and the pure rule of who may take it.

Its age is judged by the store's clock alone, `Date` minus `Last-Modified`; no machine's own clock decides anything.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta

from sidecar.domain import Condition, IfAbsent, IfMatch
from sidecar.errors import DamagedLease, NotFound
from sidecar.ports import ObjectStore

KEY = "lease.json"
FORMAT = 1
RESOLUTION = timedelta(seconds=1)  # of the Date and Last-Modified headers
RETIRED_KEPT = 100
LONGEST = 1e8  # seconds, three years


@dataclass(frozen=True, slots=True)
class Record:
    """The content of the lease object.

    `boot` names the process, so that a predecessor on the same machine is told from ourselves. `ttl` is in seconds.
    `latest` has the newest key of each database, and `settled` the epoch of the last holder that began from there: what
    a holder of an earlier epoch publishes after that is none of the main line. `handoff` is the machine that asks to take over, `aged` the
    seconds without a renewal when it wrote that, which must not make the lease look fresh. `retired` are machines that
    have handed over and never ask back.
    """

    epoch: int
    holder: str
    boot: str
    ttl: float
    released: bool = False
    latest: Mapping[str, str] = field(default_factory=dict)
    settled: Mapping[str, int] = field(default_factory=dict)
    handoff: str | None = None
    aged: float = 0.0
    retired: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """JSON, readable by people."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as it was read: its version, and its age by the store's clock."""

    record: Record
    etag: str
    age: timedelta


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are: the machine, this process of it, and the ttl of the leases we write.

    `returning` says that a holder of our name can only be our own past. A command beside a daemon does not know that.
    """

    holder: str
    boot: str
    ttl: timedelta
    returning: bool = True


@dataclass(frozen=True, slots=True)
class Take:
    """Write this record, under this condition."""

    record: Record
    condition: Condition


@dataclass(frozen=True, slots=True)
class Wait:
    """Somebody else has it; for how long at most, if it is not renewed."""

    holder: str
    remaining: timedelta


def judge(seen: Seen | None, me: Identity, known: int = 0) -> Take | Wait:
    """Whether the lease may be taken now. The epoch rises with each taking and is never reset.

    `known` is the highest epoch of restore points, for a lease object that is not there: it may have been deleted.
    A lease that was handed over waits for the machine it was promised to, for a ttl: its last holder, should it come
    back meanwhile, does not take it again.
    """
    ttl = me.ttl.total_seconds()
    if seen is None:
        return Take(Record(known + 1, me.holder, me.boot, ttl), IfAbsent())
    record = seen.record
    mine = record.holder == me.holder and me.returning
    promised = record.handoff if record.released else None
    remaining = timedelta(seconds=record.ttl - record.aged) + RESOLUTION - seen.age
    free = promised == me.holder if promised else record.released or mine
    if not free and remaining > timedelta(0):
        return Wait(promised or record.holder, remaining)
    asked = record.handoff if record.handoff != me.holder and not record.released else None
    return Take(
        Record(
            record.epoch + 1,
            me.holder,
            me.boot,
            ttl,
            latest=record.latest,
            settled=record.settled,
            handoff=asked if mine else None,
            retired=tuple(name for name in record.retired if name != me.holder),
        ),
        IfMatch(seen.etag),
    )


def may_ask(record: Record, holder: str) -> bool:
    """Whether a waiting machine may ask for the lease: nobody else has, and it has not handed it over itself."""
    return record.handoff is None and not record.released and holder not in record.retired


def retired_with(record: Record, holder: str) -> tuple[str, ...]:
    """The machines that have handed over, with this one; the oldest are forgotten."""
    return (*(name for name in record.retired if name != holder), holder)[-RETIRED_KEPT:]


def parse(data: bytes | bytearray, url: str) -> Record:
    """Read a lease object. Raises `DamagedLease`: guessing would reset the epoch."""
    try:
        values = json.loads(data)
        known = {each.name: values[each.name] for each in fields(Record) if each.name in values}
        record = Record(**{**known, "retired": tuple(known.get("retired", ()))})
        _require_sound(values["format"], record)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedLease(
            f"{url}/{KEY} is no lease of this version of sidecar: {error!r}",
            "was it written by a newer version, or by hand? Keep its epoch when you mend it",
        ) from error
    return record


async def read(store: ObjectStore) -> Seen | None:
    """The lease object, or None when there is none. Raises `DamagedLease`."""
    try:
        blob = await store.get(KEY)
    except NotFound:
        return None
    now = await store.now()
    record = parse(bytes(blob.data), store.url)
    return Seen(record, blob.info.etag, max(timedelta(0), now - blob.info.last_modified))


def _require_sound(version: object, record: Record) -> None:
    if version != FORMAT:
        raise ValueError(f"its format is {version!r}")
    texts = [record.holder, record.boot, *record.retired, record.handoff or "", *record.settled]
    texts += [*record.latest, *record.latest.values()]
    epochs = [record.epoch, *record.settled.values()]
    seconds = [record.ttl, record.aged]
    if not all(isinstance(text, str) for text in texts) or not isinstance(record.released, bool):
        raise TypeError("a field is of another type")
    if not all(isinstance(number, int | float) and 0 <= number < LONGEST for number in seconds) or not record.ttl:
        raise ValueError("a time is out of its range")
    if not all(isinstance(number, int) and 0 <= number < 1 << 62 for number in epochs) or not record.epoch:
        raise ValueError(f"an epoch is none: {epochs}")
