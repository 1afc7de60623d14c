"""A result as one HTML file without scripts: before and after side by side, in the colours of the reader's system."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from html import escape

from sidecar.cli.diff.text import SIGNS, format_schema_change, total
from sidecar.cli.diff.view import Overview, View
from sidecar.compare.display import NEW_COLUMN, format_change, format_value, visible
from sidecar.compare.reading import ComparedTable, Result, RowChange
from sidecar.compare.tables import Table
from sidecar.compare.values import Shown

_WORDS = ("added", "removed", "changed")
_STYLE = """
:root { color-scheme: light dark; --line: #d0d7de; --soft: #57606a; --back: #ffffff; --text: #1f2328; --head: #f6f8fa;
  --added: #dafbe1; --removed: #ffebe9; --changed: #fff8c5; }
@media (prefers-color-scheme: dark) { :root { --line: #30363d; --soft: #9198a1; --back: #0d1117; --text: #e6edf3;
  --head: #161b22; --added: #12361f; --removed: #4a1d1d; --changed: #3a3000; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem 1rem 4rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.4rem; margin: 0 0 .25rem; } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); }
ul { margin: .5rem 0; padding-left: 1.2rem; }
.wide { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .6rem; border-bottom: 1px solid var(--line); }
tr:last-child td { border-bottom: 0; } thead th { background: var(--head); }
td, .name { font-family: ui-monospace, monospace; overflow-wrap: anywhere; } .count { text-align: right; white-space: nowrap; } .side { width: 42%; }
.added { background: var(--added); } .removed { background: var(--removed); } .changed { background: var(--changed); }
.sign { width: 1.5rem; text-align: center; font-weight: 700; } .none { color: var(--soft); font-style: italic; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .1rem .8rem; margin: 0; } dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr; } dd { margin-bottom: .3rem; } }
"""
_HEAD = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="referrer" content="no-referrer">
<title>What changed</title>
<style>{_STYLE}</style>
</head>
<body>"""


async def page(result: Result, overview: Overview, view: View) -> AsyncGenerator[str, None]:
    """The lines of the file. Whatever is in the database is escaped."""
    yield _HEAD
    for line in _summary(overview):
        yield line
    for number, table in enumerate(overview.different):
        if view.summary:
            break
        for line in _heading(number, table, overview, view):
            yield line
        left = view.limit
        for kind in view.kinds:
            async for change in result.changes(table, (kind,), -1 if left is None else left):
                left = None if left is None else left - 1
                yield _row(table, change)
        yield "</tbody></table></div></section>"
    yield "</body></html>"


def _safe(text: str) -> str:
    return escape(visible(text))


def _summary(overview: Overview) -> Iterator[str]:
    meta = overview.meta
    before, after = _safe(str(meta["before"])), _safe(str(meta["after"]))
    yield f"<h1>What changed in {_safe(overview.database)} between {before} and {after}?</h1>"
    schema = "1 change" if len(overview.schema) == 1 else f"{len(overview.schema) or 'no'} changes"
    yield f"<p>{total(overview)} The schema has {schema}.</p>"
    chunks = f"{meta['differing_chunks']:,} of {meta['chunks']:,} MiB differ"
    yield f'<p class="soft">{chunks}; compared in {overview.seconds:.1f} s by sidecar.</p>'
    if overview.schema:
        changes = (f"<li>{SIGNS[each.kind]} {_safe(format_schema_change(each))}</li>" for each in overview.schema)
        yield f"<h2>Schema</h2><ul>{''.join(changes)}</ul>"
    if overview.not_compared:
        missing = (f"<li>{_safe(name)}: {_safe(reason)}</li>" for name, reason in overview.not_compared)
        yield f"<h2>Not compared</h2><ul>{''.join(missing)}</ul>"
    if overview.different:
        yield '<h2>Tables</h2><div class="wide"><table><thead><tr><th scope="col">table</th>'
        yield (
            "".join(f'<th scope="col" class="count">{SIGNS[kind]} {kind}</th>' for kind in _WORDS)
            + "</tr></thead><tbody>"
        )
        for number, table in enumerate(overview.different):
            counts = "".join(f'<td class="count">{getattr(table, kind):,}</td>' for kind in _WORDS)
            yield f'<tr><th scope="row"><a href="#t{number}">{_safe(table.name)}</a></th>{counts}</tr>'
        yield "</tbody></table></div>"


def _heading(number: int, table: ComparedTable, overview: Overview, view: View) -> Iterator[str]:
    count = overview.count(table)
    shown = min(count, table.kept, count if view.limit is None else view.limit)
    part = f" The first {shown:,} of {count:,} rows are shown." if shown < count else ""
    key = (
        f"Rows are matched by {_safe(', '.join(table.key))}."
        if table.key
        else "There is no key: rows are compared as a whole."
    )
    belongs = f" It stores the content of {_safe(table.virtual)}." if table.virtual else ""
    yield f'<section><h2 id="t{number}" class="name">{_safe(table.name)}</h2><p class="soft">{key}{belongs}{part}</p>'
    yield '<div class="wide"><table><thead><tr><th scope="col"></th><th scope="col">key</th>'
    before, after = _safe(str(overview.meta["before"])), _safe(str(overview.meta["after"]))
    yield f'<th scope="col" class="side">{before}</th><th scope="col" class="side">{after}</th></tr></thead><tbody>'


def _row(table: ComparedTable, change: RowChange) -> str:
    key = _safe(", ".join(format_value(each) for each in change.key)) if change.key else ""
    sign = f'<td class="sign {change.kind}" title="{change.kind}">{SIGNS[change.kind]}</td>'
    before, after = _sides(table, change)
    return f"<tr>{sign}<td>{key}</td>{before}{after}</tr>"


def _sides(table: ComparedTable, change: RowChange) -> tuple[str, str]:
    """What was and what is, each as a cell; of a changed row only the columns that differ."""
    if change.kind == "added":
        return '<td class="none">not there yet</td>', _cell("added", _named(table, table.after, change.after))
    if change.kind == "removed":
        return _cell("removed", _named(table, table.before, change.before)), '<td class="none">not there any more</td>'
    before, after = table.before, table.after
    if before is None or after is None or change.before is None or change.after is None:
        return "<td></td>", "<td></td>"
    old = dict(zip(before.names, change.before, strict=True))
    was, now = [], []
    for at in change.columns:
        name = after.names[at]
        one, other, note = format_change(old.get(name, after.columns[at].default), change.after[at])
        was.append((name, one if name in old else NEW_COLUMN))
        now.append((name, f"{other} {note}".rstrip()))
    return _cell("removed", was), _cell("added", now)


def _named(table: ComparedTable, side: Table | None, row: Sequence[Shown] | None) -> list[tuple[str, str]]:
    pairs = zip(side.names, row, strict=True) if side and row is not None else ()
    return [(name, format_value(value)) for name, value in pairs if name not in (table.key or ())]


def _cell(kind: str, values: Sequence[tuple[str, str]]) -> str:
    listed = "".join(f"<dt>{_safe(name)}</dt><dd>{_safe(value)}</dd>" for name, value in values)
    return f'<td class="{kind}"><dl>{listed}</dl></td>'
