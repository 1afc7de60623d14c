"""`sidecar run` without a command: nothing is started, so it says what it does instead."""

from collections.abc import Sequence

from sidecar.log import log
from sidecar.status import documentation

SEPARATOR = "--"


def ends_with_separator(arguments: Sequence[str]) -> bool:
    """Whether `--` announces a command and none follows."""
    return list(arguments[-1:]) == [SEPARATOR]


def log_no_command(*, announced: bool) -> None:
    """Say that no app is started. `announced` says that `--` was given: then a command was probably meant."""
    hint = f"to start an app with it: `sidecar run -- COMMAND`; see {documentation.NO_COMMAND}"
    if announced:
        log.warning("no command after --: no app is started, only databases that others write are protected", hint=hint)
    else:
        log.info("no command: protecting databases that others write", hint=hint)
