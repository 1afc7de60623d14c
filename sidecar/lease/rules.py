"""Who may take the lease, decided from the lease record and the store's clock. Pure."""

from dataclasses import dataclass
from datetime import timedelta

from sidecar.lease.record import RESOLUTION, RETIRED_KEPT, Record, Seen
from sidecar.model import Condition, IfAbsent, IfMatch


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
            unfinished=record.holder if record.running and not record.released else record.unfinished,
        ),
        IfMatch(seen.etag),
    )


def may_ask(record: Record, holder: str) -> bool:
    """Whether a waiting machine may ask for the lease: nobody else has, and it has not handed it over itself."""
    return record.handoff is None and not record.released and holder not in record.retired


def retired_with(record: Record, holder: str) -> tuple[str, ...]:
    """The machines that have handed over, with this one; the oldest are forgotten."""
    return (*(name for name in record.retired if name != holder), holder)[-RETIRED_KEPT:]
