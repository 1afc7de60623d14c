"""Whether a local database, which descends from the newest restore point, has all that the streams have after it. Pure."""

from collections.abc import Sequence
from enum import Enum

from sidecar.database import Marker
from sidecar.model import Position
from sidecar.repository.history import Leg, Path


class Tail(Enum):
    """What the streams have after the newest restore point, seen from a local database that descends from it."""

    INCLUDED = "nothing that the local database has not"
    UNPROVED = "commits of its own streams, and it may have lost the last of them"
    FOREIGN = "commits that another machine has continued with"


def tail_of(history: Path, marker: Marker, *, proved: bool) -> Tail:
    """Compare the history from the newest restore point on with what the marker says of the local database.

    `proved`: the local database certainly has whatever was captured of it.
    """
    beyond = _beyond(history.legs, marker.restored_to)
    if not beyond:
        return Tail.INCLUDED
    if any(leg.stream.name not in marker.streams for leg in beyond):
        return Tail.FOREIGN
    return Tail.INCLUDED if proved else Tail.UNPROVED


def _beyond(legs: Sequence[Leg], restored_to: Position | None) -> Sequence[Leg]:
    """The legs that were not applied when the database was restored."""
    if restored_to is None:
        return legs
    for number, leg in enumerate(legs):
        if leg.stream.name == restored_to.stream:
            return legs[number + 1 :] if leg.upto <= restored_to.commit else legs[number:]
    return legs
