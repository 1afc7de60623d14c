"""Fills the templates. Everything is escaped, and a name that a template does not know is an error, never empty text."""

import shlex
from collections.abc import Mapping
from datetime import datetime
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from sidecar.compare.display import visible
from sidecar.compare.page.values import short
from sidecar.units import format_size

SIGNS = {"added": "+", "removed": "−", "changed": "~", "renamed": "~"}


@cache
def environment() -> Environment:
    """The templates."""
    made = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.filters |= {
        "visible": visible,
        "size": format_size,
        "short": short,
        "shell": lambda word: shlex.quote(visible(word)),  # whoever copies a command must not run a name
        "number": lambda value: f"{value:,}",
        "day": _day,
        "clock": lambda at: f"{at:%H:%M:%S}",
    }
    made.globals |= {"url": url, "signs": SIGNS, "plural": plural}
    return made


def render(name: str, **values: object) -> str:
    """A page. Text that is not valid Unicode is replaced."""
    text = environment().get_template(name).render(**values)
    return text.encode("utf-8", "replace").decode()


def url(path: str, **parameters: object) -> str:
    """A link of ours; parameters that are None or empty are left out, those of a list are repeated."""
    given = {name: value for name, value in parameters.items() if value not in (None, "", [], ())}
    query = urlencode(given, doseq=True, quote_via=quote, errors="replace")
    return f"{path}?{query}" if query else path


def _day(at: datetime) -> str:
    """A day, with its year if that is another one."""
    return f"{at:%a %-d %b}" if at.year == datetime.now(at.tzinfo).year else f"{at:%a %-d %b %Y}"


def plural(count: int, one: str, many: str = "") -> str:
    """Like `3 rows`."""
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def age(then: datetime, now: datetime) -> str:
    """How long ago something was, for people."""
    seconds = max(0, round((now - then).total_seconds()))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{plural(seconds // size, unit)} ago"
    return "just now"


def sentence(parts: Mapping[str, int]) -> str:
    """Like `12 rows added, 3 removed, 41 changed`."""
    told = [f"{number:,} {name}" for name, number in parts.items() if number]
    if not told:
        return "no rows"
    head, *rest = told
    count, name = head.split(" ")
    return ", ".join([f"{count} {'row' if count == '1' else 'rows'} {name}", *rest])
