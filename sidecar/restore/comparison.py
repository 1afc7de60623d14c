"""A local database beside what the store has of it, where the log proves nothing any more.

If every page is the same, nothing is missing. If not, it may have been written to since, when nobody streamed it, or it has
lost commits, or both: SQLite leaves no trace of a log that was removed. So nothing but the same pages proves anything. That
commits were lost is certain where a page is as it was before, in the restore point or in an earlier commit.
"""

from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import BinaryIO

from anyio import to_thread

from sidecar.database import Marker, Snapshotter
from sidecar.errors import DamagedDatabase, DatabaseBusy
from sidecar.host import kernel_boot
from sidecar.model import Bytes, Database, RestorePoint
from sidecar.progress import Progress
from sidecar.repository.history import Path as History
from sidecar.restore.descent import without_rewritten
from sidecar.restore.recovery import Recovered, Recovery

BLOCK = 1 << 20


class Verdict(Enum):
    """What a comparison says of a local database."""

    WHOLE = "it has everything that the store has, or the store has not all that it should"
    UNKNOWN = "it is not known whether it only was written to since, or has lost commits, too"
    BEHIND = "it lacks commits that the store has"


@dataclass(frozen=True, slots=True)
class Compared:
    """What a comparison says. `damage` is what is wrong with the stream in the store, else it is empty."""

    verdict: Verdict
    damage: str = ""


class Comparison:
    """Compares local databases, as they are at a boot."""

    def __init__(self, recovery: Recovery, snapshotter: Snapshotter, *, alone: bool) -> None:
        """`alone`: the app is not started yet, so that whatever is not proved is no reason to let it run with it."""
        self._recovery = recovery
        self._alone = alone
        self._snapshotter = snapshotter

    async def compare(
        self, database: Database, newest: RestorePoint, marker: Marker | None, progress: Progress | None = None
    ) -> Compared:
        """Compare a database with the newest restore point and its stream. Raises `DamagedRestorePoint`."""
        recovered = await self._recovery.stage(newest, database, progress)
        try:
            if recovered.wanting:
                rejected = recovered.rejected
                return Compared(Verdict.WHOLE, rejected.reason if rejected else recovered.reached.stopped)
            return Compared(await self._verdict(database, newest, marker, recovered))
        finally:
            recovered.staged.unlink(missing_ok=True)

    async def _verdict(
        self, database: Database, newest: RestorePoint, marker: Marker | None, recovered: Recovered
    ) -> Verdict:
        async with self._as_one_file(database.path) as local:
            different = await to_thread.run_sync(different_pages, recovered.staged, local)
            if different is None or await to_thread.run_sync(_is_cut_short, local):
                return Verdict.BEHIND
            if not different:
                return Verdict.WHOLE
            if self._alone:
                return Verdict.UNKNOWN
            recovered.staged.unlink()
            if marker is None or marker.kernel is None or marker.kernel != kernel_boot():
                return Verdict.BEHIND
            behind = await self._is_behind(local, different, database, newest, recovered.rolled.history)
            return Verdict.BEHIND if behind else Verdict.UNKNOWN

    @asynccontextmanager
    async def _as_one_file(self, path: Path) -> AsyncIterator[Path]:
        """The database without a log: its own file, or a copy where somebody has it open, or the file makes no sense alone."""
        async with AsyncExitStack() as stack:
            try:
                await self._snapshotter.settle(path)
            except (DatabaseBusy, DamagedDatabase):
                with suppress(DamagedDatabase):  # such a database differs from the store
                    path = (await stack.enter_async_context(self._snapshotter.snapshot(path))).path
            yield path

    async def _is_behind(
        self, local: Path, different: set[int], database: Database, newest: RestorePoint, history: History
    ) -> bool:
        """Whether one of the pages that differ from the end of the history is as it was earlier in it."""
        base = await self._recovery.stage_alone(newest, database)
        try:
            if await to_thread.run_sync(_has_any_of_file, local, base, different):
                return True
            async with aclosing(self._recovery.images(history, base)) as earlier:
                async for images in earlier:
                    if await to_thread.run_sync(_has_any, local, images, different):
                        return True
            return False
        finally:
            base.unlink(missing_ok=True)


def different_pages(one: Path, other: Path) -> set[int] | None:
    """The numbers of the pages that differ in two database files, but for what SQLite's backup rewrites in page 1.

    None where the pages are not of one size.
    """
    with one.open("rb") as first, other.open("rb") as second:
        size, block, found = _page_size(first), 0, set[int]()
        if not size or size != _page_size(second):
            return None
        while (here := first.read(BLOCK)) and (there := second.read(BLOCK)):
            if here != there:
                pages = range(0, min(len(here), len(there)), size)
                found |= {block + at // size + 1 for at in pages if here[at : at + size] != there[at : at + size]}
            block += BLOCK // size
        ends = [path.stat().st_size // size for path in (one, other)]
        found |= set(range(min(ends) + 1, max(ends) + 1))
        if 1 in found and _page(first, 1, size) == _page(second, 1, size):
            found.remove(1)
        return found


def _is_cut_short(file: Path) -> bool:
    """Whether a database file has fewer pages than its first page says."""
    with file.open("rb") as content:
        size = _page_size(content)
        return file.stat().st_size < size * int.from_bytes(_page(content, 1, size)[28:32], "big")


def _has_any(file: Path, images: Mapping[int, Bytes], wanted: set[int]) -> bool:
    """Whether one of the wanted pages of a file is one of these images."""
    with file.open("rb") as content:
        size = _page_size(content)
        return any(
            _page(content, page, size) == (without_rewritten(images[page]) if page == 1 else bytes(images[page]))
            for page in images.keys() & wanted
        )


def _has_any_of_file(file: Path, other: Path, wanted: set[int]) -> bool:
    """Whether one of the wanted pages is the same in both files."""
    with file.open("rb") as content, other.open("rb") as second:
        size = _page_size(content)
        return any((found := _page(content, page, size)) and found == _page(second, page, size) for page in wanted)


def _page(file: BinaryIO, page: int, size: int) -> bytes:
    file.seek((page - 1) * size)
    content = file.read(size)
    return bytes(without_rewritten(content)) if page == 1 else content


def _page_size(file: BinaryIO) -> int:
    """The page size in the header, https://sqlite.org/fileformat2.html#the_database_header; 0 where there is none."""
    file.seek(16)
    size = int.from_bytes(file.read(2), "big")
    file.seek(0)
    return 65536 if size == 1 else size
