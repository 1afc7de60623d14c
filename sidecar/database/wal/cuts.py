"""The reasons why a database is not followed, or no longer followed."""

from enum import StrEnum


class CutCause(StrEnum):
    """The causes of cuts, as they appear in metrics."""

    REPLACED = "replaced"  # the database, its log or its shared memory is another file, or was written past the log
    RESET = "reset"  # the log was reset, or lost its end, while it was not followed
    RECOVERED = "recovered"  # SQLite recovered the log and changed what had been committed
    MISMATCH = "mismatch"  # the frames contradict the wal-index
    BACKLOG = "backlog"  # more changes than memory may hold
    MODE = "mode"  # no longer in WAL mode
    EXCLUSIVE = "exclusive"  # a program has locked the database exclusively
    UNREADABLE = "unreadable"  # the wal-index cannot be read
    ERROR = "error"  # SQLite or the system failed
    DAMAGED = "damaged"  # a drill found that segments in the store are damaged or missing
    REFUSED = "refused"  # the store refuses what it needs, for lack of a permission, say
    STOPPED = "stopped"  # it was asked to end


class StreamCut(Exception):
    """It cannot be proved that every commit was captured, so a new stream must start, from a complete copy."""

    def __init__(self, cause: CutCause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class NotStreamable(Exception):
    """A database that cannot be followed as it is. `reason` is a sentence for people."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
