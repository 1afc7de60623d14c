"""The status page as the server renders it: everything that it shows without JavaScript. Every value is escaped."""

from datetime import datetime
from html import escape
from pathlib import Path
from string import Template

from sidecar.status import (
    CHUNKS,
    DatabaseStatus,
    Kind,
    Listing,
    Problem,
    Status,
    StoredPoint,
    StreamStatus,
    acknowledge_command,
    is_open,
    of_database,
    overall,
)
from sidecar.status.bill import Bill, bill_of
from sidecar.units import format_size

PAGE = Path(__file__).parent / "page"
AT = "%Y-%m-%d %H:%M:%S UTC"

_DATABASE = Template("""<section class="card">
<div class="head"><h2>$name</h2><span class="badge" data-level="$level">$title</span></div>
<p class="path">$path</p>
$stream$chunks<h3>Restore points in the store</h3>
$listing
</section>
""")
_STREAM = Template("""<p class="note stream $ink">$line</p>
""")
_LISTING = Template("""<p class="note">$summary</p>
$points""")
_POINT = Template("""<details class="point">
<summary><span class="age">$age</span><span class="time">$time</span><span class="size">$size</span>\
<span class="holder" title="published by">$holder</span><span class="tier" data-tier="$tier">$label</span></summary>
<p class="command"><code>$restore</code></p>
$diff</details>""")
_DIFF = Template("""<p class="command"><code>$command</code></p>
""")

_PROBLEM = Template("""<div class="problem">
<p class="when">$when</p>
<p class="what">$message</p>
<p class="todo">$hint</p>
$command</div>
""")
_COMMAND = Template("""<p class="command"><code>$command</code>acknowledges it</p>
""")
_PROBLEMS = 10


class PageTemplate:
    """The page's template, read once: a volume that fails later does not take the page away."""

    def __init__(self) -> None:
        self._index = Template((PAGE / "index.html").read_text())

    def render(self, status: Status) -> str:
        """The page with the verdict, each database with its restore points, and the last problems, as of now."""
        verdict, problems = overall(status), _problems(status)
        return _filled(
            self._index,
            {
                "databases": "".join(_database(status, each) for each in status.databases.values()),
                "problems": problems,
                "hidden": "" if problems else " hidden",
            },
            level=verdict.level.value,
            title=verdict.title,
            since=f"since {verdict.since:{AT}}" if verdict.since else "",
            reason=verdict.reason,
            hint=verdict.hint,
            now=f"{status.now():{AT}}",
        )


def _database(status: Status, database: DatabaseStatus) -> str:
    verdict = of_database(status, database)
    listing = status.listings.get(database.name)
    return _filled(
        _DATABASE,
        {
            "listing": _listing(listing, bill_of(status) if len(status.databases) == 1 else None, status.now())
            if listing
            else '<p class="note">The store is not listed yet.</p>',
            "stream": _stream(database.stream, status.now()),
            "chunks": _chunks(database),
        },
        name=database.name,
        level=verdict.level.value,
        title=verdict.title,
        path=database.path,
    )


def _stream(stream: StreamStatus, now: datetime) -> str:
    """One line on the stream between restore points; nothing where none is wanted."""
    if not stream.is_wanted:
        return ""
    line = f"Not streaming: {stream.reason}."
    if stream.active and stream.since:
        lag = stream.lag_seconds(now)
        line = f"Streaming since {stream.since:{AT}}; {f'{lag:.1f} s behind' if lag else 'nothing waits'}."
        line += "" if stream.protects else " It protects nothing before the next restore point."
        if stream.uploaded:
            line += (
                f" {format_size(stream.uploaded)} sent instead of {format_size(stream.whole_pages)} with whole pages."
            )
    waits = stream.waits
    if waits.waiting or waits.stored or waits.failed:
        mean = f" after {waits.mean_seconds:.2f} s on average" if waits.mean_seconds is not None else ""
        line += f" Waits: {waits.waiting} now, {waits.stored} stored{mean}, {waits.failed} not confirmed."
    if stream.last_cut and stream.last_cut_at:
        line += f" Last cut {format_age(stream.last_cut_at, now)} ago: {stream.last_cut}."
    return _filled(_STREAM, {}, ink="look-ink" if stream.setting == "on" and not stream.active else "", line=line)


