"""What goes on while an app runs.

latency  how long a writer's commits take (writer.py): with nobody beside it, while sidecar publishes without a pause
         (interval 1 s, so a publish is nearly always under way), while Litestream follows; after the first
         publish, each on a database of its own. The server's work competes for the same cores and the same disk.
start    from before `sidecar run -- date` is started to the moment that `date` prints, with 1 MiB to restore;
         Litestream: `replicate -restore-if-db-not-exists -exec date`
idle     sidecar with its defaults and Litestream side by side, each the parent of an app that sleeps; after the first
         publish and as long a wait (a minute at most) for what follows it: CPU of the daemon itself, its resident
         memory at the end, its requests
"""

import contextlib
import json
import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.measure import Values, cpu_seconds, family, memory, run, running_seconds, start
from tests.benchmarks.publishing import Bench
from tests.benchmarks.results import MIB, Sample
from tests.benchmarks.tools import Command, Subject, Tool
from tests.benchmarks.writer import SCRIPT
from tests.harness.eventually import eventually
from tests.harness.processes import Child

SCENARIOS = ("latency", "start", "idle")
RATE = 100.0

_SLOWEST = 32 << 20  # bytes per second: commits are timed for so long that a publish at this speed ends

NOBODY = "nobody"
_PATIENCE = 600.0


def latency(bench: Bench, base: Path, size: int, turn: int, seconds: float) -> None:
    """A writer's commits, alone and beside each tool."""
    for tool in (None, *bench.tools(turn)):
        name = tool.name if tool else NOBODY
        with Subject(bench.server, bench.directory / f"latency-{name}", f"latency-{name}-{turn}") as subject:
            subject.place(base)
            with _protecting(subject, tool):
                before = len(subject.keys())
                values = commits(subject, max(seconds, size / _SLOWEST))
                values["published"] = len(subject.keys()) - before
            bench.record(Sample(size, "latency", name, turn, values))


def start_to_app(bench: Bench, base: Path, turn: int) -> None:
    """A boot on an empty machine, to the app's first word."""
    for tool in bench.tools(turn):
        with Subject(bench.server, bench.directory / f"start-{tool.name}", f"start-{tool.name}-{turn}") as subject:
            subject.place(base)
            run(tool.publish(subject), subject.env, subject.log)
            subject.lose_database()
            values = booted(subject, tool)
            bench.record(Sample(MIB, "start", tool.name, turn, values))


def booted(subject: Subject, tool: Tool) -> Values:
    """The cost of a boot of an app that ends at once; `started` is from before the process to the app's first word."""
    said = subject.directory / "said"
    before = time.time()
    values = run(tool.run(subject, ["date", "+%s.%N"]), subject.env, subject.log, stdout=said)
    begun = time.time() - values["wall"]  # not `before`: `run` waits for the file systems first
    values["started"] = _moment(said, after=before) - begun
    assert subject.database.exists(), f"{tool.name} started the app without its database"
    return values


def idle(bench: Bench, base: Path, size: int, seconds: float) -> None:
    """Daemons with nothing to do, all in the same minute."""
    with ExitStack() as stack:
        running = []
        for tool in bench.tools(0):
            subject = Subject(bench.server, bench.directory / f"idle-{tool.name}", f"idle-{tool.name}")
            stack.enter_context(subject).place(base)
            running.append((tool, subject, stack.enter_context(_beside_app(subject, tool))))
        time.sleep(min(60.0, seconds))  # until what follows a first publish is over
        before = [cpu_used(child.pid) for _, _, child in running]
        seen: list[Values] = [{} for _ in running]
        with ExitStack() as metering:
            for (_, subject, _), into in zip(running, seen, strict=True):
                metering.enter_context(bench.server.metered(subject.bucket, into))
            time.sleep(seconds)
        for (tool, _, child), used, requests in zip(running, before, seen, strict=True):
            cpu = max(now - then for now, then in zip(cpu_used(child.pid), used, strict=True))
            values = {"seconds": seconds, "cpu": cpu, "share": cpu / seconds, "memory": float(memory(child.pid))}
            bench.record(Sample(size, "idle", tool.name, 0, values | requests))


def cpu_used(pid: int) -> tuple[float, float]:
    """CPU seconds by two counters: of all threads ever, in ticks; of the living ones, exact."""
    return cpu_seconds(pid), running_seconds(pid)


def commits(subject: Subject, seconds: float, inside: Callable[[Command], Command] = tuple) -> Values:
    """A writer's commits for so long; `inside` makes a command that runs in another environment."""
    output = subject.directory / "commits.json"
    options = ("--seconds", str(seconds), "--rate", str(RATE), "--output", str(output))
    log = subject.directory / "writer.log"
    run(inside((sys.executable, str(SCRIPT), str(subject.database), *options)), subject.env, log)
    durations = sorted(json.loads(output.read_text())["commits"])
    return {
        "commits": len(durations),
        "p50": quantile(durations, 0.5),
        "p99": quantile(durations, 0.99),
        "longest": durations[-1],
        "total": sum(durations),
    }


def quantile(ordered: list[float], share: float) -> float:
    """The smallest value that is not exceeded by this share of all."""
    return float(ordered[max(0, math.ceil(share * len(ordered)) - 1)])


@contextlib.contextmanager
def _protecting(subject: Subject, tool: Tool | None) -> Iterator[None]:
    """The tool's daemon, from its first publish on; nobody without one."""
    if tool is None:
        yield
        return
    with started(subject, tool.protect(subject)):
        yield


@contextlib.contextmanager
def _beside_app(subject: Subject, tool: Tool) -> Iterator[Child]:
    with started(subject, tool.run(subject, ["sleep", "100000"])) as child:
        eventually(lambda: len(family(child.pid)) > 1, 30.0, f"{tool.name} starts the app")
        yield child


@contextlib.contextmanager
def started(subject: Subject, command: Command) -> Iterator[Child]:
    child = start(command, subject.env, subject.log)

    def published() -> bool:
        assert child.running, f"{command} ended:\n{subject.log.read_text(errors='replace')[-3000:]}"
        keys = subject.keys()
        return any(not key.endswith("/lease.json") for key in keys)

    try:
        eventually(published, _PATIENCE, "the first publish")
        yield child
    finally:
        child.kill()


def _moment(said: Path, *, after: float) -> float:
    """The time that the app printed; the tool's own lines are on the same stdout."""
    for line in said.read_text().splitlines():
        with contextlib.suppress(ValueError):
            if float(line) >= after:
                return float(line)
    raise AssertionError(f"the app never said when it started:\n{said.read_text()}")
