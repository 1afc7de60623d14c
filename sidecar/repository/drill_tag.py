"""Drill tags: the outcome of a drill is kept as a tag of the restore point itself.

`list` shows it, and a machine that boots again knows when the last drill was. Expiry needs the permission to tag anyway.
"""

import re
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from sidecar.concurrency import gathered
from sidecar.errors import AccessDenied, ConfigurationError
from sidecar.model import RestorePoint, Timestamp
from sidecar.repository.catalog import Catalog
from sidecar.repository.keys import key_of

DRILL_TAG = "sidecar-drill"
LOOKED_BACK = 300  # restore points
LONGEST_LOOK = timedelta(days=7)
AT_ONCE = 4
_TAG = re.compile(r"(good|damaged)@(.*)")


class DrillOutcome(StrEnum):
    """How a drill ended. `FAILED` means that the drill could not tell whether the restore point is good."""

    GOOD = "good"
    DAMAGED = "damaged"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Drilled:
    """The drill tag of a restore point: how its last drill ended, and when, by the store's clock."""

    outcome: DrillOutcome
    at: Timestamp

    def __str__(self) -> str:
        return f"{self.outcome}@{self.at}"


def drilled_of(tags: dict[str, str]) -> Drilled | None:
    """The drill tag among these tags; None if the restore point was never drilled."""
    match = _TAG.fullmatch(tags.get(DRILL_TAG, ""))
    try:
        return Drilled(DrillOutcome(match[1]), Timestamp(match[2])) if match else None
    except ValueError:
        return None


async def last_drill(
    catalog: Catalog, newest: RestorePoint, interval: timedelta
) -> tuple[RestorePoint, Drilled] | None:
    """The last drill by any machine among the restore points of the last interval. None if tags cannot be read."""
    after = Timestamp.of(newest.timestamp.instant - min(interval, LONGEST_LOOK))
    points = (await catalog.since(newest.database, key_of(newest.database, after)))[-LOOKED_BACK:]

    async def read(point: RestorePoint) -> tuple[RestorePoint, Drilled | None]:
        return point, drilled_of(await catalog.store.tags(point.key))

    try:
        tagged = await gathered(points, read, at_once=AT_ONCE)
    except (AccessDenied, ConfigurationError):
        return None
    found = [(point, drilled) for point, drilled in tagged if drilled]
    return max(found, key=lambda each: each[1].at, default=None)
