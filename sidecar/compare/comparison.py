"""Runs a comparison in a thread."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, closing
from dataclasses import replace
from functools import partial
from pathlib import Path

from anyio import from_thread, to_thread

from sidecar.compare.engine import compare
from sidecar.compare.opening import Named
from sidecar.compare.options import Options
from sidecar.compare.result import ResultWriter
from sidecar.concurrency import in_own_task
from sidecar.database import Driver
from sidecar.errors import DamagedDatabase, DamagedRestorePoint, NoRoom
from sidecar.host import local_errors
from sidecar.progress import Progress

# A state that is opened in the thread that compares, and closed as soon as it has.
Source = AbstractContextManager[Named]


async def compared(
    driver: Driver,
    before: Source,
    after: Source,
    options: Options,
    directory: Path,
    progress: Progress,
    *,
    everything: bool = False,
) -> Path:
    """Compare two states. The result is in `directory`, named after their root digests; nothing is there if this fails.

    With `everything` it has all rows, and long values as they are. `progress` is called with (chunks done, chunks to do).
    Raises `DamagedDatabase`, `UsageError`, `NoRoom`, and what opening and reading the states raises.
    """
    made: list[Path] = []

    def write(one: Named, other: Named, chosen: Options) -> None:
        path, keep = made[0], None if everything else chosen.kept
        with (
            driver.translated(path),
            local_errors(path),
            closing(ResultWriter(driver, path, keep=keep, whole_values=everything)) as writer,
        ):
            writer.meta(before=one.name, after=other.name, root_before=one.root, root_after=other.root)
            compare(driver, one, other, writer, chosen, directory, partial(_tick, progress, (one, other)))
            one.check()
            other.check()
            writer.finish()

    def work() -> None:
        with before as one, after as other:
            made.append(directory / f"{one.root[:32]}-{other.root[:32]}.sqlite3")
            try:
                write(one, other, replace(options, skip_damaged=False))
            except (DamagedRestorePoint, DamagedDatabase):
                if not options.skip_damaged:
                    raise
                made[0].unlink()
                write(one, other, options.table_by_table())

    try:
        await _in_thread(work)
    except BaseException as error:
        for path in made:
            path.unlink(missing_ok=True)
        if isinstance(error, NoRoom):
            raise NoRoom(
                f"no room in {directory.parent} for what the comparison needs",
                "free some space, or set TMPDIR to a directory with more",
            ) from error
        raise
    return made[0]


def _tick(progress: Progress, states: Sequence[Named], done: int, total: int) -> None:
    from_thread.check_cancelled()
    for each in states:
        each.check()
    if total:
        progress(done, total)


@in_own_task
async def _in_thread(work: Callable[[], None]) -> None:
    """A program that embeds us may cancel the task; the thread is waited for before its files are deleted."""
    await to_thread.run_sync(work)
