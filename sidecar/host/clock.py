"""The real clock."""

import os
import random
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Protocol

import anyio


class SystemClock:
    """Implements `Clock`."""

    def now(self) -> datetime:
        """See `Clock`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See `Clock`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `Clock`."""
        await anyio.sleep(seconds)

    def random(self) -> float:
        """See `Clock`."""
        return random.random()  # noqa: S311 - jitter, no secret


def kernel_boot() -> str | None:
    """The name of the current boot of the kernel (proc(5), `boot_id`): files that it wrote are in its cache, if not on disk."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() or None
    except OSError:
        return None


def process_age() -> float:
    """Seconds since this process was started, imports included (proc_pid_stat(5), field 22); its CPU time where /proc is missing."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.process_time()


class Clock(Protocol):
    """Wall time for names and messages, monotonic time for durations. Never mix the two."""

    def now(self) -> datetime:
        """Aware UTC wall-clock time of this machine: for people; never decides anything between machines."""
        ...

    def monotonic(self) -> float:
        """Seconds from an arbitrary start, never going back."""
        ...

    async def sleep(self, seconds: float) -> None:
        """Sleep, cancellably."""
        ...

    def random(self) -> float:
        """A number in [0, 1), for jitter."""
        ...
