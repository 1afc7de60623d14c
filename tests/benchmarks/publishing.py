"""Publish, change, publish again, restore: one command after the other, the tools taking turns at every step.

first    the store is empty
restore  what `first` published, to a path where nothing is, on the same file system as the database
send     rclone copies that restore point into the bucket: what the store alone takes to receive it
copy     how long the store alone takes to copy the restore point by parts: what reuse costs on its side
equal    nothing has changed since
range, append, random   1 % of the rows, see generate.py; the change is in the log (WAL) and the app keeps it open
"""

from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.benchmarks import generate
from tests.benchmarks.measure import Values, run, together
from tests.benchmarks.results import Results, Sample
from tests.benchmarks.server import Server
from tests.benchmarks.tools import Command, Litestream, Sidecar, Subject, Tool, by_hand, fetched, sent

CHANGES: dict[str, Callable[[Any], None]] = {
    "first": generate.leave_alone,
    "equal": generate.leave_alone,
    "range": generate.change_range,
    "append": generate.append,
    "random": generate.change_random,
}
SCENARIOS = ("first", "restore", "send", "copy", "equal", "range", "append", "random")


@dataclass(slots=True)
class Bench:
    """What every scenario works with."""

    server: Server
    directory: Path
    only: frozenset[str]
    peers: bool
    results: Results = field(default_factory=Results)
    say: Callable[[str], None] = print
    remarks: list[str] = field(default_factory=list)

    def wants(self, *scenarios: str) -> bool:
        """Whether one of these is to be measured."""
        return not self.only.isdisjoint(scenarios)

    def room(self, size: int) -> float:
        """Bytes on disk at most: base, copy, snapshot and what is restored; Litestream's own; each restore point."""
        peers = 3.5 if self.peers else 0.0
        return size * (4.0 + peers + 0.8 * sum(name not in ("restore", "equal") for name in self.steps()))

    def steps(self) -> tuple[str, ...]:
        """What is done: all up to the last that is to be measured."""
        last = max((index for index, name in enumerate(SCENARIOS) if name in self.only), default=-1)
        return SCENARIOS[: last + 1]

    def tools(self, turn: int) -> list[Tool]:
        """Who is measured, beginning with another one at each turn."""
        tools: list[Tool] = [Sidecar(), Litestream()] if self.peers else [Sidecar()]
        return tools if turn % 2 == 0 else tools[::-1]

    def remark(self, text: str) -> None:
        """Keep what whoever reads the results must know, and say it at once."""
        self.remarks.append(text)
        self.say(f"  {text}")

    def record(self, sample: Sample) -> None:
        """Keep a sample and tell that there is progress."""
        self.results.add(sample)
        shown = ", ".join(f"{name} {value:.3g}" for name, value in sorted(sample.values.items()) if "." not in name)
        self.say(f"  {sample.scenario}, {sample.tool}, run {sample.run + 1}: {shown}")


def publish_and_restore(bench: Bench, base: Path, size: int, turn: int) -> None:
    """One run over all steps, with databases and buckets of its own."""
    with ExitStack() as stack:
        pairs = []
        for tool in bench.tools(turn):
            subject = Subject(bench.server, bench.directory / f"{tool.name}-{turn}", f"{tool.name}-{size >> 20}-{turn}")
            pairs.append((tool, stack.enter_context(subject)))
            subject.place(base)
        for scenario in bench.steps():
            if scenario in CHANGES:
                _publish(bench, scenario, pairs, size, turn)
            elif scenario in bench.only:
                _from_the_store(bench, scenario, pairs, size, turn)


def metered(subject: Subject, commands: list[Command]) -> Values:
    """The cost of commands, with what the server saw of them."""
    seen: Values = {}
    with subject.server.metered(subject.bucket, seen):
        cost = together([run(command, subject.env, subject.log) for command in commands])
    return cost | seen


def _publish(bench: Bench, scenario: str, pairs: list[tuple[Tool, Subject]], size: int, turn: int) -> None:
    for tool, subject in pairs:
        CHANGES[scenario](subject.app)
        values = metered(subject, [tool.publish(subject)])
        if '"staged_on_tmpfs": true' in subject.log.read_text(errors="replace"):
            values["tmpfs"] = 1.0
        if scenario in bench.only:
            bench.record(Sample(size, scenario, tool.name, turn, values))


def _from_the_store(bench: Bench, scenario: str, pairs: list[tuple[Tool, Subject]], size: int, turn: int) -> None:
    for tool, subject in pairs:
        if scenario == "restore":
            _restore(bench, tool.name, subject, size, turn)
            if bench.peers and tool.name == Sidecar.name:
                _restore(bench, "rclone + zstd", subject, size, turn)
        elif tool.name != Sidecar.name:
            continue
        elif scenario == "send":
            if bench.peers:
                bench.record(Sample(size, "send", "rclone", turn, metered(subject, _ready_to_send(subject))))
        else:
            copied, wall = bench.server.copy(subject.bucket, subject.restore_point())
            bench.record(Sample(size, "copy", "the store", turn, {"wall": wall, "rate": copied / wall}))


def _ready_to_send(subject: Subject) -> list[Command]:
    """Have the restore point in a file; how to send it. Under another prefix: it is no restore point there."""
    file = subject.directory / "sent.zst"
    run(fetched(subject, file), subject.env, subject.log)
    return [sent(subject, file)]


def _restore(bench: Bench, tool: str, subject: Subject, size: int, turn: int) -> None:
    """Restore to a new path, and see that it is what was published."""
    target = subject.directory / "restored.db"
    commands = {
        Sidecar.name: lambda: Sidecar().restore(subject, target),
        Litestream.name: lambda: Litestream().restore(subject, target),
    }
    values = metered(subject, commands.get(tool, lambda: by_hand(subject, target))())
    wanted, found = generate.fingerprint(subject.database), generate.fingerprint(target)
    assert found == wanted, f"{tool} restored {found} instead of {wanted}"
    for leftover in subject.directory.glob("restored.db*"):
        leftover.unlink()
    bench.record(Sample(size, "restore", tool, turn, values))


def make_base(path: Path, size: int) -> Path:
    """Generate the database of a size, and let its log be empty."""
    generate.generate(path, size)
    with closing(generate.hold_open(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path
