"""Runs a comparison in a thread, and opens its result, which is gone afterwards."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from pathlib import Path

from anyio import from_thread, to_thread

from sidecar.compare.engine import compare
from sidecar.compare.opening import Named
from sidecar.compare.options import Options
from sidecar.compare.reading import Result, opened_result
from sidecar.compare.result import KEPT_ROWS, ResultWriter
from sidecar.concurrency import in_own_task
from sidecar.database import Driver
from sidecar.errors import NoRoom
from sidecar.host import local_errors
from sidecar.progress import Progress


@asynccontextmanager
async def compared(
    driver: Driver,
    before: Named,
    after: Named,
    options: Options,
    directory: Path,
    progress: Progress,
    *,
    everything: bool = False,
) -> AsyncIterator[Result]:
    """Compare two states. The result is in `directory`, named after their root digests.

    With `everything` it has all rows, and long values as they are. `progress` is called with (chunks done, chunks to do).
    Raises `DamagedDatabase`, `UsageError`, `NoRoom`, and what reading the states raises.
    """
    path = directory / f"{before.root[:32]}-{after.root[:32]}.sqlite3"

    def work() -> None:
        def tick(done: int, total: int) -> None:
            from_thread.check_cancelled()
            if total:
                progress(done, total)

        keep = None if everything else KEPT_ROWS
        with (
            driver.translated(path),
            local_errors(path),
            closing(ResultWriter(driver, path, keep=keep, whole_values=everything)) as writer,
        ):
            writer.meta(before=before.name, after=after.name, root_before=before.root, root_after=after.root)
            compare(driver, before, after, writer, options, directory, tick)
            before.check()
            after.check()
            writer.finish()

    try:
        try:
            await _in_thread(work)
        except NoRoom as error:
            raise NoRoom(error.message, "free some space, or set TMPDIR to a directory with more") from error
        async with opened_result(driver, path) as result:
            yield result
    finally:
        path.unlink(missing_ok=True)


@in_own_task
async def _in_thread(work: Callable[[], None]) -> None:
    """A program that embeds us may cancel the task; the thread is waited for before its files are deleted."""
    await to_thread.run_sync(work)
