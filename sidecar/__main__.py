"""The entry point of `python -m sidecar` and of the `sidecar` command."""

import gc
import os
import signal
import sys
from collections.abc import Iterable
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line and exit with its code.

    The kernel drops signals for which PID 1 has no handler (pid_namespaces(7)), so a SIGTERM during the half second of
    imports would be lost. Nothing has started by then, so exiting at once is safe. The daemon replaces this handler.
    """
    # Imports leave almost no garbage, and looking for it takes a quarter of their time; `runtime.resume_collection` ends it.
    gc.disable()
    if sys.argv[1:2] == ["run"]:
        _leave_when_stopped([signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
        from sidecar.host.signals import STOPPING  # takes a tenth of a second

        _leave_when_stopped(STOPPING)
    if sys.stderr is None:  # closed by whoever started us; descriptor 2 may then be any file
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115 - for the whole process
    try:
        from sidecar.cli.main import run_command_line
        from sidecar.host.resolver import leave
        from sidecar.host.stderr import drain_stderr
    except KeyboardInterrupt:  # Ctrl-C in the first moment: nothing has started
        os._exit(130)
    code = run_command_line()
    drain_stderr()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        os._exit(code)  # nobody reads our output any more; the interpreter would replace the exit code
    leave(code)


def _leave_when_stopped(signals: Iterable[int]) -> None:
    for number in signals:
        signal.signal(number, lambda number, _frame: os._exit(128 + number))


if __name__ == "__main__":
    main()
