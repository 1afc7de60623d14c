"""`sidecar status`: what is protected. Its JSON is documented in `docs/json.md`; fields are only added to it."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import anyio

from sidecar.api import Sidecar, StatusReport
from sidecar.cli.output import format_age, say
from sidecar.cli.session import attended
from sidecar.errors import DatabaseBusy, ExitCode, SidecarError, StoreUnavailable, Transient
from sidecar.host import holder_of, process_age
from sidecar.model import Database
from sidecar.policies import Expires
from sidecar.settings import Configuration
from sidecar.status import CHUNKS
from sidecar.units import format_size

# Whatever the store does, the command answers within 5 s of its start: imports and leaving count, also on a busy machine.
_ANSWER_SECONDS, _LATEST_SECONDS, _SHORTEST_SECONDS = 2.5, 4.0, 1.0


async def status(configuration: Configuration, *, as_json: bool) -> int:
    """Show the daemon's view, else the store's, else what this machine knows; raises after that, the store being unreachable."""
    failure: SidecarError | None = None
    async with attended(configuration, silence=False) as services:
        session = Sidecar(services)
        try:
            shown = (await _in_time(session)).values
        except DatabaseBusy:  # the daemon does not answer; the store was not asked
            raise
        except Transient as error:
            failure, shown = error, session.status_without_store(error).values
        silent = _without_daemon(services.databases)
    if as_json:
        say(json.dumps(shown, indent=2))
    else:
        for line in _lines(shown, silent):
            say(line)
    if failure:
        raise failure
    return ExitCode.OK


async def _in_time(session: Sidecar) -> StatusReport:
    patience = max(_SHORTEST_SECONDS, min(_ANSWER_SECONDS, _LATEST_SECONDS - process_age()))
    with anyio.move_on_after(patience):
        return await session.status()
    raise StoreUnavailable(f"{session.place} did not answer within {patience:.1f} s", "check the network and the store")


def _without_daemon(databases: tuple[Database, ...]) -> str:
    holder = next(filter(None, map(holder_of, databases)), None)
    return f"a sidecar (pid {holder.pid}) runs here, without a control socket" if holder else "none runs here"


def _lines(shown: Mapping[str, Any], silent: str) -> Iterator[str]:
    yield f"store     {shown['store']}"
    who = "the store says" if shown["source"] == "store" else "this machine knows"
    yield f"daemon    {shown.get('phase', f'{silent}; this is what {who}')}"
    if not shown.get("has_command", True):
        yield "command   none: it protects databases that others write"
    if lease := shown.get("lease"):
        yield from _holder_lines(lease)
    verdict = shown["verdict"]
    since = f" since {_format_instant(verdict['since'])}" if verdict["since"] else ""
    yield f"verdict   {verdict['title']}{since}"
    for line in filter(None, (verdict["reason"], verdict["hint"])):
        yield f"          {line}"
    yield from _keeping_lines(shown)
    for each in shown["databases"]:
        yield from _database_lines(each)
    acknowledge = {(each["kind"], each["message"]): each["acknowledge"] for each in shown.get("incidents", [])}
    for problem in _problems(shown):
        about = f"{problem['database']}: " if problem["database"] else ""
        yield f"\n{_format_instant(problem['at'])}  {about}{problem['message']}\n  {problem['hint']}"
        command = acknowledge.get((problem["kind"], problem["message"]), "")
        if command not in problem["hint"]:
            yield f"  `{command}` acknowledges it"


_EXPIRY = {
    Expires.TAGS: "by the bucket's lifecycle rules, which select objects by tag",
    Expires.PREFIXES: "by the bucket's lifecycle rules, which select objects by prefix",
    Expires.PRUNE: "sidecar itself deletes what has expired",
    Expires.NOTHING: "neither rules nor sidecar delete what has expired; somebody may run `sidecar prune`",
}


def _keeping_lines(shown: Mapping[str, Any]) -> Iterator[str]:
    """What deletes what has expired, and the bill."""
    if expires := shown.get("expires"):
        yield f"expiry    {_EXPIRY[expires]}"
    if cost := shown.get("cost"):
        kinds = ", ".join(f"{kind} ${cost[kind]:.2f}" for kind in ("requests", "storage", "egress"))
        yield f"cost      ${cost['total']:.2f} a month, estimated: {kinds}; ${cost['boot']:.2f} for each start"
        if stream := cost.get("stream"):
            yield f"          of it the stream: {stream['segments']:,} PUTs ${stream['requests']:.2f}, egress ${stream['egress']:.2f}"
            yield f"          keeping segments until they expire adds ${stream['storage']:.2f}; with stream_interval=5s the PUTs would be ${stream['with_5s']:.2f}"
        if (saved := cost.get("auto_saves", 0.0)) > 1.0:
            yield f"          restore_points=auto would save ${saved:.2f} of storage"
        if full := cost.get("full"):
            yield f"          once the history is full: ${full['total']:.2f}, of it storage of {format_size(full['stored'])} ${full['storage']:.2f}"


def _problems(shown: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The last problems of a daemon, or what the store says that is open."""
    return [*(shown["problems"] if "problems" in shown else shown.get("incidents", []))][-3:]


