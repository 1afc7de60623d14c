"""Makes glibc's allocator return memory to the system. Without glibc nothing happens."""

import ctypes
import sys
from contextlib import suppress
from typing import Any

M_MMAP_THRESHOLD = -3
M_TRIM_THRESHOLD = -1
M_ARENA_MAX = -8
LARGE = 2 << 20
KEPT = 2 << 20


def return_large_blocks() -> None:
    """Have every block of 2 MiB or more mapped by itself, and unmapped when it is freed (mallopt(3)).

    By default the threshold grows with the first large block that is freed: parts then come from the heap, which stays
    fragmented and never shrinks. Chunks and frames do come from it, and what is free of it is kept for the next ones:
    mapped by themselves, each would cost 256 page faults (measured: 470,000 for a restore of 1 GiB instead of 206,000).
    """
    with suppress(OSError, AttributeError):
        _glibc().mallopt(M_MMAP_THRESHOLD, LARGE)
        _glibc().mallopt(M_TRIM_THRESHOLD, KEPT)


def share_one_arena() -> None:
    """Have all threads allocate from one heap (mallopt(3)). To be called before there are threads.

    Otherwise each worker thread gets a heap of its own, which keeps what it once needed (measured: 3 MB of resident memory
    of an idle daemon). Python's own allocations are made under its lock anyway, and large blocks are mapped by themselves.
    """
    with suppress(OSError, AttributeError):
        _glibc().mallopt(M_ARENA_MAX, 1)


def return_free_pages() -> None:
    """Return free pages between used ones to the system (malloc_trim(3)); it takes less than a millisecond.

    Useful after work that left the heap fragmented: measured after a publish, 2 MB of resident memory.
    """
    with suppress(OSError, AttributeError):
        _glibc().malloc_trim(0)


def _glibc() -> Any:
    """The C library. Without glibc, raises `OSError`, or `AttributeError` at the first call."""
    if sys.platform != "linux":
        raise OSError("no glibc here")
    return ctypes.CDLL(None)
