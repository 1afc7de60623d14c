"""The results as pictures: bars in plain SVG, without a background, in colours that read on light and on dark."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from tests.benchmarks.results import Figure, Results, show_size
from tests.benchmarks.table import show_megabytes, show_seconds

COLOURS = {"sidecar": "#2f81f7", "litestream": "#d29922", "rclone + zstd": "#8b949e", "nobody": "#8b949e"}
TEXT = "#768390"

_LABELS = {
    "first": "first publish",
    "range": "1 % in one key range",
    "append": "1 % appended",
    "random": "1 % at random",
    "restore": "restore",
    "latency": "commits",
}
_PUBLISHES = ("first", "range", "append", "random")
_WIDTH, _LEFT, _BARS, _TOP = 720, 160, 420, 64
_BAR, _GAP = 16, 14


@dataclass(frozen=True, slots=True)
class Picture:
    """Which metric of which scenarios one picture shows."""

    name: str
    title: str
    metric: str
    scenarios: tuple[str, ...]
    unit: str
    form: Callable[[float], str]


_PICTURES = (
    Picture("time", "Time", "wall", (*_PUBLISHES, "restore"), "s", show_seconds),
    Picture("sent", "Bytes sent", "sent", _PUBLISHES, "MB", show_megabytes),
    Picture("disk", "Bytes written to the local disk", "disk", (*_PUBLISHES, "restore"), "MB", show_megabytes),
    Picture("memory", "Peak memory", "memory", (*_PUBLISHES, "restore"), "MB", show_megabytes),
    Picture("latency", "p99 of a writer's commits", "p99", ("latency",), "ms", lambda value: f"{value * 1e3:.2f}"),
)

Bar = tuple[str, Figure]
Group = tuple[str, list[Bar]]


def draw(results: Results, machine: dict[str, object], directory: Path) -> list[str]:
    """Write every picture for which there are results, at the largest size; returns their names."""
    drawn = []
    for picture in _PICTURES:
        sizes = [size for scenario in picture.scenarios for size in results.sizes(scenario)]
        if not sizes:
            continue
        subtitle = f"{show_size(max(sizes))} database, {machine['cores']} cores, {machine['date']}; less is better"
        groups = list(_groups(results, picture, max(sizes)))
        directory.mkdir(parents=True, exist_ok=True)
        (directory / f"{picture.name}.svg").write_text(_svg(picture, subtitle, groups))
        drawn.append(f"{picture.name}.svg")
    return drawn


def _groups(results: Results, picture: Picture, size: int) -> Iterator[Group]:
    for scenario in picture.scenarios:
        figures = [(tool, results.figure(size, scenario, tool, picture.metric)) for tool in COLOURS]
        bars = [(tool, figure) for tool, figure in figures if figure]
        if bars:
            yield _LABELS[scenario], bars


def _svg(picture: Picture, subtitle: str, groups: Sequence[Group]) -> str:
    longest = max((figure.high for _, bars in groups for _, figure in bars), default=0.0) or 1.0
    body = [_text(0, 18, picture.title, size=16, weight="bold"), _text(0, 38, subtitle)]
    tools = dict.fromkeys(tool for _, bars in groups for tool, _ in bars)
    body += _legend(tools)
    top = _TOP
    for label, bars in groups:
        body.append(_text(_LEFT - 10, top + len(bars) * _BAR / 2 + 4, label, anchor="end"))
        for tool, figure in bars:
            body += _bar(picture, tool, figure, top, _BARS / longest)
            top += _BAR
        top += _GAP
    head = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{top}" viewBox="0 0 {_WIDTH} {top}"'
        f' role="img" aria-label="{escape(picture.title)}"'
        ' font-family="system-ui, -apple-system, Segoe UI, Helvetica, Arial, sans-serif">'
    )
    return "\n".join([head, *body, "</svg>"]) + "\n"


def _legend(tools: Sequence[str] | dict[str, None]) -> Iterator[str]:
    left = _WIDTH - 130 * len(tools)
    for number, tool in enumerate(tools):
        x = left + 130 * number
        yield f'<rect x="{x}" y="8" width="12" height="12" rx="2" fill="{COLOURS[tool]}"/>'
        yield _text(x + 18, 18, tool)


def _bar(picture: Picture, tool: str, figure: Figure, top: float, scale: float) -> Iterator[str]:
    """The median as a bar, the extremes as a thin line through it, the number behind."""
    length = max(1.0, figure.median * scale)
    middle = top + _BAR / 2
    yield f'<rect x="{_LEFT}" y="{top + 1}" width="{length:.1f}" height="{_BAR - 2}" rx="2" fill="{COLOURS[tool]}"/>'
    end = length
    if figure.runs > 1:
        low, high = (_LEFT + value * scale for value in (figure.low, figure.high))
        yield f'<path d="M{low:.1f} {middle}H{high:.1f}" stroke="{TEXT}" stroke-width="2"/>'
        end = max(length, high - _LEFT)
    yield _text(_LEFT + end + 6, middle + 4, f"{picture.form(figure.median)} {picture.unit}")


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, weight: str = "normal") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{TEXT}" font-size="{size}" font-weight="{weight}"'
        f' text-anchor="{anchor}">{escape(text)}</text>'
    )
