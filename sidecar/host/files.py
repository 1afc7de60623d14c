"""Local files of a database: its companions, moving it aside, putting a restored one in its place."""

import errno
import glob
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from sidecar.errors import ConfigurationError, DatabaseBusy, NoRoom
from sidecar.host.mounts import Mount, mount_of
from sidecar.model import Bytes, Timestamp
from sidecar.policies import Durability

COMPANIONS = ("-wal", "-shm", "-journal")
RESERVE = 1 << 20
_EPHEMERAL = {"overlay", "tmpfs", "ramfs", "aufs", "fuse-overlayfs"}


def temporary(target: Path) -> Path:
    """The path at which `target` is restored: always the same, so that what a killed restore left is replaced."""
    return target.with_name(f".{target.name}.sidecar-restore")


def aside(target: Path, reason: str, at: Timestamp) -> Path:
    """A free path for a database that is moved aside, like app.db.diverged-20261120T145503.123Z."""
    place = target.with_name(f"{target.name}.{reason}-{at}")
    taken = any(os.path.lexists(f"{place}{suffix}") for suffix in ("", *COMPANIONS))
    return aside(target, reason, at.next()) if taken else place


def kept_aside(target: Path, reason: str) -> list[tuple[Path, Timestamp]]:
    """Databases that were moved aside for this reason and are not marked as done, oldest first (`mark_done`)."""
    found = []
    prefix = f"{target.name}.{reason}-"
    for path in sorted(target.parent.glob(f"{glob.escape(prefix)}*Z")):
        with suppress(ValueError):
            at = Timestamp(path.name.removeprefix(prefix))
            if not _done(path).exists():
                found.append((path, at))
    return found


def mark_done(path: Path) -> None:
    """Mark a database that was moved aside as done."""
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
    """A restored file that is to replace what is at `target`.

    `kept` is the new path of the database at `target`, None when there is none; `at` names the orphans of a missing one.
    `before_rename` is called with the restored file, which keeps its inode, before it is renamed. `entrust` gives it owner
    and mode unless a database is replaced, whose own it then gets.
    """

    restored: Path
    target: Path
    kept: Path | None
    at: Timestamp
    durable: bool
    before_rename: Callable[[Path], None] = lambda _restored: None
    entrust: Callable[[Path], None] | None = None


def swap(what: Swap) -> list[Path]:
    """Carry out the swap, uninterrupted in a thread. Returns the new paths of orphaned logs.

    A crash at any instant leaves either no database or a whole one, and the new file never meets a foreign WAL. When
    anything fails, the old database is put back, unless another one has appeared. Raises OSError, and `DatabaseBusy` when
    a database appeared in the meantime.
    """
    orphans = [] if what.kept else keep_orphans(what.target, what.at)
    if what.kept:
        move_aside(what.target, what.kept)
    try:
        what.before_rename(what.restored)
        _set_permissions(what)
        put_in_place(what.restored, what.target, durable=what.durable)
    except BaseException:
        if what.kept and not what.target.exists():  # never over a file that has appeared there meanwhile
            move_aside(what.kept, what.target)
        raise
    return orphans


def _set_permissions(what: Swap) -> None:
    if what.entrust and what.kept is None:
        what.entrust(what.restored)
    else:
        _inherit(what.restored, what.kept or what.target)


def put_in_place(restored: Path, target: Path, *, durable: bool) -> None:
    """Rename a restored database into place, after removing the logs that SQLite would replay into it.

    Raises `DatabaseBusy`, before anything is changed, when a database has appeared at `target`.
    """
    _require_free(target)
    for suffix in COMPANIONS:
        Path(f"{target}{suffix}").unlink(missing_ok=True)
    if durable:
        sync(restored)
    _take_name(restored, target)
    if durable:
        sync(target.parent)


def _require_free(target: Path) -> None:
    if target.exists() and target.stat().st_size:
        raise DatabaseBusy(
            f"{target} was created while it was restored", "stop the process that writes to it, and try again"
        )


def _take_name(restored: Path, target: Path) -> None:
    """Rename a file to a name that is free, or that has an empty file."""
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
    """Open a regular file without other names for reading; `folder` is the descriptor of its directory.

    A user who may write in a directory can put a link to any file there. So root's rights are used on this descriptor
    only. Never open a database that this process uses: closing the descriptor would drop SQLite's locks. Raises OSError,
    with EMLINK or ELOOP for links.
    """
    file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
    try:
        status = os.fstat(file)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", str(path))
        if status.st_nlink != 1:
            raise OSError(errno.EMLINK, "it has another name, a hard link", str(path))
        yield file
    finally:
        os.close(file)


def move_aside(target: Path, to: Path) -> None:
    """Rename a database that nobody uses, with its logs, so that SQLite can open it under the new name.

    The database is renamed first. After a crash in between, its WAL is an orphan and is moved later (`keep_orphans`).
    """
    if target.exists():
        os.replace(target, to)
    for suffix in ("-wal", "-journal"):
        companion = Path(f"{target}{suffix}")
        if companion.exists():
            os.replace(companion, f"{to}{suffix}")
    Path(f"{target}-shm").unlink(missing_ok=True)  # an index of the WAL, which SQLite makes anew


def keep_orphans(target: Path, at: Timestamp) -> list[Path]:
    """Move a non-empty WAL or journal without a database aside; returns the new paths."""
    kept: list[Path] = []
    place = aside(target, "orphaned", at)
    for suffix in ("-wal", "-journal"):
        orphan = Path(f"{target}{suffix}")
        if orphan.exists() and orphan.stat().st_size:
            kept.append(Path(f"{place}{suffix}"))
            os.replace(orphan, kept[-1])
    return kept


def is_durable(path: Path, mode: Durability, *, ephemeral_root: bool) -> bool:
    """Whether files written at `path` are to be fsynced.

    `ephemeral_root` means that the root file system is lost with the machine, whatever its type (fly.io Machines).
    """
    if mode is not Durability.AUTO:
        return mode is Durability.ALWAYS
    mount, kind = mount_of(path.resolve()) or Mount("", "")
    return kind not in _EPHEMERAL and not (ephemeral_root and mount == "/")


def write_all(file: int, data: Bytes, offset: int) -> None:
    """Write everything with pwrite(2), which may write less at a time, on a nearly full disk for example."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def write_new(path: Path, data: bytes) -> None:
    """Replace a file by a new one, without following what is under that name.

    The directory may belong to the app's user, and a symbolic link would apply our rights to another file. Raises
    OSError.
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
