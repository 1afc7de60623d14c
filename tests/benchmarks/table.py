"""The results as text: for each scenario who needed how much, and the ratio to Litestream."""

from collections.abc import Callable, Iterator, Sequence

from tests.benchmarks.results import MIB, Figure, Results, show_size
from tests.benchmarks.targets import Target

SEGMENTS = {
    "segments, guestbook, 1": "segments of the demo app, an entry a second",
    "segments, guestbook, 20": "segments of the demo app, 20 entries a second",
    "segments, hot, 20": "segments, 20 commits a second, each a row of 450 random bytes and one of 1,000 rows changed",
    "segments, hot, 200": "the same, 200 commits a second",
    "segments, hot, 2000": "the same, 2,000 commits a second",
    "segments, anywhere, 200": "the same, 200 commits a second, with one of all rows changed",
}
TITLES = {
    **SEGMENTS,
    "first": "first publish",
    "restore": "restore",
    "send": "the store alone receives the restore point, from rclone",
    "copy": "the store alone copies the restore point by parts",
    "equal": "publish, nothing changed",
    "range": "publish, 1 % of the rows changed in one key range",
    "append": "publish, 1 % of the rows appended",
    "random": "publish, 1 % of the rows changed at random",
    "diff, 10 rows": "what differs between two restore points, 10 rows anywhere",
    "diff, 100 rows": "what differs between two restore points, 100 rows anywhere",
    "diff, range": "what differs between two restore points, 1 % of the rows in one key range",
    "diff, column": "what differs between two restore points, a column added",
    "diff, vacuum": "what differs between two restore points, 200 rows and VACUUM",
    "latency": "a writer's commits",
    "start": "start to app started",
    "idle": "idle",
    "loss, s3": "SIGKILL to daemon and app at 200 commits a second, the store is a bucket",
    "loss, file": "SIGKILL to daemon and app at 200 commits a second, the store is a directory",
    "tail": "restore and boot, some hundred segments behind the restore point",
    "commits, normal": "a writer's commits, 100 a second, synchronous=normal",
    "commits, full": "a writer's commits, 100 a second, synchronous=full",
    "load, 100": "daemon beside 100 commits a second",
    "load, 2000": "daemon beside 2,000 commits a second of a writer with busy_timeout 0",
    "truncate": "the app's wal_checkpoint(TRUNCATE), busy_timeout 5 s",
    "quiet": "idle, the app has the database open",
    "parked": "100 databases that nobody writes to, each of",
    "small, publish": "small machine: first publish",
    "small, restore": "small machine: restore",
    "small, commits": "small machine: a writer's commits while it is published",
    "far, down": "far store: a plain parallel download of the restore point",
    "far, up": "far store: a plain parallel upload of as many bytes",
    "far, publish": "far store: first publish",
    "far, restore": "far store: restore",
    "growth, publish": "publish after 100 changed pages",
    "growth, boot": "boot",
}
REFERENCE = "litestream"

_WITHOUT_RATIO = {
    "commits",
    "published",
    "seconds",
    "lost",
    "busy",
    "checkpoints",
    "segments",
    "refused_per_100000",
    "rate",
    "ratio",
}

_GROWING = ("growth, publish", "growth, boot")  # all sizes in one table

Column = tuple[str, str, Callable[[float], str]]


def show_seconds(value: float) -> str:
    """Seconds with two digits that mean something."""
    return f"{value:.2f}" if value >= 0.1 else f"{value:.3f}"


def show_megabytes(value: float) -> str:
    """Bytes as decimal megabytes."""
    return f"{value / 1e6:.0f}" if value >= 10e6 else f"{value / 1e6:.2f}"


