"""What streaming promises, beside what was measured. Never an assertion: a bound that is missed is a line in a table."""

from collections.abc import Iterator

from tests.benchmarks.results import MIB, Results
from tests.benchmarks.targets import Target

SIZE = 64 * MIB  # of the database; where many are parked, each has one
_US, _OFF, _NOBODY = "sidecar", "sidecar, stream=off", "nobody"


def bounds(results: Results) -> list[Target]:
    """All bounds of streaming."""
    figures = _Figures(results, SIZE)
    return [*_of_loss(figures), *_of_the_app(figures), *_of_the_daemon(figures), *_of_quiet(figures)]


class _Figures:
    """Values at one size."""

    def __init__(self, results: Results, size: int) -> None:
        self._results, self._size = results, size

    def median(self, scenario: str, metric: str, tool: str = _US, size: int | None = None) -> float | None:
        return self._results.median(self._size if size is None else size, scenario, tool, metric)

    def highest(self, scenario: str, metric: str, tool: str = _US) -> float | None:
        figure = self._results.figure(self._size, scenario, tool, metric)
        return figure.high if figure else None

    def more(self, scenario: str, metric: str, without: str, size: int | None = None) -> float | None:
        """By how much it is more than with another one."""
        ours, other = self.median(scenario, metric, size=size), self.median(scenario, metric, without, size)
        return ours - other if ours is not None and other is not None else None


def _of_loss(figures: _Figures) -> Iterator[Target]:
    for store in ("s3", "file"):
        scenario = f"loss, {store}"
        what = f"kill -9 of daemon and app, 200 commits/s, store {store}"
        yield _bound(f"{what}: most lost", 2.0, figures.highest(scenario, "seconds"), "s")
        yield _bound(f"{what}: median lost", 1.2, figures.median(scenario, "seconds"), "s")
    yield _bound(
        "boot, 300 segments of tail: more than without", 1.0, figures.more("tail", "started", "sidecar, no tail"), "s"
    )


def _of_the_app(figures: _Figures) -> Iterator[Target]:
    for synchronous in ("normal", "full"):
        scenario = f"commits, {synchronous}"
        ours, alone = figures.median(scenario, "p99"), figures.median(scenario, "p99", _NOBODY)
        limit = max(1.5 * alone, alone + 0.0003) if alone else 0.0
        what = f"a writer's commits, 100/s, synchronous={synchronous}: p99, alone {_ms(alone)}"
        yield _bound(what, limit * 1e3, ours and ours * 1e3, "ms", told=synchronous == "full")
    refused = figures.median("load, 2000", "refused_per_100000")
    yield _bound("a writer with busy_timeout 0, 2,000 commits/s: refused of 100,000", 1, refused, "")
    median = figures.median("truncate", "median")
    yield _bound("the app's wal_checkpoint(TRUNCATE): median", 200, median and median * 1e3, "ms")
    yield _bound("the app's wal_checkpoint(TRUNCATE): busy", 0, figures.highest("truncate", "busy"), "")


def _of_the_daemon(figures: _Figures) -> Iterator[Target]:
    def of(metric: str, scale: float) -> float | None:
        value = figures.median("load, 2000", metric)
        return value and value * scale

    yield _bound("2,000 commits/s for a minute: largest WAL", 96, of("log", 1e-6), "MB")
    yield _bound("2,000 commits/s for a minute: CPU of the daemon", 20, of("share", 100), "%")
    yield _bound("2,000 commits/s for a minute: resident memory of the daemon", 150, of("memory", 1e-6), "MB")


def _of_quiet(figures: _Figures) -> Iterator[Target]:
    share, memory = figures.median("quiet", "share"), figures.median("quiet", "memory")
    yield _bound("idle: CPU of the daemon", 0.3, share and share * 100, "%")
    yield _bound("idle: resident memory of the daemon", 120, memory and memory / 1e6, "MB")
    yield _bound("idle: requests for the stream", 0, figures.more("quiet", "streamed", _OFF), "")
    share, memory = (figures.more("parked", metric, _OFF, MIB) for metric in ("share", "memory"))
    yield _bound("100 parked databases: CPU, more than without streaming", 0.5, share and share * 100, "%")
    yield _bound("100 parked databases: memory, more than without streaming", 60, memory and memory / 1e6, "MB")


def _bound(what: str, limit: float, measured: float | None, unit: str, *, told: bool = False) -> Target:
    shown = "-" if measured is None else f"{measured:.3g} {unit}".strip()
    if told:
        return Target(what, "told", float("inf"), measured, shown)
    return Target(what, f"<= {limit:.3g} {unit}".strip(), limit, measured, shown)


def _ms(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.2g} ms"
