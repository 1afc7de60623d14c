"""Local files of a database: what lies beside it, moving it aside, putting a restored one in its place."""

import errno
import glob
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import ConfigurationError, DatabaseBusy, NoRoom, SidecarError
from sidecar.host.mounts import Mount, mount_of
from sidecar.model import Bytes, Timestamp
from sidecar.policies import Durability

COMPANIONS = ("-wal", "-shm", "-journal")
RESERVE = 1 << 20
_EPHEMERAL = {"overlay", "tmpfs", "ramfs", "aufs", "fuse-overlayfs"}


def temporary(target: Path) -> Path:
    """Where a restore of `target` is put together: always the same name, so that a killed one is found and replaced."""
    return target.with_name(f".{target.name}.sidecar-restore")


def aside(target: Path, reason: str, at: Timestamp) -> Path:
    """Where a database goes that gives way to another: app.db.diverged-20261120T145503.123Z, or later if taken."""
    place = target.with_name(f"{target.name}.{reason}-{at}")
    taken = any(os.path.lexists(f"{place}{suffix}") for suffix in ("", *COMPANIONS))
    return aside(target, reason, at.next()) if taken else place


def kept_aside(target: Path, reason: str) -> list[tuple[Path, Timestamp]]:
    """What was moved aside for this reason, oldest first, and is not marked as done (`mark_done`)."""
    found = []
    prefix = f"{target.name}.{reason}-"
    for path in sorted(target.parent.glob(f"{glob.escape(prefix)}*Z")):
        with suppress(ValueError):
            at = Timestamp(path.name.removeprefix(prefix))
            if not _done(path).exists():
                found.append((path, at))
    return found


def mark_done(path: Path) -> None:
    """Remember that something kept aside needs no more care."""
    os.close(os.open(_done(path), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW, 0o600))


def _done(path: Path) -> Path:
    return path.with_name(f"{path.name}.published")


def require_room(target: Path, size: int) -> None:
    """Raise `NoRoom` unless `size` bytes fit beside `target`."""
    free = shutil.disk_usage(target.parent).free
    if free < size + RESERVE:
        raise NoRoom(
            f"no room to restore {target}: it needs {size} bytes, {free} are free in {target.parent}",
            "free some space or use a larger disk",
        )


def require_writable(target: Path) -> None:
    """Raise `ConfigurationError` when the directory of `target` exists and nothing can be written there."""
    if target.parent.exists() and not os.access(target.parent, os.W_OK | os.X_OK):
        raise ConfigurationError(
            f"{target.parent} is not writable",
            "SQLite, the restore and the lineage marker need to write beside the database",
        )


def require_unused(path: Path, *, own: bool = False) -> None:
    """Raise `DatabaseBusy` when a process on this machine has the file open, as far as we may look (proc(5)).

    With `own` this process counts as well: the program that embeds us may have the database open.
    """
    wanted = path.stat()
    for process in Path("/proc").glob("[0-9]*"):
        if (own or process.name != str(os.getpid())) and _has_open(process, wanted):
            raise DatabaseBusy(f"{path} is open in process {process.name}", "stop it first")


def _has_open(process: Path, wanted: os.stat_result) -> bool:
    with suppress(OSError):  # the process is gone, or somebody else's
        for file in (process / "fd").iterdir():
            with suppress(OSError):  # closed meanwhile; the others count
                if os.path.samestat(file.stat(), wanted):
                    return True
    return False


@dataclass(frozen=True, slots=True)
class Swap:
    """A restored file that takes the place of what is at `target`.

    `kept` is where a database that is there goes, None when there is none; `at` names orphans of a missing one.
    `before_rename` is told the restored file, whose inode stays, before it gets its name.
    """

    restored: Path
    target: Path
    kept: Path | None
    at: Timestamp
    durable: bool
    before_rename: Callable[[Path], None] = lambda _restored: None


def swap(what: Swap) -> list[Path]:
    """Carry it out; to be called in one piece, in a thread. Returns where orphaned logs are now.

    A crash at any instant leaves either no database or a whole one, and a foreign WAL never meets the new file. When
    anything fails the old database is put back, unless another one is there by then. Raises OSError, and `DatabaseBusy` when a database appeared meanwhile.
    """
    orphans = [] if what.kept else keep_orphans(what.target, what.at)
    if what.kept:
        move_aside(what.target, what.kept)
    try:
        what.before_rename(what.restored)
        put_in_place(what.restored, what.target, durable=what.durable, like=what.kept)
    except BaseException:
        if what.kept and not what.target.exists():  # never over what somebody else has put there meanwhile
            move_aside(what.kept, what.target)
        raise
    return orphans


