"""The contract of one SQLite database on this disk."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from pathlib import Path
from typing import Protocol

from sidecar.database.findings import CheckReport
from sidecar.database.in_place import Choose, Comparison
from sidecar.database.wal.backlog import Batch
from sidecar.database.wal.capture import FeedStatus
from sidecar.database.wal.changed import Changed
from sidecar.database.wal.descriptors import Stamps
from sidecar.database.wal.header import WalIndex
from sidecar.model import LogPosition, Signature, Snapshot


class Staging(Protocol):
    """The place for snapshots until they are published."""

    def reserve(self, database: Path, size: int) -> AbstractContextManager[tuple[Path, bool]]:
        """An empty private file for a snapshot of `size` bytes, and whether it is on tmpfs; it is removed at the end.

        What a killed process left for the same database is removed first. Raises `NoRoom`.
        """
        ...


class Snapshotter(Protocol):
    """Takes consistent copies of databases that are in use."""

    def sqlite_version(self) -> str:
        """The version of the SQLite library in use, like 3.53.4."""
        ...

    def may_checkpoint(self) -> bool:
        """Whether that version may checkpoint while another process does (https://sqlite.org/wal.html#walresetbug)."""
        ...

    def signature(self, path: Path) -> Signature | None:
        """What stat reports of the database and its WAL; None when the database does not exist or has zero bytes.

        Raises `ConfigurationError` when the path is not a regular file or may not be read.
        """
        ...

    async def prepare(self, path: Path) -> None:
        """Check, before the app runs, that the file is a database, and switch it to WAL unless the mode is to be kept.

        Raises `DamagedDatabase`, `DatabaseBusy`.
        """
        ...

    def snapshot(self, path: Path, choose: Choose | None = None) -> AbstractAsyncContextManager[Snapshot]:
        """A consistent copy in staging, even while others write; it is removed at the end of the block.

        `choose` may leave out parts of a followed database, which it knows.

        Raises `DamagedDatabase`, `DatabaseBusy`, `NoRoom`, `DatabaseMissing`.
        """
        ...

    async def compare(self, path: Path, choose: Choose) -> Comparison | None:
        """Compare parts of a followed database with what `choose` knows of them; None if that is not possible now.

        It takes a second or so, and compares at least one part. Raises as `snapshot`.
        """
        ...

    async def settle(self, path: Path) -> None:
        """Merge the WAL of a database that nobody uses into it, so that the file alone is the whole database.

        Raises `DatabaseBusy` when it is in use, `DamagedDatabase`.
        """
        ...


class Feed(Protocol):
    """The commits of one live database, captured from its WAL in order while the app writes."""

    @property
    def run(self) -> int:
        """Counts how often it was begun: commits are numbered anew each time. 0 before that."""
        ...

    @property
    def changed(self) -> Changed:
        """What the captured commits of this run have written. Raises `StreamCut` where nothing was ever followed."""
        ...

    @property
    def status(self) -> FeedStatus:
        """What it does at this moment."""
        ...

    async def begin(self, since: Stamps | None = None) -> LogPosition:
        """Follow from the present state on, or from `since`. Raises `NotStreamable`, and `StreamCut` when that failed."""
        ...

    async def at_rest(self) -> Stamps | None:
        """The state of a database that nobody has written to since it was closed; None where that is not known."""
        ...

    async def take(self, timeout: float) -> Batch:
        """What was captured since the last time, as soon as there is something, else nothing after `timeout` seconds.

        Raises `StreamCut` when continuity was lost, once everything from before was taken.
        """
        ...

    async def flush(self) -> None:
        """Return when everything is captured that was committed before the call. Raises `StreamCut`."""
        ...

    async def stop(self) -> None:
        """Follow no more, and close the database."""
        ...

    def present(self) -> AbstractAsyncContextManager[None]:
        """The database stays open for `index` and `locate`, even if no program has it open. Raises `StreamCut`."""
        ...

    def index(self) -> WalIndex:
        """The wal-index at this moment, from any thread. Raises `StreamCut`, and `NotNow` while it is being written."""
        ...

    async def locate(self, index: WalIndex) -> int | None:
        """The number of the commit that a snapshot shows whose begin left the wal-index at `index`; None if unknown.

        Raises `StreamCut`.
        """
        ...


# Called every few milliseconds from the thread that checks. It may sleep, with the function that it is given: that takes
# seconds and returns early, with True, when the check is cancelled.
YieldToApp = Callable[[Callable[[float], bool]], None]


class IntegrityCheck(Protocol):
    """SQLite's own check of a database."""

    async def check(self, path: Path, mode: str, yield_to_app: YieldToApp | None = None) -> CheckReport:
        """Check a file that nobody writes to, in one of `findings.MODES`. Raises `SidecarError` if that is not possible."""
        ...

    async def unreadable_live(self, path: Path, yield_to_app: YieldToApp | None = None) -> str:
        """The first table of a live database that cannot be read to its end, with the reason; empty when all can.

        Raises `DatabaseBusy` and the like when it cannot be found out.
        """
        ...
