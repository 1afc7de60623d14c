"""Errors: one line each, with the exit code that the documentation promises."""

import inspect

import pytest

from sidecar import errors
from sidecar.errors import Reason, SidecarError, Transient

EXIT_CODES = {
    "SidecarError": 70,
    "UsageError": 64,
    "ConfigurationError": 78,
    "DamagedDatabase": 65,
    "DamagedRestorePoint": 65,
    "DamagedSegment": 65,
    "UnsupportedSegment": 78,
    "DatabaseMissing": 65,
    "UnsupportedRestorePoint": 78,
    "ReuseFailed": 70,
    "DamagedLease": 65,
    "UnsupportedLease": 78,
    "LeaseMoved": 78,
    "LeaseHeld": 75,
    "LeaseLost": 75,
    "StoreUnsuitable": 78,
    "OtherLocks": 78,
    "NothingToRestore": 66,
    "StoreMissing": 69,
    "NoRoom": 73,
    "LocalFailure": 73,
    "FinalBackupFailed": 74,
    "AccessDenied": 77,
    "CommandNotFound": 127,
    "CommandNotExecutable": 126,
    "Transient": 75,
    "StoreUnavailable": 75,
    "Throttled": 75,
    "OutcomeUnknown": 75,
    "DatabaseBusy": 75,
    "RowsChanged": 75,
    "NotDurable": 75,
    "TokenUnavailable": 75,
    "PreconditionFailed": 70,
    "NotFound": 70,
    "Undelivered": 70,
    "Undeliverable": 70,
}
CLASSES = {
    name: kind for name, kind in vars(errors).items() if inspect.isclass(kind) and issubclass(kind, SidecarError)
}


def test_every_error_is_in_the_table_of_exit_codes() -> None:
    assert set(CLASSES) == set(EXIT_CODES)


@pytest.mark.parametrize("name", sorted(EXIT_CODES))
def test_an_error_ends_in_the_exit_code_of_its_class(name: str) -> None:
    assert CLASSES[name]("what").exit_code == EXIT_CODES[name]


def test_only_the_transient_family_is_transient() -> None:
    """What is retried: control flow and final verdicts must not be."""
    family = {name for name, kind in CLASSES.items() if issubclass(kind, Transient)}
    assert family == {
        "Transient",
        "StoreUnavailable",
        "Throttled",
        "OutcomeUnknown",
        "DatabaseBusy",
        "RowsChanged",
        "NotDurable",
        "TokenUnavailable",
    }


def test_an_exit_code_of_its_own_overrides_that_of_the_class_for_one_error_only() -> None:
    special = SidecarError("what", exit_code=errors.ExitCode.USAGE)
    assert (special.exit_code, SidecarError("what").exit_code) == (64, 70)


@pytest.mark.parametrize("name", sorted(EXIT_CODES))
def test_an_error_is_one_line_even_when_its_cause_had_several(name: str) -> None:
    text = str(CLASSES[name]("the store\r\n said:\n\t no", "try\nagain"))
    assert text == "the store said: no (try again)"


def test_an_error_without_a_hint_has_no_empty_parentheses() -> None:
    assert str(SidecarError("what")) == "what"


def test_what_a_backup_may_fail_with_has_a_reason_of_its_own() -> None:
    """An alert on `bug` would be no use if it meant a store that is away; what is a bug here never ends a cycle."""
    bugs = {name for name, kind in CLASSES.items() if kind.reason is Reason.BUG}
    control_flow = {"ReuseFailed", "PreconditionFailed", "NotFound"}
    notifications = {"Undelivered", "Undeliverable"}
    commands = {"CommandNotFound", "CommandNotExecutable"}
    assert bugs == control_flow | notifications | commands | {"SidecarError", "FinalBackupFailed"}
