"""Panels in the form in which Grafana stores them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

SOURCE = {"type": "prometheus", "uid": "${datasource}"}
GREEN, ORANGE, RED = "green", "orange", "red"
REFS = "ABCDEFGH"

Json: TypeAlias = dict[str, Any]
Steps: TypeAlias = Sequence[tuple[str, float | None]]
OK_AT_ONE: Steps = ((RED, None), (GREEN, 1))


@dataclass(frozen=True, slots=True)
class Panel:
    """A panel. `queries` are pairs of PromQL and legend; `words` replace values by text; `steps` are colours, each from
    a value upward; `columns` are titles and units of a table's queries.
    """

    kind: str
    title: str
    description: str
    unit: str
    queries: Sequence[tuple[str, str]]
    size: tuple[int, int] = (12, 8)
    words: dict[str, str] = field(default_factory=dict)
    steps: Steps = ((GREEN, None),)
    bars: bool = False
    columns: Sequence[tuple[str, str]] = ()


def _panel(panel: Panel, number: int, x: int, y: int) -> Json:
    """The panel as Grafana stores it."""
    table = panel.kind == "table"
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": SOURCE,
        "gridPos": {"x": x, "y": y, "w": panel.size[0], "h": panel.size[1]},
        "targets": [_target(ref, *query, table=table) for ref, query in zip(REFS, panel.queries, strict=False)],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": _overrides(panel)},
        "options": _options(panel.kind),
        "transformations": _one_table(panel) if table else [],
    }


def _defaults(panel: Panel) -> Json:
    mappings = [{"type": "value", "options": {value: {"text": text} for value, text in panel.words.items()}}]
    thresholds = {"mode": "absolute", "steps": [{"color": color, "value": value} for color, value in panel.steps]}
    defaults: Json = {"unit": panel.unit, "mappings": mappings if panel.words else [], "thresholds": thresholds}
    if panel.kind == "timeseries":
        style = {"drawStyle": "bars", "fillOpacity": 60, "stacking": {"mode": "normal"}} if panel.bars else {}
        defaults |= {"min": 0, "color": {"mode": "palette-classic"}, "custom": {"showPoints": "never", **style}}
    else:
        defaults["color"] = {"mode": "thresholds"}
    return defaults


def _target(ref: str, expression: str, legend: str, *, table: bool) -> Json:
    shape = {"instant": True, "format": "table"} if table else {"range": True}
    return {"refId": ref, "datasource": SOURCE, "expr": expression, "legendFormat": legend, **shape}


def _columns(panel: Panel) -> dict[str, tuple[str, str]]:
    """Title and unit of each query of a table, by the name that Grafana gives to its value."""
    return {f"Value #{ref}": query for ref, query in zip(REFS, panel.columns, strict=False)}


def _one_table(panel: Panel) -> list[Json]:
    names = {name: title for name, (title, _) in _columns(panel).items()}
    hidden = {"excludeByName": {"Time": True}, "renameByName": names}
    return [{"id": "merge", "options": {}}, {"id": "organize", "options": hidden}]


def _overrides(panel: Panel) -> list[Json]:
    return [
        {"matcher": {"id": "byName", "options": title}, "properties": [{"id": "unit", "value": unit}]}
        for title, unit in panel.columns
    ]


def _options(kind: str) -> Json:
    if kind in {"stat", "gauge"}:
        return {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "background", "textMode": "value_and_name"}
    if kind == "timeseries":
        return {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}}
    return {"showValue": "never"} if kind == "state-timeline" else {}


def laid_out(rows: Sequence[tuple[str, Sequence[Panel]]]) -> Iterator[Json]:
    """Place panels from left to right; one that does not fit starts a new line."""
    number, y = 0, 0
    for title, panels in rows:
        number += 1
        where = {"x": 0, "y": y, "w": 24, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": where, "panels": []}
        x, y, tallest = 0, y + 1, 0
        for panel in panels:
            if x + panel.size[0] > 24:
                x, y, tallest = 0, y + tallest, 0
            number += 1
            yield _panel(panel, number, x, y)
            x, tallest = x + panel.size[0], max(tallest, panel.size[1])
        y += tallest


def variable(name: str, query: str) -> Json:
    """A choice of label values. Choosing all of them means `.*`, which also matches series without that label."""
    chosen = {"selected": True, "text": ["All"], "value": ["$__all"]}
    options = {"includeAll": True, "allValue": ".*", "multi": True, "refresh": 2, "sort": 1, "current": chosen}
    return {"name": name, "type": "query", "datasource": SOURCE, "query": query, "definition": query, **options}
