"""Our descendants, as proc(5) shows them: who they are, which files they have open, and signals that reach only them."""

import ctypes
import os
import re
import signal
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from sidecar.host.descendants import Process, below
from sidecar.host.openers import has_open
from sidecar.log import log

_PROC = Path("/proc")
_SET_CHILD_SUBREAPER = 36
_LOCK = re.compile(r"POSIX\s+\S+\s+\S+\s+(\d+)\s+[0-9a-f]+:[0-9a-f]+:(\d+)\s")


def become_subreaper() -> bool:
    """Have every descendant that loses its parent become our child (prctl(2)), so that all of them can be found.

    False where the system does not offer that, or /proc shows the ids of another PID namespace than ours.
    """
    try:
        if os.readlink(_PROC / "self") != str(os.getpid()):
            hint = "mount /proc in this namespace, as `unshare --mount-proc` does"
            log.warning("only the app's process group is stopped: /proc shows another PID namespace", hint=hint)
            return False
    except OSError:
        return False
    if os.getpid() == 1:
        return True
    with suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0) == 0)
    return False


class Proc:
    """Implements `descendants.ProcessTable`.

    Children in our own process group are helpers of ours, as a `credential_process` of the SDK, and do not count: the app has
    a group of its own. Not so where we were given children before we began (`sh -c "worker & exec sidecar …"`).
    """

    def __init__(self) -> None:
        self._counts_all = _has_children()

    def descendants(self) -> list[Process]:
        """See `descendants.ProcessTable`."""
        processes, me = list(_read_all()), os.getpid()
        if not self._counts_all:
            processes = [each for each in processes if each.parent != me or not is_of_our_group(each.pid)]
        return below(me, processes)

    def is_childless(self) -> bool:
        """See `descendants.ProcessTable`. Whoever lives has an ancestor among our children, because we are the subreaper.

        While a helper of ours runs, it is looked twice: a process whose parent ends is missing once.
        """
        if not _has_children():
            return True
        if self._counts_all or not _has_children(os.P_PGID, os.getpgrp()):
            return False
        return not self.descendants() and not self.descendants()

    def send(self, process: Process, number: int) -> None:
        """See `descendants.ProcessTable`. The id cannot be another process's by then: it is held by a descriptor."""
        with suppress(ProcessLookupError):
            try:
                held = os.pidfd_open(process.pid)
            except ProcessLookupError:
                return
            except OSError:  # an old kernel, or a sandbox that does not know the call
                if read(process.pid) == process:
                    os.kill(process.pid, number)
                return
            try:
                if read(process.pid) == process:
                    signal.pidfd_send_signal(held, number)
            finally:
                os.close(held)

    def is_ignored(self, process: Process, number: int) -> bool:
        """See `descendants.ProcessTable`."""
        with suppress(OSError, ValueError):
            for line in (_PROC / str(process.pid) / "status").read_bytes().splitlines():
                if line.startswith(b"SigIgn:"):
                    return bool(int(line.split()[1], 16) >> (number - 1) & 1)
        return False


def read(pid: int) -> Process | None:
    """One process; None when it is gone, or dead and only not reaped yet."""
    name, fields = _stat(pid)
    if not fields:
        return None
    state, parent, threads, started = fields[0], int(fields[1]), int(fields[17]), int(fields[19])
    if state in "ZX" and threads <= 1:  # the first thread may have ended before the others
        return None
    return Process(pid, started, parent, name, state in "Tt")


def is_of_our_group(pid: int) -> bool:
    """Whether a process, dead ones that are not reaped included, is in our process group."""
    try:
        return os.getpgid(pid) == os.getpgrp()
    except OSError:
        return False


def dead_children() -> list[int]:
    """Our children that are dead and not reaped."""
    stats = ((int(name), _stat(int(name))[1]) for name in os.listdir(_PROC) if name.isdecimal())
    return [pid for pid, fields in stats if fields and fields[0] in "ZX" and int(fields[1]) == os.getpid()]


def _stat(pid: int) -> tuple[str, list[str]]:
    """The name of a process, and what follows it in proc(5), stat; no fields when the process is gone."""
    try:
        text = (_PROC / str(pid) / "stat").read_bytes().decode(errors="replace")
    except OSError:
        return "", []
    head, _, tail = text.rpartition(")")  # the name may contain anything
    return head.partition("(")[2], tail.split()


def _has_children(kind: int = os.P_ALL, which: int = 0) -> bool:
    """Whether we have children, dead ones that are not reaped included: all of them, or of one process group."""
    try:
        os.waitid(kind, which, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:  # none; or group 0, of a PID namespace around ours, which kernels before 5.4 do not know
        return False
    return True


def having_open(processes: Sequence[Process], files: Sequence[Path]) -> list[Process]:
    """Those that have one of the files open, by device and inode. To be called in a thread: a file system may hang.

    In a container without CAP_SYS_PTRACE root may not look at another user's descriptors; SQLite's locks are public.
    """
    wanted = {(found.st_dev, found.st_ino) for found in _stats(files)}
    owners = _lock_owners({inode for _, inode in wanted}) if wanted else set()
    return [each for each in processes if wanted and (each.pid in owners or has_open(each.pid, wanted))]


def _read_all() -> Iterator[Process]:
    for name in os.listdir(_PROC):
        if name.isdecimal() and (process := read(int(name))):
            yield process


def _stats(files: Sequence[Path]) -> Iterator[os.stat_result]:
    for file in files:
        with suppress(OSError):
            yield os.stat(file)


def _lock_owners(inodes: set[int]) -> set[int]:
    with suppress(OSError):
        text = (_PROC / "locks").read_text()
        return {int(pid) for pid, inode in _LOCK.findall(text) if int(inode) in inodes}
    return set()
