"""The picture of the packages and their imports in docs/internals/architecture.md: `python -m tests.docs` draws it.

Packages stand on a diagonal, in the order of the import rule in pyproject.toml; packages on one step of the rule share a
band. A line leaves a package to the right, and turns down at a dot into each package that it imports. So an import that
obeys the rule points down. One that does not points up or stays inside its band, and is red.
"""

import tomllib
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain
from typing import NamedTuple

import grimp

from tests.harness.environment import ROOT

PICTURE = ROOT / "docs" / "images" / "packages.svg"
FILES = "files"  # the single modules at the bottom, which everything may use
APART = {"__main__", "demo"}

_STEP, _ROW, _TOP = 62, 40, 14
_BOX_WIDTH, _BOX_HEIGHT = 98, 26
_STYLE = """
    text { font: 600 13px system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; fill: #ffffff; text-anchor: middle; }
    .band { fill: #f6f8fa; stroke: #d0d7de; }
    .box { fill: #3a5fcd; }
    .line { fill: none; stroke: #8c959f; stroke-width: 1.2; }
    .mark { fill: #57606a; }
    .against { fill: none; stroke: #cf222e; stroke-width: 2; }
    .against-mark { fill: #cf222e; }
    @media (prefers-color-scheme: dark) {
      .band { fill: #161b22; stroke: #30363d; }
      .box { fill: #4f74e0; }
      .line { stroke: #6e7681; }
      .mark { fill: #b1bac4; }
      .against { stroke: #ff7b72; }
      .against-mark { fill: #ff7b72; }
    }
  """


class Import(NamedTuple):
    """One package that imports another."""

    importer: str
    imported: str


@cache
def steps() -> tuple[tuple[str, ...], ...]:
    """The steps of the import rule, highest first."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    rule = [[name.strip(" ()") for name in layer.split("|")] for layer in layers]
    packages = {module.split(".")[1] for module in _graph().modules if module.count(".") > 1}
    last = max(index for index, names in enumerate(rule) if packages & set(names))
    present = {module.split(".")[1] for module in _graph().modules if "." in module} - APART
    drawn = [tuple(name for name in names if name in present) for names in rule[: last + 1]]
    return (*filter(None, drawn), (FILES,))


@cache
def imports() -> tuple[Import, ...]:
    """Every import of one package by another, sorted."""
    drawn = set(chain(*steps()))
    rooms = {module: module.split(".")[1] for module in _graph().modules if "." in module}
    rooms = {module: room if room in drawn else FILES for module, room in rooms.items() if room not in APART}
    found = {
        Import(room, rooms[imported])
        for module, room in rooms.items()
        for imported in _graph().find_modules_directly_imported_by(module)
        if imported in rooms
    }
    return tuple(sorted(each for each in found if each.importer != each.imported))


def against_the_rule() -> list[Import]:
    """The imports that do not point down."""
    step = {room: index for index, rooms in enumerate(steps()) for room in rooms}
    return [each for each in imports() if step[each.importer] >= step[each.imported]]


def svg() -> str:
    """The picture."""
    rooms = list(chain(*steps()))
    width, height = _x(len(rooms)) + 8, _y(len(rooms)) - _ROW // 2 + _TOP
    parts = [*_bands(width), *_lines(rooms), *chain(*(_box(index, room) for index, room in enumerate(rooms)))]
    body = "\n".join(f"  {part}" for part in parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="title">\n'
        f'  <title id="title">The packages of sidecar and what each imports</title>\n'
        f"  <style>{_STYLE}</style>\n{body}\n</svg>\n"
    )


@cache
def _graph() -> grimp.ImportGraph:
    return grimp.build_graph("sidecar", cache_dir=None)


def _x(index: int) -> int:
    return 8 + _BOX_WIDTH // 2 + 8 + index * _STEP


def _y(index: int) -> int:
    return _TOP + _ROW // 2 + index * _ROW


def _bands(width: int) -> Iterator[str]:
    first = 0
    for rooms in steps():
        y, height = _y(first) - _ROW // 2 + 2, len(rooms) * _ROW - 4
        yield f'<rect class="band" x="4" y="{y}" width="{width - 8}" height="{height}" rx="6"/>'
        first += len(rooms)


def _box(index: int, room: str) -> Iterator[str]:
    x, y = _x(index), _y(index)
    left, top = x - _BOX_WIDTH // 2, y - _BOX_HEIGHT // 2
    yield f'<rect class="box" x="{left}" y="{top}" width="{_BOX_WIDTH}" height="{_BOX_HEIGHT}" rx="5"/>'
    yield f'<text x="{x}" y="{y + 5}">{room}</text>'


def _lines(rooms: Sequence[str]) -> Iterator[str]:
    against = set(against_the_rule())
    for red in (False, True):
        drawn = [
            (rooms.index(each.importer), rooms.index(each.imported)) for each in imports() if (each in against) == red
        ]
        yield from _wires(drawn, *(("against", "against-mark") if red else ("line", "mark")))


def _wires(drawn: Sequence[tuple[int, int]], line: str, mark: str) -> Iterator[str]:
    """One line to the side for each importer, one up or down for each that is imported, and a dot where they meet."""
    for importer in sorted({start for start, _ in drawn}):
        ends = [_x(end) for start, end in drawn if start == importer]
        yield f'<path class="{line}" d="M{min(_x(importer), *ends)} {_y(importer)}H{max(_x(importer), *ends)}"/>'
    for imported in sorted({end for _, end in drawn}):
        x, starts = _x(imported), [start for start, end in drawn if end == imported]
        for outermost, up in ((min(starts), 1), (max(starts), -1)):
            if (imported - outermost) * up > 0:
                tip = _y(imported) - up * _BOX_HEIGHT // 2
                yield f'<path class="{line}" d="M{x} {_y(outermost)}V{tip - up * 6}"/>'
                yield f'<path class="{mark}" d="M{x} {tip}l-4 {-up * 7}h8z"/>'
        yield from (f'<circle class="{mark}" cx="{x}" cy="{_y(start)}" r="3.2"/>' for start in starts)
