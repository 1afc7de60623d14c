"""Staging: private files for snapshots until they are published, on tmpfs if they fit, else beside the database."""

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from sidecar.errors import ConfigurationError, NoRoom, SidecarError
from sidecar.host import failed, is_failure

TMPFS = Path("/dev/shm")  # noqa: S108 - the point is that it is tmpfs
MEMORY_SHARE = 4
RESERVE = 1 << 20
DESCRIPTORS = Path("/proc/self/fd")


class Staging:
    """Implements `base.Staging`. With `directory` None the place is chosen for each snapshot."""

    def __init__(self, directory: Path | None = None, *, tmpfs: Path = TMPFS) -> None:
        self._directory = directory
        self._tmpfs = tmpfs

    @contextmanager
    def reserve(self, database: Path, size: int) -> Iterator[tuple[Path, bool]]:
        """See `base.Staging`."""
        prefix = f"sidecar-{hashlib.sha256(os.fsencode(database)).hexdigest()[:16]}-"
        for place in {self._directory or database.parent, self._tmpfs}:
            _sweep(place, prefix)
        directory, on_tmpfs = self._choose(database.parent, size)
        target, file = _created(directory, prefix)
        try:
            yield target, on_tmpfs
        finally:
            for leftover in (target, Path(f"{target}-journal")):
                leftover.unlink(missing_ok=True)
            os.close(file)

    def _choose(self, beside: Path, size: int) -> tuple[Path, bool]:
        """The directory for `size` bytes, and whether it is tmpfs."""
        if self._directory is None and _fits(self._tmpfs, size) and size * MEMORY_SHARE <= available_memory():
            return self._tmpfs, True
        directory = self._directory or beside
        if not directory.is_dir():
            raise ConfigurationError(
                f"staging_dir {directory} is not a directory", "create it, or leave staging_dir out"
            )
        if not _fits(directory, size):
            free = shutil.disk_usage(directory).free
            raise NoRoom(
                f"no room to stage a snapshot of {size} bytes in {directory}: {free} bytes are free",
                "free some space, or set staging_dir to a larger file system",
            )
        return directory, False


@contextmanager
def created(target: Path) -> Iterator[int]:
    """A new empty file of ours at this path, open for the length of the block, and locked while in use."""
    file = _new_file(target)
    while not _lock(file):
        os.close(file)
        file = _new_file(target)
    try:
        yield file
    finally:
        os.close(file)


def _new_file(target: Path) -> int:
    target.unlink(missing_ok=True)
    try:
        return os.open(target, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise _replaced(target) from error
    except OSError as error:
        raise _refusal(target.parent, error) from error


def require_opened(target: Path, file: int) -> None:
    """Raise `ConfigurationError` unless the connection just made to `target` has opened this very file.

    The directory may belong to the app's user, who could have put a link there meanwhile, and SQLite opens by name.
    """
    if DESCRIPTORS.is_dir() and sum(_is_same(file, name) for name in os.listdir(DESCRIPTORS)) < 2:
        raise _replaced(target)


def _is_same(file: int, descriptor: str) -> bool:
    with suppress(OSError):  # closed meanwhile
        return os.path.samestat(os.fstat(file), os.fstat(int(descriptor)))
    return False


def _replaced(target: Path) -> ConfigurationError:
    return ConfigurationError(
        f"{target} was replaced by another process while it was written",
        f"which process writes in {target.parent}? Set staging_dir to a directory that only sidecar uses",
    )


def available_memory() -> int:
    """Bytes of memory that are available without swapping: of the machine, or of the cgroup if it allows less."""
    candidates = [_meminfo()]
    with suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        candidates.append(limit - int(Path("/sys/fs/cgroup/memory.current").read_text()) + _cgroup_cache())
    with suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").read_text())
        candidates.append(limit - int(Path("/sys/fs/cgroup/memory/memory.usage_in_bytes").read_text()))
    return max(0, min(candidates))


def _cgroup_cache() -> int:
    """Bytes of page cache that the cgroup can reclaim at once (cgroup-v2.rst, memory.stat)."""
    for line in Path("/sys/fs/cgroup/memory.stat").read_text().splitlines():
        if line.startswith("inactive_file "):
            return int(line.split()[1])
    return 0


def _meminfo() -> int:
    with suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


def _fits(directory: Path, size: int) -> bool:
    try:
        return os.access(directory, os.W_OK) and shutil.disk_usage(directory).free >= size + RESERVE
    except OSError:
        return False


def _created(directory: Path, prefix: str) -> tuple[Path, int]:
    """A new private file and its descriptor, locked while in use: process ids mean nothing between containers."""
    while True:
        target = directory / f"{prefix}{secrets.token_hex(8)}.snapshot"
        try:
            file = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise _refusal(directory, error) from error
        if _lock(file):
            return target, file
        os.close(file)


def _lock(file: int) -> bool:
    """Lock a new file. False when another process takes it for a leftover, and removes it."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return True  # a file system without locks: leftovers stay, and no file in use is removed
    return os.fstat(file).st_nlink > 0


def _sweep(directory: Path, prefix: str) -> None:
    """Remove the snapshots that dead processes left for this database."""
    with suppress(OSError):
        for leftover in directory.glob(f"{prefix}*.snapshot*"):
            with suppress(OSError):
                _remove_unused(Path(str(leftover).removesuffix("-journal")))


def _remove_unused(snapshot: Path) -> None:
    """Remove a snapshot and its journal under its lock, so that a process that has just made it notices.

    Others may write into /dev/shm, so only a regular file with a single name is opened, which cannot be a live database.
    """
    journal = Path(f"{snapshot}-journal")
    try:
        seen = os.lstat(snapshot)
    except FileNotFoundError:
        journal.unlink(missing_ok=True)
        return
    if not stat.S_ISREG(seen.st_mode) or seen.st_nlink != 1:
        snapshot.unlink()  # only the name
        return
    file = os.open(snapshot, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for leftover in (snapshot, journal):
            leftover.unlink(missing_ok=True)
    except BlockingIOError:
        pass  # in use
    finally:
        os.close(file)


def _refusal(directory: Path, error: OSError) -> SidecarError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoRoom(f"no room to stage a snapshot in {directory}: {error.strerror}", "free some space")
    if is_failure(error):
        return failed(directory, error.strerror)
    return ConfigurationError(f"cannot stage a snapshot in {directory}: {error.strerror}", "check staging_dir")
