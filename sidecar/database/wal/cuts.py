"""Why a database is not followed, or not any more."""

from enum import StrEnum


class CutCause(StrEnum):
    """The causes of cuts, as they stand in metrics."""

    REPLACED = "replaced"  # the database, its log or its shared memory is another file, or was written past the log
    RESET = "reset"  # the log was reset, or lost its end, while nobody followed it
    RECOVERED = "recovered"  # SQLite recovered the log and changed what had been committed
    MISMATCH = "mismatch"  # what was found is not what the wal-index says
    BACKLOG = "backlog"  # more changes than memory may hold
    MODE = "mode"  # not in WAL mode any more, or locked exclusively
    EXCLUSIVE = "exclusive"  # a program waits to have the database for itself alone
    UNREADABLE = "unreadable"  # the wal-index cannot be read
    ERROR = "error"  # SQLite or the system failed
    DAMAGED = "damaged"  # a drill found that segments in the store are damaged or missing
    REFUSED = "refused"  # the store refuses its segments, for lack of a permission, say
    STOPPED = "stopped"  # it was asked to end


class StreamCut(Exception):
    """It cannot be proved that every commit was captured: what follows begins a new stream, from a complete copy."""

    def __init__(self, cause: CutCause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class NotStreamable(Exception):
    """A database that cannot be followed as it is. `reason` is a sentence for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
