"""Copies of only those parts of a live database that are not known yet, inside a read transaction; see `in_place`."""

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sidecar.database.base import Staging
from sidecar.database.driver import Driver
from sidecar.database.in_place import (
    Choice,
    Choose,
    Comparison,
    NotInPlace,
    Shown,
    compare_parts,
    copy_parts,
    live_parts,
)
from sidecar.database.staging import created
from sidecar.database.statistics import ROWS_COUNTED, Contents, contents_in
from sidecar.database.wal.changed import PART
from sidecar.log import log
from sidecar.model import Followed

if TYPE_CHECKING:
    import sqlite3

SECONDS = 2.0  # in which the log cannot be reset; SQLite's backup is the better known way to take longer
COMPARING = 1.0  # after these seconds, what is left is compared another time


@dataclass(frozen=True, slots=True)
class Staged:
    """A file in staging, with its descriptor."""

    path: Path
    file: int
    on_tmpfs: bool


@dataclass(frozen=True, slots=True)
class Live:
    """A live database in a read transaction of `source`, begun before the monotonic time `began`. `inode` is its file's."""

    source: "sqlite3.Connection"
    path: Path
    inode: int
    shown: Shown
    place: Followed
    began: float


@dataclass(frozen=True, slots=True)
class Known:
    """What was read in place. `staged` is None if the copy is worth nothing, because something differs that must not."""

    copied: frozenset[int]
    found: Comparison
    contents: Contents
    staged: Staged | None


class PartialCopies:
    """Makes them. All methods belong to the thread of the transaction."""

    def __init__(self, driver: Driver, staging: Staging) -> None:
        self._driver = driver
        self._staging = staging

    def copied(self, live: Live, choose: Choose, reserved: ExitStack) -> Known | None:
        """Copy what `choose` chooses to a file that `reserved` keeps; None if everything is to be copied by SQLite."""
        choice = choose(live.place, live.shown.size, live.shown.page_size)
        if choice is None:
            return None
        contents = contents_in(live.source, live.shown.pages)
        if contents.used * live.shown.page_size <= ROWS_COUNTED:  # its rows are counted, in a copy
            return None
        try:
            return self._copied(live, choice, contents, reserved)
        except NotInPlace as reason:
            log.info("database not read in place", path=str(live.path), reason=str(reason))
            return None

    def compared(self, live: Live, choose: Choose) -> Comparison | None:
        """Compare what `choose` knows; see `base.Snapshotter`."""
        choice = choose(live.place, live.shown.size, live.shown.page_size)
        if choice is None:
            return None
        try:
            with live_parts(live.path, live.inode, live.shown, self._driver.version_info) as parts:
                return compare_parts(parts, choice.compare, live.began + COMPARING)
        except NotInPlace as reason:
            log.info("database not compared in place", path=str(live.path), reason=str(reason))
            return None

    def stage(self, path: Path, size: int, reserved: ExitStack) -> Staged:
        """An empty file for `size` bytes of this database. Raises `NoRoom`."""
        target, on_tmpfs = reserved.enter_context(self._staging.reserve(path, size))
        return Staged(target, reserved.enter_context(created(target)), on_tmpfs)

    def _copied(self, live: Live, choice: Choice, contents: Contents, reserved: ExitStack) -> Known:
        with ExitStack() as own:
            staged = self.stage(live.path, len(choice.copy) * PART, own)
            with live_parts(live.path, live.inode, live.shown, self._driver.version_info) as parts:
                copy_parts(parts, choice.copy, staged.file, live.began + SECONDS)
                found = compare_parts(parts, choice.compare, live.began + COMPARING)
            copied = frozenset(choice.copy)
            if found.differing:
                return Known(copied, found, contents, None)
            reserved.push(own.pop_all())
            return Known(copied, found, contents, staged)
