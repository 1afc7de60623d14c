"""glibc's allocator, told to give large blocks back."""

import ctypes
import sys
from contextlib import suppress

M_MMAP_THRESHOLD = -3
M_TRIM_THRESHOLD = -1
LARGE = 2 << 20
KEPT = 8 << 20


def return_large_blocks() -> None:
    """Have every block of 2 MiB or more mapped by itself, and unmapped when it is freed (mallopt(3)).

    By default the threshold grows with the first large block that is freed: parts then come from the heap, which stays
    fragmented and never shrinks. Chunks and frames do come from it, and what is free of it is kept for the next ones:
    mapped by themselves, each would cost 256 page faults (measured: a third of a restore's time in the kernel).
    Elsewhere than on glibc nothing happens.
    """
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            glibc = ctypes.CDLL(None)
            glibc.mallopt(M_MMAP_THRESHOLD, LARGE)
            glibc.mallopt(M_TRIM_THRESHOLD, KEPT)
