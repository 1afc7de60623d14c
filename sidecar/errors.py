"""Every error the program raises on purpose, and the exit code each one ends in.

`SidecarError` is the root. Only the `Transient` family is ever retried. `PreconditionFailed` and `NotFound` are control
flow: whoever asks a store a conditional question handles them; they never reach a user.
"""

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """Exit codes, from BSD's sysexits.h where it has a word for the case."""

    OK = 0
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
    """Why a backup failed, in as few words as there are different things to do about it: a label of metrics."""

    ACCESS_DENIED = "access_denied"
    BUG = "bug"
    BUSY = "busy"
    CONFIGURATION = "configuration"
    DAMAGED = "damaged"
    LEASE = "lease"
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
    """The command line asks for something that makes no sense."""

    exit_code = ExitCode.USAGE
    reason = Reason.CONFIGURATION


class ConfigurationError(SidecarError):
    """A setting is wrong, unknown or contradicts another one."""

    exit_code = ExitCode.CONFIGURATION
    reason = Reason.CONFIGURATION


class DamagedDatabase(SidecarError):
    """A local file that is not, or no longer, a readable SQLite database."""

    exit_code = ExitCode.DAMAGED
    reason = Reason.DAMAGED


class DatabaseMissing(SidecarError):
    """There is no database file, or it has zero bytes."""

    exit_code = ExitCode.DAMAGED
    reason = Reason.MISSING


class DamagedRestorePoint(SidecarError):
    """An object in the store that does not decode to what its index promises."""

    exit_code = ExitCode.DAMAGED
    reason = Reason.DAMAGED


class UnsupportedRestorePoint(SidecarError):
    """A restore point of a newer format: not damaged, so nothing older may take its place."""

    exit_code = ExitCode.DAMAGED
    reason = Reason.DAMAGED


class DamagedLease(SidecarError):
    """The lease object is none of ours, or of a newer format."""

    exit_code = ExitCode.DAMAGED
    reason = Reason.LEASE


class LeaseHeld(SidecarError):
    """Another machine is the holder, and stayed so for as long as we would wait."""

    exit_code = ExitCode.TRY_AGAIN
    reason = Reason.LEASE


class LeaseLost(SidecarError):
    """We are fenced: another machine is the holder now."""

    exit_code = ExitCode.TRY_AGAIN
    reason = Reason.LEASE


class StoreUnsuitable(SidecarError):
    """The store ignores conditional writes."""

    exit_code = ExitCode.CONFIGURATION
    reason = Reason.CONFIGURATION


class NothingToRestore(SidecarError):
    """The store has no restore point that fits the question."""

    exit_code = ExitCode.NOTHING_TO_RESTORE
    reason = Reason.MISSING


class StoreMissing(SidecarError):
    """The bucket or directory does not exist."""

    exit_code = ExitCode.STORE_MISSING
    reason = Reason.MISSING


class NoRoom(SidecarError):
    """Not enough space to stage a snapshot or to restore."""

    exit_code = ExitCode.NO_ROOM
    reason = Reason.NO_ROOM


class FinalBackupFailed(SidecarError):
    """The app has stopped and its last state could not be published."""

    exit_code = ExitCode.FINAL_BACKUP


class AccessDenied(SidecarError):
    """The store knows us and says no, or does not know us."""

    exit_code = ExitCode.ACCESS_DENIED
    reason = Reason.ACCESS_DENIED


class CommandNotFound(SidecarError):
    """The app's command does not exist."""

    exit_code = ExitCode.COMMAND_NOT_FOUND


class CommandNotExecutable(SidecarError):
    """The app's command exists and cannot be executed."""

    exit_code = ExitCode.NOT_EXECUTABLE


class Transient(SidecarError):
    """May succeed when tried again; the only family that is retried."""

    exit_code = ExitCode.TRY_AGAIN
    reason = Reason.UNAVAILABLE


class StoreUnavailable(Transient):
    """The store could not be reached, or answered with an error of its own; nothing was done."""


class Throttled(Transient):
    """The store asks us to slow down."""


class OutcomeUnknown(Transient):
    """The request was sent and no reply arrived: it may or may not have been done."""


class DatabaseBusy(Transient):
    """The app holds a lock that we will not wait for any longer."""

    reason = Reason.BUSY


class TokenUnavailable(Transient):
    """No usable credentials right now; a newer token may come."""

    reason = Reason.ACCESS_DENIED


class Undelivered(SidecarError):
    """A notification did not get through: the receiver is away, slow, or has an error of its own. Never leaves `notify`."""


class Undeliverable(SidecarError):
    """A notification's receiver does not want it, and will not want it later. Never leaves `notify`."""


class PreconditionFailed(SidecarError):
    """The object is not in the state the request demanded (HTTP 412): somebody was there before."""


class NotFound(SidecarError):
    """The key does not exist."""


class ReuseFailed(SidecarError):
    """The previous restore point cannot be copied from: everything is uploaded instead."""
