"""The boot table: which decision follows from the state of the local database and of the store. Pure."""

from enum import Enum

from sidecar.database import Marker
from sidecar.policies import OnConflict, OnEmptyStore


class Decision(Enum):
    """What a boot does with one database."""

    START_EMPTY = "start empty"
    NOTHING_TO_RESTORE = "fail: nothing to restore"
    PUBLISH_LOCAL = "keep local, publish at once"
    RESTORE = "restore"
    KEEP_LOCAL = "keep local"
    CONFLICT_REMOTE = "move local aside, restore"
    CONFLICT_LOCAL = "keep local against the newest restore point, publish at once"
    CONFLICT_FAIL = "fail: conflict"


def decide(
    newest: str | None, *, local: bool, marker: Marker | None, on_empty: OnEmptyStore, on_conflict: OnConflict
) -> Decision:
    """The boot table.

    `newest` is the key of the newest restore point, `local` whether there is a database file of more than zero bytes,
    `marker` the lineage marker that speaks of that file.
    """
    if newest is None:
        if local:
            return Decision.PUBLISH_LOCAL
        return Decision.START_EMPTY if on_empty is OnEmptyStore.START else Decision.NOTHING_TO_RESTORE
    if not local:
        return Decision.RESTORE
    if marker is not None and marker.names(newest):
        return Decision.KEEP_LOCAL
    return {
        OnConflict.REMOTE: Decision.CONFLICT_REMOTE,
        OnConflict.LOCAL: Decision.CONFLICT_LOCAL,
        OnConflict.FAIL: Decision.CONFLICT_FAIL,
    }[on_conflict]
