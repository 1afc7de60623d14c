"""The file beside a database that has what was overwritten when rows were brought back, and from which that can be undone."""

import os
import re
import shutil
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sidecar.errors import NothingToRestore
from sidecar.host import local_errors, sync
from sidecar.model import Timestamp

UNDO_WITHIN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Saved:
    """Such a file, and when it was written."""

    path: Path
    at: Timestamp

    def discard(self) -> None:
        """Remove it: nothing was done."""
        self.path.unlink(missing_ok=True)

    def mark_undone(self) -> Path:
        """Keep it under a name that says so. Raises what `local_errors` raises."""
        kept = self.path.with_name(self.path.name.replace(".before-", ".undone-"))
        with local_errors(self.path):
            self.path.rename(kept)
        return kept


def save(record: Path, database: Path, at: Timestamp, *, durable: bool) -> Saved:
    """Copy a record beside the database. It gets its name once it is whole; it is readable by the database's owner alone.

    Raises `NoRoom` and the like.
    """
    path = database.with_name(f"{database.name}.before-{at}.sqlite3")
    part = database.with_name(f".{database.name}.before.part")
    with local_errors(path):
        part.unlink(missing_ok=True)
        try:
            file = os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with open(file, "wb") as target, record.open("rb") as source:
                shutil.copyfileobj(source, target, 1 << 20)
            if os.geteuid() == 0:
                owner = database.stat()
                os.chown(part, owner.st_uid, owner.st_gid)
            if durable:
                sync(part)
            part.rename(path)
        finally:
            part.unlink(missing_ok=True)
        if durable:
            sync(path.parent)
    return Saved(path, at)


def last_saved(database: Path, now: datetime) -> Saved:
    """What was brought back last, and can be undone. Raises `NothingToRestore` if there is none, or that is too long ago."""
    pattern = re.compile(re.escape(f"{database.name}.before-") + r"(\d{8}T\d{6}\.\d{3}Z)\.sqlite3")
    found = (pattern.fullmatch(each.name) for each in database.parent.iterdir())
    times = sorted((Timestamp(each[1]) for each in found if each), key=lambda each: each.instant)
    if not times:
        raise NothingToRestore(
            f"nothing that was brought back into {database.name} can be undone", f"there is no {database}.before-… file"
        )
    saved = Saved(database.with_name(f"{database.name}.before-{times[-1]}.sqlite3"), times[-1])
    if now - times[-1].instant > UNDO_WITHIN:
        raise NothingToRestore(
            f"{database.name} was last written to by sidecar at {times[-1]}, more than an hour ago",
            f"{saved.path} has the rows of before, for `sqlite3`",
        )
    return saved
