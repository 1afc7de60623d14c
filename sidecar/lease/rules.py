"""Decides who may take the lease and what its next record is, from the last record and the store's clock. Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from sidecar.lease.record import RESOLUTION, Record, StoredLease, StreamRecord
from sidecar.model import IfAbsent, IfMatch

LONGEST_MARGIN = timedelta(seconds=2)
RETIRED_KEPT = 100


@dataclass(frozen=True, slots=True)
class Identity:
    """Who we are: the machine, the process on it, and the ttl of the leases that we write.

    `returning`: a holder with our name can only be an earlier run of ours. A command beside a daemon cannot assume that.
    `store` is that of `Record`.
    """

    holder: str
    boot: str
    ttl: timedelta
    returning: bool = True
    store: str = ""

    @property
    def valid_for(self) -> timedelta:
        """How long we may publish after a renewal: the ttl less a margin, so that two machines' terms are disjoint."""
        return self.ttl - min(LONGEST_MARGIN, self.ttl / 4)


@dataclass(frozen=True, slots=True)
class Take:
    """The lease may be taken: write this record under this condition."""

    record: Record
    condition: IfAbsent | IfMatch


@dataclass(frozen=True, slots=True)
class Wait:
    """Another machine has the lease, for at most `remaining` unless it renews it."""

    holder: str
    remaining: timedelta


def judge(stored: StoredLease | None, me: Identity, known: int = 0) -> Take | Wait:
    """Decide whether the lease may be taken now. The epoch rises with each acquisition and is never reset.

    `known` is the highest epoch of the restore points, used if the lease object is missing, as it may have been deleted.
    A lease that was handed over is reserved for the requesting machine for one ttl. A last holder that comes back
    meanwhile does not take it again.
    """
    ttl = me.ttl.total_seconds()
    if stored is None:
        return Take(Record(known + 1, me.holder, me.boot, ttl, store=me.store), IfAbsent())
    record = stored.record
    mine = record.holder == me.holder and me.returning
    promised = record.handoff if record.released else None
    remaining = timedelta(seconds=record.ttl - record.aged) + RESOLUTION - stored.age
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
            streams=record.streams,
            handoff=asked if mine else None,
            retired=tuple(name for name in record.retired if name != me.holder),
            unfinished=record.holder if record.running and not record.released else record.unfinished,
            store=me.store,
            pair=record.pair,
        ),
        IfMatch(stored.etag),
    )


def may_ask(record: Record, holder: str) -> bool:
    """Whether a waiting machine may request a handoff: no other machine has, and it has not handed the lease over itself."""
    return record.handoff is None and not record.released and holder not in record.retired


def renewed(
    record: Record, latest: Mapping[str, str], streams: Mapping[str, StreamRecord], *, acknowledged: bool
) -> Record:
    """The record of a renewal. `acknowledged` clears the machine that did not release its lease."""
    unfinished = None if acknowledged else record.unfinished
    return replace(record, latest=dict(latest), streams=dict(streams), aged=0.0, unfinished=unfinished)


def started_from(record: Record, databases: Iterable[str], *, running: bool) -> Record:
    """The record of a holder that has started from the latest restore points of these databases."""
    settled = {**record.settled, **dict.fromkeys(databases, record.epoch)}
    return replace(record, settled=settled, running=record.running or running)


def released(record: Record, *, handing_over: bool) -> Record:
    """The tombstone of a released lease. With `handing_over`, only the requesting machine may take it for one ttl."""
    if not handing_over:
        return replace(record, released=True, running=False, handoff=None)
    return replace(record, released=True, running=False, retired=retired_with(record, record.holder))


def adopted(found: Record, ours: Record) -> Record:
    """The record to continue with after another machine wrote its request into ours.

    An older version that requests a handoff drops the fields that it does not know.
    """
    return replace(
        found, running=ours.running, unfinished=ours.unfinished, streams=ours.streams, store=ours.store, pair=ours.pair
    )


def retired_with(record: Record, holder: str) -> tuple[str, ...]:
    """The machines that have handed over, including this one; the oldest are dropped."""
    return (*(name for name in record.retired if name != holder), holder)[-RETIRED_KEPT:]