def put_in_place(restored: Path, target: Path, *, durable: bool, like: Path | None = None) -> None:
    """Rename a restored database to its name, after whatever would be replayed into it is out of the way.

    It gets the owner and mode of the file that it takes the place of: `like`, or the empty one that is there. Raises
    `DatabaseBusy`, before anything is changed, when a database has appeared there meanwhile.
    """
    _require_free(target)
    _inherit(restored, like or target)
    for suffix in COMPANIONS:
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    if durable:
        sync(restored)
    _take_name(restored, target)
    if durable:
        sync(target.parent)


def _require_free(target: Path) -> None:
    if target.exists() and target.stat().st_size:
        raise DatabaseBusy(f"{target} was created while it was restored", "stop whoever writes to it, and try again")


def _take_name(restored: Path, target: Path) -> None:
    """Rename over nothing, or over an empty file."""
    if not target.exists():
        try:
            os.link(restored, target)  # link(2) refuses where rename(2) would replace
        except FileExistsError:
            pass
        except OSError:
            os.replace(restored, target)  # a file system without hard links
            return
        else:
            restored.unlink()
            return
    _require_free(target)
    os.replace(restored, target)


def _inherit(restored: Path, predecessor: Path) -> None:
    with suppress(FileNotFoundError, PermissionError):
        status = os.stat(predecessor)
        with opened_alone(restored) as file:
            os.fchmod(file, status.st_mode & 0o777)
            os.fchown(file, status.st_uid, status.st_gid)


@contextmanager
def opened_alone(path: str | Path, folder: int | None = None) -> Iterator[int]:
    """A regular file that has no other name, open for reading; `folder` is the descriptor of its directory.

    Whoever may write in a directory can put a link to any file there. What is done to a file with root's rights is done
    to its descriptor, of which this is known. Not for a database that this process has open: closing would drop its locks.
    Raises OSError, with EMLINK or ELOOP for links.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file", str(path))
        if status.st_nlink != 1:
            raise OSError(errno.EMLINK, "it has another name, a hard link", str(path))
        yield file
    finally:
        os.close(file)


def move_aside(target: Path, to: Path) -> None:
    """Rename a database nobody uses, with what belongs to it; SQLite opens it under its new name.

    The database goes first. After a crash in between, its WAL is found without a database and follows (`keep_orphans`).
    """
    if target.exists():
        os.replace(target, to)
    for suffix in ("-wal", "-journal"):
        companion = Path(f"{target}{suffix}")
        if companion.exists():
            os.replace(companion, f"{to}{suffix}")
    Path(f"{target}-shm").unlink(missing_ok=True)  # an index of the WAL, which SQLite makes anew


def keep_orphans(target: Path, at: Timestamp) -> list[Path]:
    """Move a non-empty WAL or journal without a database out of the way; returns where they are now."""
    kept: list[Path] = []
    place = aside(target, "orphaned", at)
    for suffix in ("-wal", "-journal"):
        orphan = Path(f"{target}{suffix}")
        if orphan.exists() and orphan.stat().st_size:
            kept.append(Path(f"{place}{suffix}"))
            os.replace(orphan, kept[-1])
    return kept


def is_durable(path: Path, mode: Durability, *, ephemeral_root: bool) -> bool:
    """Whether to fsync what is written at `path`.

    `ephemeral_root` says that the root file system is wiped with the machine, whatever its type (fly.io Machines).
    """
    if mode is not Durability.AUTO:
        return mode is Durability.ALWAYS
    mount, kind = mount_of(path.resolve()) or Mount("", "")
    return kind not in _EPHEMERAL and not (ephemeral_root and mount == "/")


def write_all(file: int, data: Bytes, offset: int) -> None:
    """pwrite(2) until everything is written: it may write less, on a disk that is nearly full for example."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def write_new(path: Path, data: bytes) -> None:
    """Write a file that is certainly ours, whatever lay under that name.

    The directory may belong to the app's user, and a symbolic link would lead our rights to another file. Raises OSError.
    """
    path.unlink(missing_ok=True)
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o644)
    try:
        write_all(file, data, 0)
    finally:
        os.close(file)


def sync(path: Path) -> None:
    """fsync a file or directory."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def local_errors(target: Path) -> Iterator[None]:
    """The one place where errors of local files become ours."""
    try:
        yield
    except OSError as error:
        raise _translate(error, target) from error


def _translate(error: OSError, target: Path) -> SidecarError:
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return NoRoom(f"no room to write {target}: {error.strerror}", "free some space or use a larger disk")
    return ConfigurationError(
        f"cannot write {target}: {error.strerror}", "the directory must exist and be writable for sidecar and the app"
    )
