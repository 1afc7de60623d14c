"""Finds the processes that have a file open, and their locks on it, through `fd` and `fdinfo` of proc(5).

The file itself is never opened: close(2) would drop all POSIX locks that this process has on it.
"""

import fcntl
import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

Identity = tuple[int, int]  # device and inode


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that a process has open: the name under which it was opened, and the kinds of record locks held through it.

    `folder` is the directory of that name, resolved in the process's own root. It is known only for the files that were
    asked about, else None.
    """

    name: str
    identity: Identity
    locks: frozenset[str] = frozenset()
    folder: Identity | None = None


@dataclass(frozen=True, slots=True)
class Opener:
    """A process, and the files that it has open."""

    pid: int
    files: tuple[OpenFile, ...]

    def holds(self, identities: set[Identity], kind: str = "") -> bool:
        """Whether it holds a record lock, `READ`, `WRITE` or any, on one of these files."""
        locks = {lock for file in self.files if file.identity in identities for lock in file.locks}
        return kind in locks if kind else bool(locks)


def identity_of(path: str | Path) -> Identity | None:
    """Device and inode; None when there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def openers(identities: set[Identity], among: Iterable[int] | None = None) -> list[Opener]:
    """The processes, of all or of `among`, that have one of these files open, this one included.

    Processes that we have no permission to inspect are missing.
    """
    if not identities:  # a walk takes milliseconds where many files are open
        return []
    pids = [int(each) for each in os.listdir("/proc") if each.isdigit()] if among is None else among
    found = ((pid, _descriptors(pid)) for pid in pids)
    return [
        Opener(pid, tuple(_files(pid, open_now, identities)))
        for pid, open_now in found
        if identities & set(open_now.values())
    ]


def _descriptors(process: int) -> dict[str, Identity]:
    """The file behind each descriptor. Empty or incomplete if the process exits, closes files or belongs to another user."""
    found: dict[str, Identity] = {}
    with suppress(OSError):
        for descriptor in os.listdir(f"/proc/{process}/fd"):
            if identity := identity_of(f"/proc/{process}/fd/{descriptor}"):
                found[descriptor] = identity
    return found


def _files(pid: int, descriptors: dict[str, Identity], asked: set[Identity]) -> Iterator[OpenFile]:
    for descriptor, identity in descriptors.items():
        with suppress(OSError):
            name = os.readlink(f"/proc/{pid}/fd/{descriptor}")
            if name.startswith("/"):
                folder = identity_of(f"/proc/{pid}/root{os.path.dirname(name)}") if identity in asked else None
                yield OpenFile(name, identity, frozenset(_locks(Path(f"/proc/{pid}/fdinfo/{descriptor}"))), folder)


def _locks(info: Path) -> Iterator[str]:
    """The kinds of record locks in lines like `lock: 1: POSIX  ADVISORY  WRITE 2345 00:2c:1234 0 EOF`.

    Locks of open file descriptions (OFDLCK) conflict with POSIX locks too, see fcntl(2); those of flock(2) do not.
    """
    with suppress(OSError):
        for line in info.read_text().splitlines():
            fields = line.split()
            if fields[:1] == ["lock:"] and fields[2] in {"POSIX", "OFDLCK"}:
                yield fields[4]


@cache
def shows_locks() -> bool:
    """Whether this kernel lists locks in fdinfo. Some that emulate Linux do not."""
    try:
        file = os.memfd_create("locked")
    except (AttributeError, OSError):
        return False
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return "WRITE" in set(_locks(Path(f"/proc/self/fdinfo/{file}")))
    except OSError:
        return False
    finally:
        os.close(file)
