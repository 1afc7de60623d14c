"""Finds the processes that have a file open, and their locks on it, through `fd` and `fdinfo` of proc(5).

The file itself is never opened: close(2) would drop all POSIX locks that this process has on it.
"""

import fcntl
import os
import struct
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

Identity = tuple[int, int]  # device and inode
LOOK_SECONDS = 10.0
_OFD_SETLK = 37


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that a process has open: the name that it used, and the kinds of the record locks taken through it.

    `folder` is the directory of that name as the process sees it, None if unknown; `locked` are the first bytes of the locks.
    Of files that were not asked for only the name is known, and `identity` is None.
    """

    name: str
    identity: Identity | None
    locks: frozenset[str] = frozenset()
    folder: Identity | None = None
    locked: frozenset[int] = frozenset()


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


def openers(identities: set[Identity], among: Iterable[int] | None = None, name: str = "") -> list[Opener]:
    """The processes that have one of these files open, as far as we may look: of all others, or of `among`.

    Only what seems to be one of them, by its inode number or because its name begins with `name`, is asked for more: a file
    of another file system may be on a server that does not answer. Raises TimeoutError if it takes longer than
    `LOOK_SECONDS` all the same.
    """
    if not identities:  # a walk takes milliseconds where many files are open
        return []
    found: list[Opener] | Exception = TimeoutError("a file system does not answer")

    def look() -> None:
        nonlocal found
        try:
            found = _openers(identities, among, name)
        except Exception as error:  # noqa: BLE001 - raised again by whoever waits
            found = error

    thread = threading.Thread(target=look, name="openers", daemon=True)
    thread.start()
    thread.join(LOOK_SECONDS)
    if isinstance(found, Exception):
        raise found
    return found


def has_open(pid: int, identities: set[Identity]) -> bool:
    """Whether a process has one of these files open. May take as long as a file system does not answer."""
    return bool(_openers(identities, [pid], ""))


def _openers(identities: set[Identity], among: Iterable[int] | None, name: str) -> list[Opener]:
    pids = _others() if among is None else among
    found = ((pid, _files(pid, identities, name)) for pid in pids)
    return [Opener(pid, files) for pid, files in found if any(file.identity in identities for file in files)]


def _others() -> list[int]:
    """All processes but this one, which may have thousands of files open."""
    found = [int(each) for each in os.listdir("/proc") if each.isdigit()]
    return [pid for pid in found if pid != os.getpid()]


def _files(pid: int, asked: set[Identity], part: str) -> tuple[OpenFile, ...]:
    """What a process has open, with a path. It may be gone, or somebody else's; a file may be closed meanwhile."""
    inodes = {str(inode).encode() for _, inode in asked}
    found = []
    with suppress(OSError):
        for descriptor in os.listdir(f"/proc/{pid}/fd"):
            with suppress(OSError):
                name = os.readlink(f"/proc/{pid}/fd/{descriptor}")  # which asks no file system
                if name.startswith("/"):
                    found.append(_file(pid, descriptor, name, asked, inodes, part))
    return tuple(found)


def _file(pid: int, descriptor: str, name: str, asked: set[Identity], inodes: set[bytes], part: str) -> OpenFile:
    info = _info(f"/proc/{pid}/fdinfo/{descriptor}")
    _, shown, rest = info.partition(b"\nino:")  # since Linux 5.14
    if shown and rest.split(None, 1)[0] not in inodes and not (part and os.path.basename(name).startswith(part)):
        return OpenFile(name, None)
    identity = identity_of(f"/proc/{pid}/fd/{descriptor}")
    if identity not in asked:
        return OpenFile(name, None)
    folder = identity_of(f"/proc/{pid}/root{os.path.dirname(name)}")
    locks = list(_locks(info))
    kinds, first = frozenset(kind for kind, _ in locks), frozenset(first for _, first in locks)
    return OpenFile(name, identity, kinds, folder, first)


def _info(path: str) -> bytes:
    """An fdinfo; nothing when it is gone, or not ours to read."""
    try:
        file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return b"".join(iter(partial(os.read, file, 1 << 16), b""))
    except OSError:
        return b""
    finally:
        os.close(file)


def _locks(info: bytes) -> Iterator[tuple[str, int]]:
    """Kind and first byte of the record locks in lines like `lock: 1: POSIX  ADVISORY  WRITE 2345 00:2c:1234 0 EOF`.

    Those of open file descriptions, OFDLCK, keep a process with POSIX locks out as well (fcntl(2)), other than FLOCK.
    """
    for fields in map(str.split, info.decode(errors="replace").splitlines()):
        if fields[:1] == ["lock:"] and len(fields) > 7 and fields[2] in {"POSIX", "OFDLCK"}:
            yield fields[4], int(fields[7])


@cache
def shows_locks() -> bool:
    """Whether this kernel lists locks in fdinfo: not all that pass for Linux do."""
    try:
        file = os.memfd_create("locked")
    except (AttributeError, OSError):
        return False
    try:
        return _shows_own(file, _info)
    except OSError:
        return False
    finally:
        os.close(file)


def shows_locks_in(directory: Path, read: Callable[[str], bytes] = _info) -> bool:
    """Whether the locks on files of this directory are listed: a file system whose server keeps them may not show them.

    A lock is tried, on a file of our own that has no name. Where none can be made, nothing speaks against it.
    """
    try:
        with tempfile.TemporaryFile(dir=directory) as file:
            return _shows_own(file.fileno(), read)
    except OSError:
        return True


def locks_exclude(directory: Path) -> bool:
    """Whether a lock on a file of this directory keeps others out: a server may grant one file's lock to everybody.

    A lock of an open file description (fcntl(2)) is tried beside a POSIX lock. Where it cannot be, nothing speaks against it.
    """
    try:
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".sidecar-") as file, open(file.name, "r+b") as other:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            fcntl.fcntl(other, _OFD_SETLK, struct.pack("hhqqi4x", fcntl.F_WRLCK, 0, 0, 0, 0))
    except OSError:
        return True
    return False


def _shows_own(file: int, read: Callable[[str], bytes]) -> bool:
    fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    return "WRITE" in {kind for kind, _ in _locks(read(f"/proc/self/fdinfo/{file}"))}
