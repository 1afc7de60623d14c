"""What is beside a database under the name `<db>.lock`: the lock of a program without POSIX locks, or just a file.

SQLite's VFS `unix-dotfile` and builds for WebAssembly make a directory of that name (https://sqlite.org/vfs.html). A file
was the lock of old versions; today it is most likely that of a library, such as Python's filelock.
"""

import os
import stat
from pathlib import Path
from typing import Literal

from sidecar.errors import OtherLocks
from sidecar.host import Seen, identity_of
from sidecar.host.openers import openers
from sidecar.status.documentation import OTHER_LOCKS

Kind = Literal["directory", "file"]


def lock_of(path: Path) -> Path:
    """The name of the lock of a database."""
    return Path(f"{path}.lock")


def kind_of(lock: Path) -> Kind | None:
    """What is there now. A symbolic link counts as a file."""
    try:
        return "directory" if stat.S_ISDIR(os.lstat(lock).st_mode) else "file"
    except OSError:
        return None


def kind_seen(seen: Seen) -> Kind | None:
    """What was there at any time; of both, the directory."""
    return "directory" if seen.directory else "file" if seen.file else None


def lock_exists(path: Path, kind: Kind) -> OtherLocks:
    """The error for a lock that is there."""
    lock = lock_of(path)
    if kind == "file":
        return OtherLocks(
            f"{lock} exists: it may be the lock of a program that does not use POSIX locks on {path}, and no program was seen to use them",
            f"check that no program uses that file (`fuser -v {lock}`), then move it away or delete it: `rm {lock}`; "
            f"for a lock library, such as filelock, choose another name. See {OTHER_LOCKS}",
        )
    database = identity_of(path)
    users = openers({database}, name=path.name) if database else []
    if users:
        return OtherLocks(
            f"{lock} exists, and process {users[0].pid} has the database open: it seems to lock with that directory instead of "
            f"POSIX locks, so {path} cannot be copied safely",
            f"open it with SQLite's default VFS in the app; see {OTHER_LOCKS}",
        )
    return OtherLocks(
        f"{lock} exists: a program locks {path} with that directory instead of POSIX locks, or left it behind when it was killed",
        f"if no program uses the database, remove it with `rmdir {lock}`, and open it with SQLite's default VFS; see {OTHER_LOCKS}",
    )


def lock_was_there(path: Path, kind: Kind) -> OtherLocks:
    """The error for a lock that was there."""
    if kind == "file":
        return OtherLocks(
            f"{lock_of(path)} was created since sidecar started: it may be the lock of a program that does not use POSIX locks on {path}",
            f"backups go on once a program is seen to use POSIX locks; for a lock library choose another name. See {OTHER_LOCKS}",
        )
    return OtherLocks(
        f"{lock_of(path)} was created since sidecar started: a program locks {path} with it instead of POSIX locks, so it cannot be copied safely",
        f"open it with SQLite's default VFS in the app, and start again; see {OTHER_LOCKS}",
    )
