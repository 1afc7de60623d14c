"""Every error the program raises on purpose, and the exit code each one ends in.

`SidecarError` is the root. Only the `Transient` family is ever retried. `PreconditionFailed` and `NotFound` are control
flow: the code that makes a conditional request handles them; they never reach a user.
"""

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """Exit codes, from BSD's sysexits.h where it has one for the case; 1 as `diff` has it."""

    OK = 0
    DIFFERENT = 1
    USAGE = 64
    DAMAGED = 65
    NOTHING_TO_RESTORE = 66
    STORE_MISSING = 69
    BUG = 70
    NO_ROOM = 73
    FINAL_BACKUP = 74
    TRY_AGAIN = 75
    ACCESS_DENIED = 77
    CONFIGURATION = 78
    NOT_EXECUTABLE = 126
    COMMAND_NOT_FOUND = 127


class Reason(StrEnum):
    """Why a backup failed: a label of metrics, with one value for each different remedy."""

    ACCESS_DENIED = "access_denied"
    BUG = "bug"
    BUSY = "busy"
    CONFIGURATION = "configuration"
    DAMAGED = "damaged"
    LEASE = "lease"
    MACHINE = "machine"
    MISSING = "missing"
    NO_ROOM = "no_room"
    UNAVAILABLE = "unavailable"


