"""glibc's allocator, told to give memory back. Elsewhere than on glibc nothing happens."""

import ctypes
import sys
from contextlib import suppress
from typing import Any

M_MMAP_THRESHOLD = -3
M_TRIM_THRESHOLD = -1
LARGE = 512 << 10
KEPT = 4 << 20


def return_large_blocks() -> None:
    """Have every block of half a MiB or more mapped by itself, and unmapped when it is freed (mallopt(3)).

    By default the threshold grows with the first large block that is freed: parts then come from the heap, which stays
    fragmented and never shrinks. Measured on a publish of 1 GiB: about 30 MB of peak memory.
    """
    with suppress(OSError, AttributeError):
        _glibc().mallopt(M_MMAP_THRESHOLD, LARGE)
        _glibc().mallopt(M_TRIM_THRESHOLD, KEPT)


def return_free_pages() -> None:
    """Give back pages that are free between others in use (malloc_trim(3)); takes less than a millisecond.

    After work that left the heap full of holes: measured after a publish, 2 MB of resident memory.
    """
    with suppress(OSError, AttributeError):
        _glibc().malloc_trim(0)


def _glibc() -> Any:
    """The C library. Raises `OSError`, and `AttributeError` at the first call, where it is not glibc."""
    if sys.platform != "linux":
        raise OSError("no glibc here")
    return ctypes.CDLL(None)
