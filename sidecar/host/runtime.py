"""Settings of a whole process that is ours alone: its allocator, its collector, its event loop's executor, its limits.

The daemon and the commands call this. A program that embeds us never does: its process stays as it is.
"""

import gc
import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sidecar.host.memory import return_large_blocks, share_one_arena
from sidecar.host.resolver import wait_for_no_lookup

DESCRIPTORS = 1 << 16  # a follower has ten for each database; 1024, the usual limit, would be too few for a hundred
_SPARE = 4  # for the pipe over which a child reports that it cannot be started

_given: list[int] = []  # the soft limit that this process was started with, once it is raised
_spare: list[int] = []


def tune_process() -> None:
    """Return freed memory to the system, and never let a DNS lookup delay the exit. Needs a running event loop."""
    return_large_blocks()
    share_one_arena()
    wait_for_no_lookup()
    raise_descriptor_limit()


def raise_descriptor_limit() -> None:
    """Raise the soft limit of open descriptors as far as this process may. `given_limits` has the former one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    if _given or soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with suppress(OSError, ValueError):  # a sandbox may forbid it: the limit stays as it is
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        _given.append(soft)
        _spare.extend(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC) for _ in range(_SPARE))


@contextmanager
def given_limits() -> Iterator[None]:
    """Children that are started inside have the limit of descriptors that this process was given.

    Programs that use select(2) break above 1024, and some close every descriptor up to the limit when they start. It is
    lowered around the start: a function that runs between fork and exec is not safe in a process with threads.
    """
    if not _given:
        yield
        return
    raised, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    while _spare:  # below the old limit, all others may be in use
        os.close(_spare.pop())
    resource.setrlimit(resource.RLIMIT_NOFILE, (_given[0], hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (raised, hard))


def resume_collection() -> None:
    """Collect garbage again, which `__main__` stopped for the time of the imports.

    What was imported lives as long as the process: it is left out of every collection.
    """
    gc.freeze()
    gc.enable()
