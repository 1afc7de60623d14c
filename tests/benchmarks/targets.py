"""What the project promises, beside what was measured. Never an assertion: a target missed is a line in a table."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass

from tests.benchmarks.results import MIB, Results, show_size

OFFICIAL = 1024 * MIB

_PUBLISHES = ("first", "range", "append", "random")
_US, _PEER, _HAND = "sidecar", "litestream", "rclone + zstd"


@dataclass(frozen=True, slots=True)
class Target:
    """One promise. `measured` and `limit` are in the same unit, None when it was not measured."""

    what: str
    target: str
    limit: float
    measured: float | None
    shown: str

    @property
    def verdict(self) -> str:
        """Met, or missed by how much."""
        if self.measured is None:
            return "not measured"
        if self.measured <= self.limit:
            return "met"
        if not self.limit:
            return "missed"
        over = self.measured / self.limit
        return f"missed: {over:.1f} times the target" if over >= 2 else f"missed by {over - 1:.1%}"

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self) | {"verdict": self.verdict}


def targets(results: Results) -> list[Target]:
    """All targets, at the size nearest to the one they are defined at (1 GiB)."""
    sizes = results.sizes("first") or results.sizes("restore") or results.sizes("latency")
    size = min(sizes, key=lambda each: abs(each - OFFICIAL)) if sizes else OFFICIAL
    figures = _Figures(results, size)
    found = [*_of_speed(figures), *_of_memory_and_disk(figures), *_of_running(figures)]
    return [*found, *_of_growth(results), *_of_profiles(results)]


class _Figures:
    """Medians at one size."""

    def __init__(self, results: Results, size: int) -> None:
        self.results, self.size = results, size
        self.label = show_size(size)

    def value(self, scenario: str, metric: str, tool: str = _US, size: int | None = None) -> float | None:
        return self.results.median(self.size if size is None else size, scenario, tool, metric)

    def ratio(self, scenario: str, metric: str, tool: str) -> float | None:
        return divided(self.value(scenario, metric), self.value(scenario, metric, tool))

    def of_first(self, scenario: str, metric: str) -> float | None:
        return divided(self.value(scenario, metric), self.value("first", metric))

    def highest(self, scenarios: tuple[str, ...], metric: str) -> float | None:
        return max((each for name in scenarios if (each := self.value(name, metric)) is not None), default=None)


def divided(value: float | None, by: float | None) -> float | None:
    """A ratio, when there are both."""
    return value / by if value is not None and by else None


def _of_speed(figures: _Figures) -> Iterator[Target]:
    at = figures.label
    yield _times(f"restore {at}: wall, Litestream = 1", 0.25, figures.ratio("restore", "wall", _PEER))
    yield _times(f"restore {at}: wall, rclone copyto + zstd -d = 1", 1.5, figures.ratio("restore", "wall", _HAND))
    yield _times(f"first publish {at}: wall, Litestream = 1", 0.5, figures.ratio("first", "wall", _PEER))
    for scenario, label in (("range", "1 % in one key range"), ("append", "1 % appended")):
        yield _times(f"publish {at}, {label}: bytes sent, first = 1", 0.05, figures.of_first(scenario, "sent"))
        yield _times(f"publish {at}, {label}: wall, first = 1", 0.6, figures.of_first(scenario, "wall"))
    for metric, label in (
        ("sent", "bytes sent"),
        ("wall", "wall"),
    ):  # a twentieth is noise, and 1 % of new random bytes
        yield _times(f"publish {at}, 1 % at random: {label}, first = 1", 1.05, figures.of_first("random", metric))


def _of_memory_and_disk(figures: _Figures) -> Iterator[Target]:
    at = figures.label
    yield _megabytes(f"publish {at}: peak memory", 150, figures.highest(_PUBLISHES, "memory"))
    yield _megabytes(f"restore {at}: peak memory", 150, figures.value("restore", "memory"))
    disk = divided(figures.value("first", "disk"), figures.size)
    on_tmpfs = figures.value("first", "tmpfs") is not None
    limit, where = (0.01, "tmpfs") if on_tmpfs else (1.05, "disk")  # a hundredth: the marker beside the database
    yield _times(f"first publish {at}, staged on {where}: bytes written to disk, database = 1", limit, disk)


def _of_running(figures: _Figures) -> Iterator[Target]:
    alone, beside = figures.value("latency", "p99", "nobody"), figures.value("latency", "p99")
    yield _times(f"commits while publishing {figures.label}: p99, nobody = 1", 1.2, divided(beside, alone))
    started = figures.value("start", "started", size=MIB)
    yield Target("start to app started, 1 MiB", "<= 1.00 s", 1.0, started, _shown(started, "{:.2f} s"))
    size = next(iter(figures.results.sizes("idle")), 0)
    share, memory = (figures.value("idle", metric, size=size) for metric in ("share", "memory"))
    yield Target("idle: CPU", "<= 0.10 %", 0.001, share, _shown(share, "{:.2%}"))
    yield _megabytes("idle: resident memory", 80, memory)


def _of_growth(results: Results) -> Iterator[Target]:
    """Memory must not grow with the database: the largest size beyond 1 GiB against 1 GiB."""
    sizes = results.sizes("first")
    if OFFICIAL not in sizes or sizes[-1] == OFFICIAL:
        return
    for what, scenarios in (("publish", _PUBLISHES), ("restore", ("restore",))):
        small, large = (_Figures(results, size).highest(scenarios, "memory") for size in (OFFICIAL, sizes[-1]))
        yield _times(f"{what} {show_size(sizes[-1])}: peak memory, 1 GiB = 1", 1.15, divided(large, small))


def _of_profiles(results: Results) -> Iterator[Target]:
    """The small machine and the far store, at the only size that each is measured at."""

    def ratio(scenario: str, metric: str, tool: str) -> float | None:
        size = next(iter(results.sizes(scenario)), 0)
        return divided(results.median(size, scenario, _US, metric), results.median(size, scenario, tool, metric))

    size = next(iter(results.sizes("small, publish")), 0)
    written = divided(results.median(size, "small, publish", _US, "device"), size)
    yield _times("small machine, publish: bytes written by the disk, database = 1", 0.01, written)
    beside = ratio("small, commits", "p99", "nobody")
    yield _times("small machine, commits while publishing: p99, nobody = 1", 1.3, beside)
    for scenario in ("far, restore", "far, publish"):
        size = next(iter(results.sizes(scenario)), 0)
        share = results.median(size, scenario, _US, "share")
        yield _times(
            f"{scenario.replace(', ', ' store, ')}: wall, what the link needs = 1", 1 / 0.85, divided(1, share)
        )


def _times(what: str, limit: float, measured: float | None) -> Target:
    return Target(
        what,
        f"<= {limit:.2f}",
        limit,
        measured,
        _shown(measured, "{:.2f}" if measured and measured >= 0.1 else "{:.3f}"),
    )


def _megabytes(what: str, limit: int, measured: float | None) -> Target:
    return Target(what, f"<= {limit} MB", limit * 1e6, measured, _shown(measured and measured / 1e6, "{:.0f} MB"))


def _shown(value: float | None, form: str) -> str:
    return "-" if value is None else form.format(value)
