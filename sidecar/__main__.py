"""`python -m sidecar`, and what the `sidecar` command starts."""

import os
import signal
import sys
from typing import NoReturn


def main() -> NoReturn:
    """Run the command line.

    The kernel drops signals that PID 1 has no handler for (pid_namespaces(7)), so a SIGTERM during the half second of
    imports would be lost. Nothing has begun by then: leaving at once is right. The daemon replaces this handler.
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: os._exit(128 + number))
    from sidecar.cli import run_command_line

    sys.exit(run_command_line())


if __name__ == "__main__":
    main()