_COSTS: tuple[Column, ...] = (
    ("wall s", "wall", show_seconds),
    ("CPU s", "cpu", show_seconds),
    ("memory MB", "memory", show_megabytes),
    ("sent MB", "sent", show_megabytes),
    ("received MB", "received", show_megabytes),
    ("to disk MB", "disk", show_megabytes),
    ("requests", "requests", "{:.0f}".format),
    ("$ per 1000", "price", lambda value: f"{value * 1000:.3f}"),
)
_LATENCY: tuple[Column, ...] = (
    ("p50 ms", "p50", lambda value: f"{value * 1e3:.2f}"),
    ("p99 ms", "p99", lambda value: f"{value * 1e3:.2f}"),
    ("longest ms", "longest", lambda value: f"{value * 1e3:.1f}"),
    ("commits", "commits", "{:.0f}".format),
)
_LOST: tuple[Column, ...] = (("lost s", "seconds", show_seconds), ("commits lost", "lost", "{:.0f}".format))
_DAEMON: tuple[Column, ...] = (
    ("CPU %", "share", lambda value: f"{value * 100:.2f}"),
    ("busiest thread %", "busiest", lambda value: f"{value * 100:.2f}"),
    ("memory MB", "memory", show_megabytes),
)
_DEVICE: tuple[Column, ...] = (
    ("written by the disk MB", "device", show_megabytes),
    ("read MB", "device_read", show_megabytes),
)
_COLUMNS: dict[str, tuple[Column, ...]] = {
    **dict.fromkeys(("small, publish", "small, restore"), (*_COSTS[:5], *_COSTS[6:7], *_DEVICE)),
    "growth, publish": (_COSTS[0], ("daemon CPU s", "daemon", show_seconds), *_COSTS[2:4], _COSTS[6]),
    "growth, boot": (("app started s", "started", show_seconds), *_COSTS[1:3], *_COSTS[4:7]),
    **dict.fromkeys(("far, down", "far, up"), (("wall s", "wall", show_seconds), ("MB/s", "rate", show_megabytes))),
    **dict.fromkeys(("far, publish", "far, restore"), (("share of the link", "share", "{:.2f}".format), *_COSTS[:7])),
    "small, commits": (
        *_LATENCY,
        ("waited in all s", "total", show_seconds),
        ("objects published", "published", "{:.0f}".format),
        *_DEVICE,
    ),
    "loss, s3": _LOST,
    "loss, file": _LOST,
    "tail": (
        ("app started s", "started", show_seconds),
        ("restore s", "wall", show_seconds),
        *_COSTS[1:3],
        ("objects", "segments", "{:.0f}".format),
    ),
    "commits, normal": _LATENCY,
    "commits, full": _LATENCY,
    **dict.fromkeys(
        ("load, 100", "load, 2000"),
        (
            *_DAEMON,
            ("largest WAL MB", "log", show_megabytes),
            ("requests/min", "requests_per_minute", "{:.0f}".format),
            ("sent MB/min", "sent_per_minute", show_megabytes),
            ("whole pages/sent", "ratio", "{:.2f}".format),
            ("refused of 100,000", "refused_per_100000", "{:.1f}".format),
            ("commits/s", "rate", "{:.0f}".format),
            *_LATENCY[:3],
        ),
    ),
    **dict.fromkeys(
        SEGMENTS,
        (
            ("whole KB/segment", "whole", lambda value: f"{value / 1e3:.1f}"),
            ("sent KB/segment", "sent", lambda value: f"{value / 1e3:.1f}"),
            ("ratio", "ratio", "{:.2f}".format),
            ("CPU whole ms/s", "cpu_whole", lambda value: f"{value * 1e3:.1f}"),
            ("CPU ms/s", "cpu", lambda value: f"{value * 1e3:.1f}"),
            ("for s", "seconds", "{:.0f}".format),
        ),
    ),
    "truncate": (
        ("median ms", "median", lambda value: f"{value * 1e3:.1f}"),
        ("longest ms", "longest", lambda value: f"{value * 1e3:.1f}"),
        ("busy", "busy", "{:.0f}".format),
        ("of", "checkpoints", "{:.0f}".format),
    ),
    "quiet": (*_DAEMON, ("for s", "seconds", "{:.0f}".format), ("requests", "requests", "{:.0f}".format)),
    "parked": (*_DAEMON, ("streams", "streams", "{:.0f}".format)),
    "latency": (
        *_LATENCY,
        ("objects published", "published", "{:.0f}".format),
    ),
    **dict.fromkeys(
        ("diff, 10 rows", "diff, 100 rows", "diff, range", "diff, column", "diff, vacuum"),
        (
            _COSTS[0],
            ("after start-up s", "compared", show_seconds),
            ("restored first s", "restored", show_seconds),
            *_COSTS[1:3],
            _COSTS[4],
            _COSTS[6],
        ),
    ),
    "copy": (("wall s", "wall", show_seconds), ("MB/s", "rate", show_megabytes)),
    "start": (("app started s", "started", show_seconds), *_COSTS[1:3]),
    "idle": (
        ("CPU %", "share", lambda value: f"{value * 100:.3f}"),
        ("memory MB", "memory", show_megabytes),
        ("for s", "seconds", "{:.0f}".format),
        ("requests", "requests", "{:.0f}".format),
    ),
}