def _holder_lines(lease: Mapping[str, Any]) -> Iterator[str]:
    """The machine that may publish, by its lease; nothing where there is no lease."""
    if lease["held"]:
        yield f"holder    {lease['holder']}"
    elif waiting := lease.get("waiting_for"):
        yield f"holder    {waiting}"
    elif "enabled" not in lease:
        yield f"holder    none; {lease['holder']} was the last one"


def _database_lines(database: Mapping[str, Any]) -> Iterator[str]:
    yield f"\n{database['name']}"
    if listing := database.get("listing"):
        database = {**database, "count": listing["count"], **_oldest(listing)}
    for label, name, form in _DATABASE_LINES:
        value = database.get(name)
        if value is not None and not (value == 0 and name in _OMITTED_ZEROS):
            yield f"  {label:<22}{form(value)}"
    for label, text in _chunk_lines(database):
        yield f"  {label:<22}{text}"
    if (stream := database.get("stream")) and stream["setting"] != "off":
        for label, text in _stream_lines(stream):
            yield f"  {label:<22}{text}"


def _chunk_lines(database: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """How restore points are made, of a daemon that knows what they take over, and how the final one would be."""
    chunks, estimate = database.get("chunks"), database.get("final_estimate")
    if chunks and (chunks["taken_over"] or chunks["written_past"]):
        read, over, compared = (format_size(chunks[how] << 20) for how in CHUNKS)
        yield "for restore points", f"{read} read; {over} taken over unread, {compared} of it compared"
    if chunks and chunks["written_past"]:
        yield "written past the log", format_size(chunks["written_past"] << 20)
    if estimate is not None:
        how = "reads what has changed, compares the rest" if database.get("final_in_place") else "copies everything"
        yield "final backup", f"about {estimate:.1f} s; it {how}"


def _stream_lines(stream: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if stream["active"]:
        entered = "" if stream["protects"] else "; it protects nothing before the next restore point"
        yield "streaming since", f"{_format_instant(stream['since'])}{entered}"
        yield "stream is behind", f"{stream['lag_seconds']:.1f} s"
        sizes = f"{format_size(stream['uploaded'])} instead of {format_size(stream['whole_pages'])} with whole pages"
        yield "streamed", f"{stream['commits']} commits in {stream['segments']} segments, {sizes}"
    else:
        yield "not streaming", stream["reason"]
    if any((waits := stream["waits"]).values()):
        mean = f", on average after {waits['mean_seconds']:.2f} s" if waits["stored"] else ""
        yield "waits", f"{waits['waiting']} now; {waits['stored']} stored{mean}; {waits['failed']} not confirmed"
    if until := stream["resting_until"]:
        yield "streaming paused until", _format_instant(until)
    if last := stream["last_cut"]:
        count = sum(stream["cuts"].values())
        yield "last cut", f"{_format_instant(stream['last_cut_at'])}, {last}; {count} since the start"


def _oldest(listing: Mapping[str, Any]) -> Mapping[str, Any]:
    oldest = listing["oldest"]
    return {"oldest": oldest["key"]} if oldest and listing["count"] > 1 else {}


def _format_instant(text: str) -> str:
    return f"{datetime.fromisoformat(text):%Y-%m-%d %H:%M:%S UTC}"


def _format_next(text: str) -> str:
    return _format_instant(text) if datetime.fromisoformat(text) > datetime.now(UTC) else "now"


_OMITTED_ZEROS = {"unprotected_seconds", "restore_point_size"}

_DATABASE_LINES: tuple[tuple[str, str, Callable[[Any], str]], ...] = (
    ("newest restore point", "restore_point", str),
    ("its size", "restore_point_size", format_size),
    ("its age", "age_seconds", format_age),
    ("streamed until", "streamed_to", _format_instant),
    ("restore points", "count", str),
    ("oldest restore point", "oldest", str),
    ("last success", "last_success", _format_instant),
    ("last outcome", "last_outcome", str),
    ("unprotected for", "unprotected_seconds", format_age),
    ("failing since", "failing_since", _format_instant),
    ("last error", "last_error", str),
    ("next backup", "next_backup", _format_next),
    ("proven by a drill", "last_drill", _format_instant),
    ("drill", "drill_outcome", str),
    ("drill error", "drill_error", str),
)
