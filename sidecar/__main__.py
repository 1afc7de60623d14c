"""`python -m sidecar`, and what the `sidecar` command starts."""

import gc
import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line.

    The kernel drops signals that PID 1 has no handler for (pid_namespaces(7)), so a SIGTERM during the half second of
    imports would be lost. Nothing has begun by then: leaving at once is right. The daemon replaces this handler.
    """
    for stopping in (signal.SIGTERM, signal.SIGINT) if sys.argv[1:2] == ["run"] else ():
        signal.signal(stopping, lambda number, _frame: os._exit(128 + number))
    # Imports make no garbage worth looking for, and looking is a quarter of their time; `runtime.resume_collection` ends it.
    gc.disable()
    from sidecar.cli.main import run_command_line
    from sidecar.host.resolver import leave

    code = run_command_line()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (OSError, ValueError):
        os._exit(code)  # whoever read our output is gone; the interpreter would make another exit code of that
    leave(code)


if __name__ == "__main__":
    main()