def _chunks(database: DatabaseStatus) -> str:
    """One line on what restore points took over unread; nothing where none did."""
    past = database.written_past
    read, taken_over, compared = (format_size(database.chunks[how] << 20) for how in CHUNKS)
    if not database.chunks["taken_over"] and not past:
        return ""
    line = f"For restore points {read} was read, and {taken_over} taken over unread; {compared} of that was compared."
    line += f" {format_size(past << 20)} was written past the log." if past else ""
    return _filled(_STREAM, {}, ink="look-ink" if past else "", line=line)


def _problems(status: Status) -> str:
    """The last problems, newest first, each open incident with the command that acknowledges it."""
    shown = [each for each in status.problems if each.kind is not Kind.FIRST_START][-_PROBLEMS:]
    return "<h2>Last problems</h2>" + "".join(_problem(status, each) for each in reversed(shown)) if shown else ""


def _problem(status: Status, problem: Problem) -> str:
    command = acknowledge_command(problem.kind) if is_open(problem, status.now()) else ""
    return _filled(
        _PROBLEM,
        {"command": _filled(_COMMAND, {}, command=command) if command else ""},
        when=" · ".join(filter(None, (f"{problem.at:{AT}}", problem.database))),
        message=problem.message,
        hint=problem.hint,
    )


def _format_bill(bill: Bill) -> str:
    kept = f"{bill.objects} of them, {format_size(bill.stored)}"
    return f"A full history has {kept}: about ${bill.storage:.2f} a month of storage, ${bill.total:.2f} in all."


def _listing(listing: Listing, bill: Bill | None, now: datetime) -> str:
    shown = [_point(each, now, newest=number == 0) for number, each in enumerate(listing.newest)]
    oldest = listing.oldest
    if oldest and all(each.key != oldest.key for each in listing.newest):
        shown += ['<p class="note gap">… and the oldest:</p>', _point(oldest, now, newest=False)]
    since = f", the oldest from {oldest.time:%Y-%m-%d}" if oldest else ""
    points = f"{listing.count} restore points" if listing.count != 1 else "1 restore point"
    summary = f"{points}{since}. The store was listed {format_age(listing.at, now)} ago."
    summary += f" {listing.overdue} of them should have been deleted." if listing.overdue else ""
    summary += f" {_format_bill(bill)}" if bill else ""
    if shown:
        summary += " Open one for the commands that restore it to a new file, and show what changed since the one before; they change nothing else."
    return _filled(_LISTING, {"points": "\n".join(shown)}, summary=summary)


def _point(point: StoredPoint, now: datetime, *, newest: bool) -> str:
    return _filled(
        _POINT,
        {"diff": _filled(_DIFF, {}, command=point.diff) if point.diff else ""},
        age=f"{format_age(point.time, now)} ago",
        time=f"{point.time:{AT}}",
        size=format_size(point.size),
        holder=point.holder or "",
        tier=point.tier or "",
        label="newest" if newest else point.tier or "",
        restore=point.restore,
    )


def format_age(then: datetime, now: datetime) -> str:
    """How long ago something was, in one unit: `40 s`, `7 min`, `5 h`, `88 days`."""
    seconds = max(0, round((now - then).total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min"
    return f"{seconds // 3600} h" if seconds < 172_800 else f"{seconds // 86_400} days"


def _filled(template: Template, markup: dict[str, str], **text: str) -> str:
    """A template with its text escaped; `markup` is inserted as it is."""
    return template.substitute(markup, **{name: escape(value) for name, value in text.items()})
