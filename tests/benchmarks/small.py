"""A small machine with a slow disk (small_machine.py), the tools taking turns; the server is outside of it.

small, publish  the first publish, with nobody writing, 300 MB. The app has just read its database, so as much of it is in
                memory as fits. By hand: `zstd -1` of the file, piped to `rclone rcat`, which writes nothing to disk
                and is no restore point of anything that is being written to
small, restore  to a path where nothing is
small, commits  how long a writer's commits take (writer.py), in the same machine: alone, and while the tool's daemon
                publishes for the first time and goes on (sidecar with interval 1 s). A commit that takes 20 s is one
                sample of the few that there are then: the quantiles say less than the longest and the sum of all

`device` is what the disk was made to write, from before until all of it was there, `device_read` what it read meanwhile; `disk`
is what the process asked to be written.
"""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.measure import Failed, Values, run, start, together
from tests.benchmarks.publishing import Bench, make_base
from tests.benchmarks.results import Sample
from tests.benchmarks.running import NOBODY, commits
from tests.benchmarks.small_machine import SmallMachine
from tests.benchmarks.tools import Command, Sidecar, Subject, Tool, by_hand, sent_at_once

SCENARIOS = ("small, publish", "small, restore", "small, commits")
SIZE = 300_000_000

_BY_HAND = "rclone + zstd"
_ROOM = 8  # times the database: one tool at a time, and what it stages


def measure(bench: Bench, runs: int, seconds: float) -> None:
    """All scenarios that are wanted."""
    if not bench.wants(*SCENARIOS):
        return
    bench.say("small machine:")
    base = make_base(bench.directory / "small-base.db", SIZE)
    with SmallMachine(bench.directory / "small", _ROOM * SIZE) as machine:
        for lack in machine.lacking:
            bench.remark(f"the small machine is NOT limited in {lack}")
        for turn in range(runs):
            for tool in bench.tools(turn):
                if bench.wants("small, publish", "small, restore"):
                    _publish_and_restore(bench, machine, base, tool, turn)
            for each in (None, *bench.tools(turn)):
                if bench.wants("small, commits"):
                    _commits(bench, machine, base, each, turn, seconds)
    base.unlink()


def _publish_and_restore(bench: Bench, machine: SmallMachine, base: Path, tool: Tool, turn: int) -> None:
    with _placed(bench, machine, base, f"small-{tool.name}-{turn}") as subject:

        def measured(scenario: str, name: str, commands: list[Command]) -> None:
            if (values := _cost(machine, subject, commands)) is None:
                bench.remark(f"{scenario}: {name} did not succeed:\n{subject.log.read_text(errors='replace')[-500:]}")
            else:
                bench.record(Sample(SIZE, scenario, name, turn, values))

        is_ours = tool.name == Sidecar.name
        if "small, publish" in bench.only:
            measured("small, publish", tool.name, [tool.publish(subject)])
            if bench.peers and is_ours:
                _read_once(machine, subject)
                measured("small, publish", _BY_HAND, [sent_at_once(subject)])
        else:
            run(tool.publish(subject), subject.env, subject.log)  # on the large machine: it is not measured
        if "small, restore" not in bench.only:
            return
        target = subject.directory / "restored.db"
        ways: dict[str, Callable[[], list[Command]]] = {tool.name: lambda: tool.restore(subject, target)}
        if bench.peers and is_ours:
            ways[_BY_HAND] = lambda: by_hand(subject, target)
        for name, commands in ways.items():
            measured("small, restore", name, commands())
            for leftover in subject.directory.glob("restored.db*"):
                leftover.unlink()


def _cost(machine: SmallMachine, subject: Subject, commands: list[Command]) -> Values | None:
    """The cost of commands in the machine; None if one failed, for instance for want of memory."""
    seen: Values = {}
    try:
        with machine.counted(seen), subject.server.metered(subject.bucket, seen), machine.limited():
            cost = together([run(machine.inside(command), subject.env, subject.log) for command in commands])
    except Failed:
        return None
    return cost | seen


def _commits(bench: Bench, machine: SmallMachine, base: Path, tool: Tool | None, turn: int, seconds: float) -> None:
    name = tool.name if tool else NOBODY
    wrote: Values = {}
    with _placed(bench, machine, base, f"small-commits-{name}-{turn}") as subject:
        with machine.counted(wrote), ExitStack() as stack:
            stack.enter_context(machine.limited())
            if tool is not None:
                stack.callback(start(machine.inside(tool.protect(subject)), subject.env, subject.log).kill)
            values = commits(subject, seconds, inside=machine.inside)
            values["published"] = _published(subject)
        bench.record(Sample(SIZE, "small, commits", name, turn, values | wrote))


def _published(subject: Subject) -> int:
    keys = subject.keys()
    return len([key for key in keys if not key.endswith("/lease.json")])


@contextlib.contextmanager
def _placed(bench: Bench, machine: SmallMachine, base: Path, name: str) -> Iterator[Subject]:
    """A subject on the machine's disk, whose database the machine has read once, and nobody else."""
    with Subject(bench.server, machine.disk / name, name) as subject:
        subject.place(base)
        assert subject.app
        _read_once(machine, subject)
        yield subject


def _read_once(machine: SmallMachine, subject: Subject) -> None:
    """Have the database in the machine's memory, as far as it fits, and charged to it."""
    machine.forget(subject.database)
    run(machine.inside(("cat", str(subject.database))), subject.env, subject.log, stdout=Path("/dev/null"))
