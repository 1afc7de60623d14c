"""Speed, memory and money, measured beside the peers in the same run, against one real S3 server.

    python -m tests.benchmarks [PART] [--size 64MiB --size 1GiB] [--runs 3] [--only NAME ...] [--no-peers] [--json PATH]

measure.py and server.py say where each number comes from; publishing.py, running.py, comparing.py, streaming.py, small.py,
far.py and growth.py what is done. PART is `publishing` (with what goes on while an app runs), `comparing`, `streaming`, or a
profile: `small` (a machine with little memory and a slow disk; needs root), `far` (a store that is far away) or `growth` (from
64 MiB to 4 GiB); without it, all. Databases, the server's data and everything else lie in a directory below TMPDIR, which is
removed at the end; they take up to twelve times the largest size (`growth`: 20 GiB). On a tmpfs there is no disk to be written
to. Nothing here fails because something was slow.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from sidecar.units import parse_size
from tests.benchmarks import comparing, far, growth, pictures, publishing, running, small, streaming
from tests.benchmarks.bounds import bounds
from tests.benchmarks.publishing import Bench, make_base, publish_and_restore
from tests.benchmarks.results import MIB, machine, show_size, write_json
from tests.benchmarks.server import Server
from tests.benchmarks.table import report
from tests.benchmarks.targets import targets
from tests.benchmarks.tools import HOW_TO_GET, missing_peers

HERE = Path(__file__).parent
PARTS = {
    "publishing": (*publishing.SCENARIOS, *running.SCENARIOS),
    "comparing": comparing.SCENARIOS,
    "streaming": streaming.SCENARIOS,
    "small": small.SCENARIOS,
    "far": far.SCENARIOS,
    "growth": growth.SCENARIOS,
}
SCENARIOS = tuple(name for names in PARTS.values() for name in names)


def main() -> int:
    """The command."""
    options = _parse()
    peers = not options.no_peers
    if peers and set(options.only) != set(comparing.SCENARIOS) and (missing := missing_peers()):
        print(f"not there: {', '.join(missing)}. Get them: {HOW_TO_GET} (zstd: your system's package)", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, _interrupt)
    with tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True) as name:
        directory = Path(name)
        bench = Bench(Server(directory / "server"), directory, frozenset(options.only), peers)
        needed = max(bench.room(max(options.size)), growth.ROOM if bench.wants(*growth.SCENARIOS) else 0)
        if refusal := _lacks_room(directory, needed):
            print(refusal, file=sys.stderr)
            return 2
        with bench.server:
            _measure(bench, options)
        about = machine(directory)
    promised = [
        each
        for each in (*targets(bench.results), *comparing.bounds(bench.results), *bounds(bench.results))
        if each.measured is not None
    ]
    print(f"\n{report(bench.results, about, promised)}")
    print("".join(f"\nnote: {remark}" for remark in bench.remarks))
    if options.json:
        write_json(options.json, bench.results.as_dict(about, (each.as_dict() for each in promised)))
    drawn = pictures.draw(bench.results, about, options.pictures)
    print(f"\npictures: {', '.join(drawn) or 'none'}")
    return 0


def _measure(bench: Bench, options: argparse.Namespace) -> None:
    for size in options.size:
        if bench.wants(*publishing.SCENARIOS, "latency", "diff"):
            print(f"{show_size(size)}:", flush=True)
            base = make_base(bench.directory / "base.db", size)
            for turn in range(options.runs):
                if bench.wants(*publishing.SCENARIOS):
                    publish_and_restore(bench, base, size, turn)
                if bench.wants("latency"):
                    running.latency(bench, base, size, turn, options.latency_seconds)
                if bench.wants("diff"):
                    comparing.diff(bench, base, size, turn)
            base.unlink()
    if bench.wants("start", "idle"):
        _small(bench, options)
    streaming.measure(bench, streaming.Extent(options.rounds, options.runs, options.stream_seconds))
    small.measure(bench, options.profile_runs, options.commit_seconds)
    far.measure(bench, max(options.size), options.profile_runs)
    growth.measure(bench, options.profile_runs)


def _small(bench: Bench, options: argparse.Namespace) -> None:
    if bench.wants("start"):
        print("start:", flush=True)
        base = make_base(bench.directory / "small.db", MIB)
        for turn in range(options.runs):
            running.start_to_app(bench, base, turn)
    if bench.wants("idle"):
        print(f"idle, {options.idle_seconds:g} s:", flush=True)
        size = min(options.size)
        running.idle(bench, make_base(bench.directory / "idle.db", size), size, options.idle_seconds)


def _parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", choices=PARTS, metavar="PART", help=f"{', '.join(PARTS)} (all)")
    parser.add_argument("--size", action="append", type=_size, help="of the database; repeatable (64MiB and 1GiB)")
    parser.add_argument("--runs", type=int, default=3, help="how often each is measured (%(default)s)")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="NAME", help=", ".join(SCENARIOS))
    parser.add_argument("--no-peers", action="store_true", help="measure sidecar alone")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write everything there")
    parser.add_argument(
        "--pictures", type=Path, metavar="DIR", default=HERE.parents[1] / "docs/images/benchmarks", help="where SVGs go"
    )
    parser.add_argument(
        "--latency-seconds", type=float, default=20.0, help="how long commits are timed, at least (%(default)g)"
    )
    parser.add_argument("--idle-seconds", type=float, default=60.0, help="how long to be idle (%(default)g)")
    parser.add_argument("--rounds", type=int, default=10, help="how often machines are killed (%(default)s)")
    parser.add_argument(
        "--stream-seconds", type=float, default=60.0, help="how long streaming is measured under load (%(default)g)"
    )
    parser.add_argument(
        "--profile-runs", type=int, default=1, help="how often small, far and growth are measured (%(default)s)"
    )
    parser.add_argument(
        "--commit-seconds", type=float, default=40.0, help="how long commits are timed in small (%(default)g)"
    )
    options = parser.parse_args(arguments)
    options.only = options.only or PARTS.get(options.part, SCENARIOS)
    options.size = sorted(set(options.size or (64 * MIB, 1024 * MIB)))
    return options


def _size(text: str) -> int:
    size = int(parse_size(text))
    if size < MIB:
        raise argparse.ArgumentTypeError("at least 1MiB")
    return size


def _lacks_room(directory: Path, needed: float) -> str:
    """What to tell when the largest size does not fit, or nothing."""
    free = shutil.disk_usage(directory).free
    if free >= needed:
        return ""
    lacking = f"up to {show_size(needed)} are needed below TMPDIR, {show_size(free)} are free"
    return f"{lacking}; set TMPDIR to where there is room, or measure less with --only or --no-peers"


def _interrupt(*_: object) -> NoReturn:
    """SIGTERM cleans up as Ctrl-C does."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
