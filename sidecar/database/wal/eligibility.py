"""Determines whether a database can be followed, before it is opened, with reasons for people."""

from collections.abc import Callable
from pathlib import Path

from sidecar.database.driver import Driver
from sidecar.database.locking import require_posix_locks
from sidecar.database.wal.cuts import NotStreamable
from sidecar.database.wal.descriptors import borrowed
from sidecar.database.wal.locks import has_locks_of_files
from sidecar.errors import SidecarError
from sidecar.host import Mount, mount_of

OLDEST = (3, 51, 3)  # without the WAL-reset bug (https://sqlite.org/wal.html#walresetbug)
# SQLite's locks and shared memory do not work across machines (https://sqlite.org/wal.html, "does not work over a network").
_NETWORK = frozenset(
    "9p afs beegfs ceph cifs coda gfs2 glusterfs gpfs lustre ncpfs nfs nfs4 ocfs2 orangefs smb3 smbfs vboxsf".split()  # noqa: SIM905 - a list of names
)
_LOCAL_FUSE = frozenset({"fuse.fuse-overlayfs", "fuse.unionfs", "fuse.mergerfs"})


def require_streamable(path: Path, driver: Driver) -> None:
    """Raise `NotStreamable` if that can be known without opening the database."""
    if reason := unsuitable(path, driver):
        raise NotStreamable(reason)
    try:
        empty = not path.stat().st_size
    except OSError as error:
        raise NotStreamable(f"there is no database at {path} yet") from error
    if empty:
        raise NotStreamable(f"{path} is empty: the app has not written to it yet")
    try:
        require_posix_locks(path)
    except SidecarError as error:
        raise NotStreamable(str(error)) from error
    with borrowed(path) as file:
        if not has_locks_of_files(file):
            raise NotStreamable(
                "this system has no locks that belong to an open file (fcntl F_OFD_SETLK), as Linux has"
            )


def unsuitable(path: Path, driver: Driver, find_mount: Callable[[Path], Mount | None] = mount_of) -> str:
    """Why this process can never follow a database at this path, or an empty string."""
    if driver.version_info < OLDEST:
        return (
            f"SQLite {driver.version} is too old to checkpoint beside the app: streaming needs 3.51.3 or newer, "
            "as pysqlite3 has it (there is no wheel of it for Linux on arm64 yet)"
        )
    mount = find_mount(path.resolve())
    if mount and is_network(mount.kind):
        return f"{path} is on a network file system ({mount.kind}), where SQLite's shared memory does not work"
    return ""


def is_network(kind: str) -> bool:
    """Whether a type of file system, as the mount table names it, is one that other machines may write to."""
    return kind in _NETWORK or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)
