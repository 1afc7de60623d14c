"""The contract of one SQLite database on this disk."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Protocol

from sidecar.model import Signature, Snapshot


class Staging(Protocol):
    """Where snapshots lie until they are published."""

    def reserve(self, database: Path, size: int) -> AbstractContextManager[tuple[Path, bool]]:
        """An empty private file for a snapshot of `size` bytes, and whether it is on tmpfs; removed at the end.

        Leftovers of a killed predecessor for the same database are removed first. Raises `NoRoom`.
        """
        ...


class Snapshotter(Protocol):
    """SQLite, as far as backups are concerned."""

    def sqlite_version(self) -> str:
        """The version of the SQLite library in use, like 3.53.4."""
        ...

    def may_checkpoint(self) -> bool:
        """Whether that version may checkpoint while another process does (sqlite.org/wal.html#walresetbug)."""
        ...

    def signature(self, path: Path) -> Signature | None:
        """What stat says of the database and its WAL now; None when there is no database or it has zero bytes.

        Raises `ConfigurationError` when the path is not a regular file or may not be read.
        """
        ...

    async def prepare(self, path: Path) -> None:
        """First contact, before the app runs: see that it is a database, and switch it to WAL unless told to keep.

        Raises `DamagedDatabase`, `DatabaseBusy`.
        """
        ...

    def snapshot(self, path: Path) -> AbstractAsyncContextManager[Snapshot]:
        """A consistent copy in staging, removed at the end of the block, whoever writes meanwhile.

        Raises `DamagedDatabase`, `DatabaseBusy`, `NoRoom`, `DatabaseMissing`.
        """
        ...

    async def settle(self, path: Path) -> None:
        """Fold the WAL of a database that nobody uses into it, so that the file alone is the whole database.

        Raises `DatabaseBusy` when somebody does use it, `DamagedDatabase`.
        """
        ...

    async def integrity(self, path: Path, mode: str, yield_to_app: Callable[[], None] | None = None) -> None:
        """Check a file nobody writes to: `quick`, `full` or `none`. Raises `DamagedDatabase` with SQLite's words.

        `yield_to_app` is called every few milliseconds from the thread that checks, and may sleep.
        """
        ...
