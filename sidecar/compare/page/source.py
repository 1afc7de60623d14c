"""What the page shows: the restore points of one database, and what differs between them."""

from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Protocol

from sidecar.compare.counts import Counts, Stretch
from sidecar.compare.life import Step
from sidecar.model import Database, RestorePoint
from sidecar.progress import Show

LIVE = "live"


class Source(Protocol):
    """States of a database are named by a key, a time, `newest` or `live`. Every method raises what the store raises."""

    database: Database

    @property
    def has_live(self) -> bool:
        """Whether there is a live database on this machine."""
        ...

    async def points(self) -> list[RestorePoint]:
        """All restore points, newest first."""
        ...

    async def stretch(self, points: Sequence[RestorePoint], start: int, count: int) -> Stretch:
        """So many of these, of the main line, from `start` on, with what is known of them."""
        ...

    async def counts(self, older: str, newer: str) -> Counts:
        """How many rows differ between two states. Raises `DamagedRestorePoint`, `DamagedDatabase`."""
        ...

    async def compare(self, before: str, after: str, directory: Path, show: Show) -> Path:
        """The result of comparing two states, as a file in `directory`. Raises as `counts`, and `UsageError`."""
        ...

    def versions(self, table: str, key: str, points: Sequence[RestorePoint]) -> AsyncGenerator[Step, None]:
        """Look for a row in the live database and these restore points, newest first. Raises `UsageError`."""
        ...
