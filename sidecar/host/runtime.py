"""Settings of a whole process that is ours alone: its allocator, its collector, its event loop's executor.

The daemon and the commands call this. A program that embeds us never does: its process stays as it is.
"""

import gc

from sidecar.host.memory import return_large_blocks
from sidecar.host.resolver import wait_for_no_lookup


def tune_process() -> None:
    """Return freed memory to the system, and never let a DNS lookup delay the exit. Needs a running event loop."""
    return_large_blocks()
    wait_for_no_lookup()


def resume_collection() -> None:
    """Collect garbage again, which `__main__` stopped for the time of the imports.

    What was imported lives as long as the process: it is left out of every collection.
    """
    gc.freeze()
    gc.enable()
