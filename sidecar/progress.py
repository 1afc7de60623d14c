"""How far a long piece of work is: a bar on a terminal, a log line every 10 s elsewhere."""

import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager

import structlog

from sidecar.units import format_size

log = structlog.get_logger()

LOG_EVERY = 10.0


Progress = Callable[[int, int], None]


@contextmanager
def progress_log(title: str) -> Iterator[Progress]:
    """A function to tell (bytes done, bytes in all): a log line each 10 s. For a daemon, whose terminal is its app's."""
    yield _logged(title)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A function to tell (bytes done, bytes in all): a bar with rate and time left, or a log line each 10 s."""
    if not sys.stderr.isatty():
        yield _logged(title)
        return
    # Imported only when somebody looks. Its own locks are for several processes: semaphores, and a thread that wakes up.
    from tqdm import tqdm

    tqdm.monitor_interval = 0
    tqdm.set_lock(threading.RLock())
    # Asked for by itself, tqdm shows nothing on a terminal without a size, such as a container's may be.
    width, height = shutil.get_terminal_size()
    style = {"unit": "B", "unit_scale": True, "unit_divisor": 1024, "leave": False}
    with ExitStack() as shown:
        bar: tqdm | None = None

        def tell(done: int, total: int) -> None:
            nonlocal bar
            bar = (
                bar if bar is not None else shown.enter_context(tqdm(desc=title, ncols=width, nrows=height, **style))
            )  # not for nothing
            bar.total = total
            bar.update(done - bar.n)

        yield tell


def combined(progress: Progress, sizes: Sequence[int]) -> Callable[[int], Progress]:
    """Progress of several things at once as that of one: give it a thing's number, get what to tell about that one."""
    done = [0] * len(sizes)

    def of(number: int) -> Progress:
        def tell(so_far: int, total: int) -> None:
            done[number] = round(so_far / max(total, 1) * sizes[number])
            progress(sum(done), sum(sizes))

        return tell

    return of


def _logged(title: str, clock: Callable[[], float] = time.monotonic) -> Progress:
    """A line each 10 s at most; none for what takes less."""
    started = last = clock()

    def tell(done: int, total: int) -> None:
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

    return tell