def report(results: Results, machine: dict[str, object], promised: Sequence[Target]) -> str:
    """Everything, to be printed."""
    memory = float(str(machine["memory_bytes"])) / (MIB << 10)
    about = (
        f"{machine['date']}: {machine['cores']} cores, {memory:.0f} GiB, Linux {machine['kernel']},"
        f" Python {machine['python']}, databases on {machine['file_system']}"
    )
    note = "medians of the runs; (lowest to highest); the ratio to Litestream = 1.00 follows the x"
    blocks = [about, note]
    for scenario, title in TITLES.items():
        sizes = results.sizes(scenario)
        if scenario in _GROWING:
            blocks += [f"\n{title}\n{_block(results, scenario, *sizes)}"] if sizes else []
            continue
        blocks += [f"\n{title}, {show_size(size)}\n{_block(results, scenario, size)}" for size in sizes]
    return "\n".join([*blocks, "\ntargets", _targets(promised)])


def _block(results: Results, scenario: str, *sizes: int) -> str:
    """A line for each tool; with several sizes, for each of a tool's sizes."""
    tools = dict.fromkeys(tool for size in sizes for tool in results.tools(size, scenario))
    lines = [(tool, size) for tool in tools for size in sizes if tool in results.tools(size, scenario)]
    columns = tuple(
        each
        for each in _COLUMNS.get(scenario, _COSTS)
        if any(results.figure(size, scenario, tool, each[1]) for tool, size in lines)
    )
    rows = [["", *(title for title, _, _ in columns)]]
    rows += [
        [f"{tool}, {show_size(size)}" if len(sizes) > 1 else tool, *_cells(results, scenario, size, tool, columns)]
        for tool, size in lines
    ]
    return _aligned(rows)


def _cells(results: Results, scenario: str, size: int, tool: str, columns: Sequence[Column]) -> Iterator[str]:
    for _, metric, form in columns:
        figure = results.figure(size, scenario, tool, metric)
        reference = (
            results.median(size, scenario, REFERENCE, metric)
            if tool != REFERENCE and metric not in _WITHOUT_RATIO
            else None
        )
        yield _cell(figure, reference, form)


def _cell(figure: Figure | None, reference: float | None, form: Callable[[float], str]) -> str:
    if figure is None:
        return "-"
    text = form(figure.median)
    if figure.runs > 1 and form(figure.low) != form(figure.high):
        text += f" ({form(figure.low)} to {form(figure.high)})"
    return f"{text} x{figure.median / reference:.2f}" if reference else text


def _targets(promised: Sequence[Target]) -> str:
    rows = [["what", "target", "measured", ""]]
    return _aligned(rows + [[each.what, each.target, each.shown, each.verdict] for each in promised])


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(f"  {line.rstrip()}" for line in lines)
