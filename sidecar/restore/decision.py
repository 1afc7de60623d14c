"""The boot table: the decision that follows from the state of the local database and of the store. Pure."""

from enum import Enum

from sidecar.database import Marker
from sidecar.policies import OnConflict, OnEmptyStore


class Tail(Enum):
    """What the streams have after the newest restore point, compared with a local database that descends from it."""

    INCLUDED = "nothing that the local database lacks"
    UNPROVED = "commits of its own streams, and it may have lost the last of them"
    FOREIGN = "commits of another machine, which continued from there"


class Decision(Enum):
    """What a boot does with one database."""

    START_EMPTY = "start empty"
    NOTHING_TO_RESTORE = "fail: nothing to restore"
    PUBLISH_LOCAL = "keep local, publish at once"
    RESTORE = "restore"
    KEEP_LOCAL = "keep local"
    COMPARE = "keep local if it has all that was streamed"
    CONFLICT_REMOTE = "move local aside, restore"
    CONFLICT_LOCAL = "keep local against the newest restore point, publish at once"
    CONFLICT_FAIL = "fail: conflict"


def decide(
    newest: str | None,
    *,
    local: bool,
    marker: Marker | None,
    on_empty: OnEmptyStore,
    on_conflict: OnConflict,
    tail: Tail = Tail.INCLUDED,
) -> Decision:
    """The boot table.

    `newest` is the key of the newest restore point, `local` whether there is a database file of more than zero bytes,
    `marker` the lineage marker of that file. `tail` is what the streams have after that restore point, if the file
    descends from it.
    """
    if newest is None:
        if local:
            return Decision.PUBLISH_LOCAL
        return Decision.START_EMPTY if on_empty is OnEmptyStore.START else Decision.NOTHING_TO_RESTORE
    if not local:
        return Decision.RESTORE
    if marker is not None and marker.names(newest) and tail is not Tail.FOREIGN:
        return Decision.KEEP_LOCAL if tail is Tail.INCLUDED else Decision.COMPARE
    return conflict(on_conflict)


def conflict(policy: OnConflict) -> Decision:
    """The decision if the local database and the store have diverged."""
    return {
        OnConflict.REMOTE: Decision.CONFLICT_REMOTE,
        OnConflict.LOCAL: Decision.CONFLICT_LOCAL,
        OnConflict.FAIL: Decision.CONFLICT_FAIL,
    }[policy]
