"""Progress of long work: a bar on a terminal, a log line every 10 s elsewhere, or nothing."""

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext

from sidecar.log import log
from sidecar.units import format_size

LOG_EVERY = 10.0
BAR_AFTER = 0.5  # seconds: work that takes less has no bar, which would only flicker

Progress = Callable[[int, int], None]

# Opens the progress of a piece of work under a title: `progress_log`, `progress_bar`, `no_progress`.
Show = Callable[[str], AbstractContextManager[Progress]]


@contextmanager
def no_progress(_title: str) -> Iterator[Progress]:
    """Progress that nobody watches."""
    yield lambda _done, _total: None


@contextmanager
def progress_log(title: str) -> Iterator[Progress]:
    """Log (bytes done, total bytes) every 10 s. For a daemon, whose terminal belongs to its app."""
    yield _log_progress(title)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """Show (bytes done, total bytes) as a bar with rate and time left, or as a log line every 10 s without a terminal."""
    if not sys.stderr.isatty():
        yield _log_progress(title)
        return
    # Imported only for a terminal. tqdm's own locks are made for several processes: semaphores, and a monitor thread.
    from tqdm import tqdm

    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())
    # tqdm shows nothing on a terminal that reports no size, as the one of a container may.
    width, height = shutil.get_terminal_size()
    style = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "leave": False, "ncols": width, "nrows": height}
    started = time.monotonic()
    with ExitStack() as shown:
        bar: tqdm | None = None

        def report(done: int, total: int) -> None:
            nonlocal bar
            if bar is None and time.monotonic() - started >= BAR_AFTER:
                bar = shown.enter_context(tqdm(desc=title, total=total, initial=done, **style))
            if bar is not None:
                bar.total = total
                bar.update(done - bar.n)

        yield report


@contextmanager
def bar_hidden() -> Iterator[None]:
    """Take the progress bars off the terminal while something else is written to it."""
    loaded = sys.modules.get("tqdm")
    with loaded.tqdm.external_write_mode(sys.stderr) if loaded else nullcontext():
        yield


def combined(progress: Progress, sizes: Sequence[int]) -> Callable[[int], Progress]:
    """Combine the progress of several objects of these sizes into one; the result gives the progress of object `number`."""
    done = [0] * len(sizes)

    def of(number: int) -> Progress:
        def report(so_far: int, total: int) -> None:
            done[number] = round(so_far / max(total, 1) * sizes[number])
            progress(sum(done), sum(sizes))

        return report

    return of


def _log_progress(title: str, clock: Callable[[], float] = time.monotonic) -> Progress:
    """Log at most one line every 10 s, and none for work that takes less."""
    started = last = clock()

    def report(done: int, total: int) -> None:
        nonlocal last
        now = clock()
        if now - last < LOG_EVERY:
            return
        last, rate = now, done / (now - started)
        log.info(
            title,
            done=format_size(done),
            total=format_size(total),
            percent=round(100 * done / max(total, 1)),
            rate=f"{format_size(rate)}/s",
            seconds_left=round((total - done) / rate) if rate else None,
        )

    return report
