"""What a command costs this machine. Each number and where it comes from:

wall    from before the process is started to its end, seconds
cpu     user + system of the process and the children it waited for: the kernel's rusage, at the end (wait4)
memory  peak resident memory: VmHWM, the kernel's own high-water mark of the process, read every 10 ms (it only
        rises, so all that can be missed is what is reached in the last 10 ms). Not ru_maxrss: it starts with the size
        of the process that forked. Pages of libraries count, files on a tmpfs do not. Each tool is one process; an
        app that it starts is not its memory.
disk    bytes by which the process made the page cache of block devices dirty: rusage's ru_oublock, which is the final
        write_bytes of /proc/PID/io. Writes to a tmpfs are none; zero everywhere when TMPDIR is a tmpfs. The kernel
        counts in folios: `copy_in_pages` makes a database whose folios are single pages, else a write of one
        page into it would count for many.

Before each measurement the file systems are synced, so that nobody pays for writing what another one left dirty.
"""

import contextlib
import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.harness.processes import Child, shell_status

Values = dict[str, float]

_EVERY = 0.01
_BLOCK = 512  # getrusage(2) counts in blocks of 512 bytes, whatever the file system
_TAIL = 3000
_PAGE, _PIECE = 4096, 1 << 20


class Failed(Exception):
    """A measured command did not succeed; the message has the end of its output."""


def run(
    argv: Sequence[str], env: Mapping[str, str], log: Path, *, stdout: Path | None = None, expected: int = 0
) -> Values:
    """Run a command to its end and return what it cost; its output goes to `log`. Raises `Failed`."""
    os.sync()
    with log.open("wb") as errors, (stdout or log).open("ab") as out:
        started = time.monotonic()
        child = Child(argv, env, cwd=log.parent, stdout=out, stderr=errors if stdout else out)
        try:
            values = _watched(child, started)
        finally:
            child.kill()
    if (status := shell_status(child.popen.returncode)) != expected:
        raise Failed(f"{' '.join(argv)} ended with {status}\n{log.read_text(errors='replace')[-_TAIL:]}")
    return values


def together(costs: Sequence[Values]) -> Values:
    """The cost of commands run one after the other: memory is the highest of them, the rest adds up."""
    names = {name for cost in costs for name in cost}
    return {name: (max if name == "memory" else sum)(cost.get(name, 0.0) for cost in costs) for name in sorted(names)}


def memory(pid: int, name: str = "VmRSS") -> int:
    """A line of /proc/PID/status in bytes; 0 when the process is gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024
    return 0


def cpu_seconds(pid: int) -> float:
    """User + system time of a running process, in ticks of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def running_seconds(pid: int) -> float:
    """The same to the nanosecond, of the threads that live now."""
    nanoseconds = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            nanoseconds += int((task / "schedstat").read_text().split()[0])
    return nanoseconds / 1e9


def copy_in_pages(source: Path, target: Path) -> None:
    """Copy a file so that the page cache holds it in single pages; see above."""
    with source.open("rb") as reading, target.open("wb", buffering=0) as writing:
        while block := reading.read(_PIECE):
            for start in range(0, len(block), _PAGE):
                writing.write(block[start : start + _PAGE])


def family(pid: int) -> list[int]:
    """A process and its living descendants."""
    found = [pid]
    with contextlib.suppress(OSError):
        for task in Path(f"/proc/{pid}/task").iterdir():
            for child in (task / "children").read_text().split():
                found += family(int(child))
    return found


def _watched(child: Child, started: float) -> Values:
    """Wait for the end in this thread, while another one looks at the memory."""
    ended, peak = threading.Event(), [0]

    def look() -> None:
        while not ended.wait(_EVERY):
            peak.append(max(peak.pop(), memory(child.pid, "VmHWM")))

    looking = threading.Thread(target=look, daemon=True)
    looking.start()
    try:
        _, status, usage = os.wait4(child.pid, 0)
        wall = time.monotonic() - started
    finally:
        ended.set()
        looking.join()
    child.popen.returncode = os.waitstatus_to_exitcode(status)  # the process is reaped: nobody else will be told
    return {
        "wall": wall,
        "cpu": usage.ru_utime + usage.ru_stime,
        "memory": peak[0],
        "disk": usage.ru_oublock * _BLOCK,
    }


def start(argv: Sequence[str], env: Mapping[str, str], log: Path) -> Child:
    """Start a command that goes on; its output goes to `log`. The caller kills it."""
    with log.open("wb") as out:
        return Child(argv, env, cwd=log.parent, stdout=out, stderr=subprocess.STDOUT)
