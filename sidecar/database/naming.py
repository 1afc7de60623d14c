"""Whether the path of a database is the name that its app uses: SQLite names the WAL after that name."""

import os
from pathlib import Path

from sidecar.errors import OtherLocks
from sidecar.host.mounts import mounts
from sidecar.status.documentation import ANOTHER_NAME


def require_own_name(path: Path) -> None:
    """Raise `OtherLocks` for a database that is a mount point: its WAL is written beside the name that the app uses."""
    if str(path.resolve()) in {mount.point for mount in mounts()}:
        raise OtherLocks(
            f"{path} is a mount point of its own: SQLite's WAL is beside the name that the app uses, and not seen here",
            f"mount the directory of the database, not the file; see {ANOTHER_NAME}",
        )


def describe_links(path: Path) -> tuple[str, str] | None:
    """What to report, and what to do, when the database has other hard links: SQLite names the WAL after the link it opens."""
    try:
        links = os.stat(path).st_nlink - 1
    except OSError:
        return None
    if links <= 0:
        return None
    names = "name, a hard link" if links == 1 else "names, hard links"
    return (
        f"{path} has {links} other {names}: what a program writes under another name is in no restore point",
        f"`find / -xdev -samefile {path}` lists them; remove them. See {ANOTHER_NAME}",
    )
