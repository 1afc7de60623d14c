"""The guestbook's page. Everything that visitors wrote is escaped here and nowhere else."""

from collections.abc import Sequence
from html import escape
from pathlib import Path
from string import Template

from sidecar.demo.guestbook import MESSAGE_LIMIT, NAME_LIMIT, Entry

# No scripts, and nothing from other origins: injected markup could do little.
CONTENT_SECURITY_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)

_PAGE = Template(Path(__file__).with_name("page.html").read_text(encoding="utf-8"))


def render(entries: Sequence[Entry], count: int, *, name: str = "", message: str = "", error: str = "") -> str:
    """The page as HTML: the newest of `entries` first, and the form filled with `name` and `message`."""
    return _PAGE.substitute(
        count="1 entry" if count == 1 else f"{count:,} entries",
        alert=f'<p role="alert">{escape(error)}</p>' if error else "",
        name_limit=NAME_LIMIT,
        message_limit=MESSAGE_LIMIT,
        name=escape(name),
        message=escape(message),
        entries="\n".join(map(_article, entries)) or '<p class="empty">Nobody has signed yet. Be the first.</p>',
        older=f'<a href="/?before={entries[-1].id}">Older entries</a>' if entries and entries[-1].id > 1 else "",
    )


def _article(entry: Entry) -> str:
    when = escape(entry.written_at)
    shown = escape(entry.written_at[:16].replace("T", " "))
    return (
        f'<article id="entry-{entry.id}"><header><strong>{escape(entry.name)}</strong>'
        f'<time datetime="{when}">{shown} UTC</time></header><p>{escape(entry.message)}</p></article>'
    )