class SidecarError(Exception):
    """What happened, what to do next, and the exit code that tells a platform about it."""

    exit_code: ExitCode = ExitCode.BUG
    reason: Reason = Reason.BUG

    def __init__(self, message: str, hint: str = "", *, exit_code: ExitCode | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        if exit_code is not None:
            self.exit_code = exit_code

    def __str__(self) -> str:
        """One line: the message, then the hint."""
        text = f"{self.message} ({self.hint})" if self.hint else self.message
        return " ".join(text.split())


class UsageError(SidecarError):
    """The command line is invalid."""

    exit_code = ExitCode.USAGE
    reason = Reason.CONFIGURATION


class ConfigurationError(SidecarError):
    """A setting is invalid, unknown, or contradicts another one."""

    exit_code = ExitCode.CONFIGURATION
    reason = Reason.CONFIGURATION


class OtherLocks(ConfigurationError):
    """A program uses other locks than POSIX locks on a database, or its WAL under another name: no copy can be trusted."""


class DamagedDatabase(SidecarError):
    """A local file is not, or is no longer, a readable SQLite database."""

    exit_code = ExitCode.DAMAGED
    reason = Reason.DAMAGED


class DatabaseMissing(SidecarError):
    """The database file does not exist, or has zero bytes."""

    exit_code = ExitCode.DAMAGED
    reason = Reason.MISSING


class DamagedRestorePoint(SidecarError):
    """An object in the store does not decode to what its index describes."""

    exit_code = ExitCode.DAMAGED
    reason = Reason.DAMAGED


class UnsupportedRestorePoint(SidecarError):
    """A restore point has a newer format. It is not damaged, so no older one may replace it."""

    exit_code = ExitCode.CONFIGURATION
    reason = Reason.CONFIGURATION


class DamagedSegment(SidecarError):
    """A segment of a stream is not what was published, or not where it belongs: its stream ends before it."""

    exit_code = ExitCode.DAMAGED
    reason = Reason.DAMAGED


class UnsupportedSegment(SidecarError):
    """A segment that only a newer version can have written. It is not damaged, so nothing may go on without it."""

    exit_code = ExitCode.CONFIGURATION
    reason = Reason.CONFIGURATION


class DamagedLease(SidecarError):
    """The lease object is not a lease of sidecar."""

    exit_code = ExitCode.DAMAGED
    reason = Reason.LEASE


class UnsupportedLease(DamagedLease):
    """The lease object has a format that only a newer version writes: what it names cannot be known, or left out."""

    exit_code = ExitCode.CONFIGURATION
    reason = Reason.CONFIGURATION


class LeaseMoved(UnsupportedLease):
    """The lease of this store is kept in another one, which is named by `lease_store`."""

    def __init__(self, message: str, hint: str = "", lease_store: str = "", pair: str = "") -> None:
        super().__init__(message, hint)
        self.lease_store = lease_store
        self.pair = pair


class LeaseHeld(SidecarError):
    """Another machine held the lease for as long as this one would wait."""

    exit_code = ExitCode.TRY_AGAIN
    reason = Reason.LEASE


class LeaseLost(SidecarError):
    """This machine is fenced: another one holds the lease now."""

    exit_code = ExitCode.TRY_AGAIN
    reason = Reason.LEASE


class StoreUnsuitable(SidecarError):
    """The store cannot do what cannot be done without: obey conditions of the lease, list in order, tell the time."""

    exit_code = ExitCode.CONFIGURATION
    reason = Reason.CONFIGURATION


class NothingToRestore(SidecarError):
    """The store has no matching restore point."""

    exit_code = ExitCode.NOTHING_TO_RESTORE
    reason = Reason.MISSING


class StoreMissing(SidecarError):
    """The bucket or directory does not exist."""

    exit_code = ExitCode.STORE_MISSING
    reason = Reason.MISSING


class NoRoom(SidecarError):
    """There is not enough space to stage a snapshot or to restore."""

    exit_code = ExitCode.NO_ROOM
    reason = Reason.NO_ROOM


class LocalFailure(SidecarError):
    """This machine's disk or memory failed a request. That says nothing about the data, so nothing falls back for it."""

    exit_code = ExitCode.NO_ROOM
    reason = Reason.MACHINE


class FinalBackupFailed(SidecarError):
    """The app has stopped and its last state could not be published."""

    exit_code = ExitCode.FINAL_BACKUP


class AccessDenied(SidecarError):
    """The store refuses the credentials, or refuses them a permission."""

    exit_code = ExitCode.ACCESS_DENIED
    reason = Reason.ACCESS_DENIED


class CommandNotFound(SidecarError):
    """The app's command does not exist."""

    exit_code = ExitCode.COMMAND_NOT_FOUND


class CommandNotExecutable(SidecarError):
    """The app's command exists and cannot be executed."""

    exit_code = ExitCode.NOT_EXECUTABLE


class Transient(SidecarError):
    """A failure that may not recur; the only family that is retried."""

    exit_code = ExitCode.TRY_AGAIN
    reason = Reason.UNAVAILABLE


class StoreUnavailable(Transient):
    """The store was unreachable, or answered with an internal error; the request had no effect."""


class Throttled(Transient):
    """The store asks us to slow down."""


class OutcomeUnknown(Transient):
    """The request was sent and no reply arrived: it may or may not have taken effect."""


class DatabaseBusy(Transient):
    """Another process holds a lock for longer than sidecar waits."""

    reason = Reason.BUSY


class RowsChanged(Transient):
    """Rows that were to be brought back, or their tables, are not what they were when they were compared: nothing was done."""

    reason = Reason.BUSY


class NotDurable(Transient):
    """What was committed is not in the store, as far as anybody can tell now. It stays in the database, and may be stored later.

    `retry_after` is when asking again may help, in seconds; None where it does not.
    """

    def __init__(self, message: str, hint: str = "", *, retry_after: float | None = None) -> None:
        super().__init__(message, hint)
        self.retry_after = retry_after


class TokenUnavailable(Transient):
    """There are no usable credentials right now; a newer token may arrive."""

    reason = Reason.ACCESS_DENIED


class Undelivered(SidecarError):
    """A notification was not delivered: its receiver is unreachable, slow or failing. Handled by the notifier."""


class Undeliverable(SidecarError):
    """A notification's receiver refuses it for good. Handled by the notifier."""


class PreconditionFailed(SidecarError):
    """The object is not in the state that the request requires (HTTP 412): another writer was first."""


class NotFound(SidecarError):
    """The key does not exist."""


class ReuseFailed(SidecarError):
    """The previous restore point cannot be reused: everything is uploaded instead."""
