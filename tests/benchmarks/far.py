"""A store that is far away (far_store.py), the tools taking turns, each with its own defaults.

far, down     a plain parallel download (plain.py) of sidecar's restore point in ranges of 8 MiB, with 4 to 32 connections; the
              fastest of them is what the link can do
far, up       the same as PUTs
far, publish  the first publish; rclone sends sidecar's restore point
far, restore  to a path where nothing is

`share` is that of the link that a command used, from the start of its process to the end: what it sent or received in that
time, by what the link can do in it. Proxy, server and tool have the same cores: with many connections these are the limit,
which the plain transfer has as well.
"""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.far_store import FarStore
from tests.benchmarks.measure import Values, run
from tests.benchmarks.plain import SCRIPT
from tests.benchmarks.publishing import Bench, make_base, metered
from tests.benchmarks.results import Sample
from tests.benchmarks.tools import Command, Sidecar, Subject, Tool, by_hand, fetched, sent
from tests.harness.s3client import s3_client
from tests.harness.seaweed import ADMIN

SCENARIOS = ("far, down", "far, up", "far, publish", "far, restore")
CONNECTIONS = (4, 8, 16, 32)

_PIECE = 8 << 20


def measure(bench: Bench, size: int, runs: int) -> None:
    """All scenarios that are wanted."""
    if not bench.wants(*SCENARIOS):
        return
    bench.say("far store:")
    base = make_base(bench.directory / "far-base.db", size)
    with FarStore(bench.directory / "far", bench.server.seaweed.port) as far:
        for turn in range(runs):
            _turn(bench, far, base, size, turn)
    base.unlink()


def _turn(bench: Bench, far: FarStore, base: Path, size: int, turn: int) -> None:
    with ExitStack() as stack:
        subjects: list[tuple[Tool, Subject]] = []
        for tool in bench.tools(turn):
            name = f"far-{tool.name}-{turn}"
            subject = stack.enter_context(Subject(bench.server, bench.directory / name, name, far.endpoint))
            subject.place(base)
            subjects.append((tool, subject))
        costs = [(tool, subject, metered(subject, [tool.publish(subject)])) for tool, subject in subjects]
        ours = next(subject for tool, subject in subjects if tool.name == Sidecar.name)
        links = {direction: _link(bench, ours, far.endpoint, direction, size, turn) for direction in ("up", "down")}
        for tool, _, values in costs:
            _record(bench, Sample(size, "far, publish", tool.name, turn, values), "sent", links["up"])
        if bench.peers:
            values = metered(ours, _ready_to_send(ours))
            _record(bench, Sample(size, "far, publish", "rclone + zstd", turn, values), "sent", links["up"])
        for tool, subject in subjects:
            _restores(bench, tool, subject, size, turn, links["down"])


def _restores(bench: Bench, tool: Tool, subject: Subject, size: int, turn: int, link: float) -> None:
    if "far, restore" not in bench.only:
        return
    target = subject.directory / "restored.db"
    ways: dict[str, Sequence[Command]] = {tool.name: tool.restore(subject, target)}
    if bench.peers and tool.name == Sidecar.name:
        ways["rclone + zstd"] = by_hand(subject, target)
    for name, commands in ways.items():
        values = metered(subject, list(commands))
        for leftover in subject.directory.glob("restored.db*"):
            leftover.unlink()
        _record(bench, Sample(size, "far, restore", name, turn, values), "received", link)


def _record(bench: Bench, sample: Sample, metric: str, link: float) -> None:
    if sample.scenario in bench.only:
        sample.values["share"] = sample.values[metric] / (sample.values["wall"] * link)
        bench.record(sample)


def _ready_to_send(subject: Subject) -> list[Command]:
    file = subject.directory / "sent.zst"
    run(fetched(subject, file), subject.env, subject.log)
    return [sent(subject, file)]


def _link(bench: Bench, subject: Subject, endpoint: str, direction: str, size: int, turn: int) -> float:
    """Bytes a second of the fastest plain transfer."""
    key, rates = subject.restore_point(), []
    length = subject.server.seaweed.s3.raw.head_object(Bucket=subject.bucket, Key=key)["ContentLength"]
    spans = [(first, min(first + _PIECE, length) - 1) for first in range(0, length, _PIECE)]
    client = s3_client(endpoint, *ADMIN)
    operation = "get_object" if direction == "down" else "put_object"

    def signed(number: int) -> str:
        where = {"Bucket": subject.bucket, "Key": key if direction == "down" else f"plain/{number}"}
        return str(client.generate_presigned_url(operation, Params=where, ExpiresIn=3600))

    lines = "".join(f"{signed(number)} {first} {last}\n" for number, (first, last) in enumerate(spans))
    for connections in CONNECTIONS:
        values = _plain("GET" if direction == "down" else "PUT", connections, lines)
        rates.append(values["rate"])
        scenario = f"far, {direction}"
        if scenario in bench.only:
            bench.record(Sample(size, scenario, f"{connections:2} connections", turn, values))
    client.close()
    return max(rates)


def _plain(method: str, connections: int, lines: str) -> Values:
    argv = (sys.executable, str(SCRIPT), method, str(connections))
    said = subprocess.run(argv, input=lines, capture_output=True, text=True, check=True).stdout
    count, seconds = (float(each) for each in said.split())
    return {"wall": seconds, "rate": count / seconds}
