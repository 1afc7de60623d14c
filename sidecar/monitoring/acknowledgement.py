"""Acknowledges open incidents in the store, so that every machine that shows them takes them off its page."""

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from sidecar.errors import PreconditionFailed, StoreUnavailable, UsageError
from sidecar.monitoring.incident_store import ATTEMPTS, Acknowledgement, read_open, write_incidents
from sidecar.repository import Catalog
from sidecar.status import LOOK_FOR, STORED, Kind, Problem

NOTE_LENGTH = 500
KINDS = tuple(sorted(STORED))


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The incidents that were just acknowledged, and those that are still open, oldest first for each database."""

    acknowledged: tuple[Problem, ...]
    open: tuple[Problem, ...]


def require_kind(kind: str) -> tuple[Kind, ...]:
    """The kind of incident with this name. Raises `UsageError` if there is none."""
    if kind not in KINDS:
        raise UsageError(f"{kind} is not a kind of incident", f"the kinds are {', '.join(KINDS)}")
    return (Kind(kind),)


async def acknowledge_all(
    catalog: Catalog, databases: Sequence[str], kinds: Container[Kind], note: str, now: datetime
) -> Acknowledged:
    """Acknowledge the open incidents of these databases, see `acknowledge`."""
    done = [await acknowledge(catalog, each, kinds, note, now) for each in databases]
    return Acknowledged(
        tuple(incident for each in done for incident in each.acknowledged),
        tuple(incident for each in done for incident in each.open),
    )


async def acknowledge(
    catalog: Catalog, database: str, kinds: Container[Kind], note: str, now: datetime
) -> Acknowledged:
    """Acknowledge the open incidents of these kinds, and store `note` with them.

    Only incidents that the first read returns are acknowledged: one that arises meanwhile stays open. `now` is the time by
    this machine's clock. An incident with a later time is acknowledged at that time, because the reporting machine's clock
    decides whether it has happened again. Raises what the store raises, such as `AccessDenied` if these credentials may not
    write.
    """
    seen: dict[tuple[Kind, str, str], datetime] | None = None
    for _ in range(ATTEMPTS):
        stored, found = await read_open(catalog, database, now, ahead=LOOK_FOR)
        if seen is None:
            seen = {each.identity: each.at for each in found if each.kind in kinds}
        chosen = tuple(each for each in found if each.identity in seen and each.at <= seen[each.identity])
        rest = tuple(each for each in found if each not in chosen)
        if not chosen:
            return Acknowledged((), rest)
        at = max(await catalog.lease_store.now(), *(each.at for each in chosen))
        added = tuple(Acknowledgement.of(each, at, note[:NOTE_LENGTH]) for each in chosen)
        left = tuple(each for each in stored.incidents if each not in chosen)
        try:
            new = replace(stored, incidents=left, acknowledged=(*stored.acknowledged, *added))
            await write_incidents(catalog.lease_store, database, new)
        except PreconditionFailed:  # a daemon has stored something meanwhile
            continue
        return Acknowledged(chosen, rest)
    raise StoreUnavailable(f"the open incidents of {database} changed at each attempt", "try again")
