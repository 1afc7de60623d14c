"""What is lost with a machine, and how long the next one takes to have it back.

loss   SIGKILL to the daemon and to a writer of 200 commits a second, some seconds after its start; then a restore. Lost are
       the commits between the last one that the writer was told of and the last one that was restored, in seconds. What
       is restored must be a prefix of what was written, without a gap. A store in a bucket, and one in a directory.
tail   a boot and a restore with some hundred segments behind the restore point, and with the restore point alone;
       Litestream: a restore with as many objects. They are written every 0.1 s, by the daemon, from 20 commits a second.
"""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.loads import writer
from tests.benchmarks.measure import Values, run, start
from tests.benchmarks.publishing import Bench
from tests.benchmarks.results import Sample
from tests.benchmarks.streamers import (
    STORES,
    LitestreamStream,
    SidecarStream,
    Streamed,
    Streamer,
    newest_row,
    require_prefix,
    streamers,
    streaming,
)
from tests.benchmarks.tools import Command
from tests.harness.eventually import eventually
from tests.harness.processes import Child
from tests.harness.sidecar_process import SIDECAR

RATE = 200
SEGMENTS = 300

_SOONEST, _LATEST = 1.5, 3.5  # seconds of writing after the first segment
_PATIENCE = 60.0
_LONG = 3600.0


def loss(bench: Bench, base: Path, size: int, turn: int) -> None:
    """One round for each store and each tool."""
    source = random.Random(turn)
    for store in STORES:
        for tool in streamers(bench, turn):
            label = f"loss-{store}-{turn}-{tool.name}"
            with Streamed(bench.server, bench.directory / label, label, store) as subject:
                subject.place(base)
                values = _killed(subject, tool, source.uniform(_SOONEST, _LATEST))
            bench.record(Sample(size, f"loss, {store}", tool.name, turn, values))


def tail(bench: Bench, base: Path, size: int, turns: int) -> None:
    """Streams are written once, and restored in turns."""
    tools: list[Streamer] = [SidecarStream(), LitestreamStream()] if bench.peers else [SidecarStream()]
    for tool in tools:
        label = f"tail-{tool.name}"
        with Streamed(bench.server, bench.directory / label, label) as subject:
            subject.place(base)
            made = _made_tail(subject, tool)
            for turn in range(turns):
                for name, values in _restored(subject, tool, turn):
                    bench.record(Sample(size, "tail", name, turn, values | {"segments": made}))


def _killed(subject: Streamed, tool: Streamer, seconds: float) -> Values:
    first = newest_row(subject.database)
    with streaming(subject, tool) as daemon, _writing(subject, RATE) as (app, acks):
        eventually(lambda: tool.streams(subject), _PATIENCE, "the first segment")
        time.sleep(seconds)
        for child in (daemon, app):
            os.killpg(child.pid, signal.SIGKILL)
        app.popen.wait()
    told = _told(acks)
    subject.close_app()
    restored = _restore(subject, tool)
    last = max(told)
    assert first <= restored <= last + 1, f"restored {restored}, written {first} to {last}"
    ended = told[last]
    return {
        "seconds": ended - told[restored]
        if restored in told
        else (0.0 if restored > last else ended - told[min(told)]),
        "lost": max(0, last - restored),
        "commits": last - first,
    }


def _restore(subject: Streamed, tool: Streamer) -> int:
    target, base = subject.directory / "restored.db", newest_row(subject.directory / "base.db")
    run(tool.restore(subject, target), subject.env, subject.log)
    try:
        return require_prefix(target, base)
    finally:
        target.unlink()


@contextlib.contextmanager
def _writing(subject: Streamed, rate: int) -> Iterator[tuple[Child, Path]]:
    acks = subject.directory / "acks"
    shutil.copy(subject.database, subject.directory / "base.db")
    command = (*writer(subject.database, subject.directory / "written.json", _LONG, rate), "--acks", str(acks))
    with (subject.directory / "writer.log").open("wb") as out:
        app = Child(command, subject.env, stdout=out, stderr=subprocess.STDOUT)
    try:
        yield app, acks
    finally:
        app.kill()


def _told(acks: Path) -> dict[int, float]:
    """When the writer was told of each commit, in its monotonic seconds. A torn last line does not count."""
    lines = (line.split() for line in acks.read_text().split("\n")[:-1])
    return {int(number): float(at) for number, at in lines}


def _made_tail(subject: Streamed, tool: Streamer) -> int:
    """Stream until sidecar has made enough segments, and kill everything; returns how many objects there are.

    Litestream merges and deletes its own, so it streams for as long as so many take at one every 0.1 s.
    """
    with streaming(subject, tool, often=True), _writing(subject, 20):
        if isinstance(tool, SidecarStream):
            eventually(lambda: subject.segments() >= SEGMENTS, 4 * _PATIENCE, f"{SEGMENTS} segments")
        else:
            time.sleep(SEGMENTS * 0.1)
    subject.close_app()
    return subject.segments() or len(subject.stored())


def _restored(subject: Streamed, tool: Streamer, turn: int) -> Iterator[tuple[str, Values]]:
    target = subject.directory / "restored.db"
    if isinstance(tool, LitestreamStream):
        yield tool.name, _run(tool.restore(subject, target), subject, target)
        return
    point = (*tool.restore(subject, target), "--key", subject.restore_point().removeprefix("store/"))
    commands = {"sidecar": tool.restore(subject, target), "sidecar, no tail": point}
    for name in sorted(commands, reverse=bool(turn % 2)):
        values = _run(commands[name], subject, target)
        yield name, values | _boot(subject, tail=name == "sidecar")


def _run(command: Command, subject: Streamed, target: Path) -> Values:
    cost = run(command, subject.env, subject.log)
    target.unlink()
    return cost


def _boot(subject: Streamed, *, tail: bool) -> Values:
    """From the start of `sidecar run` on an empty machine to its app's start, with a copy of the store."""
    prefix = f"boot-{time.monotonic_ns()}"
    s3, bucket = subject.server.seaweed.s3, subject.bucket
    for key in s3.keys(bucket, "store/"):
        if "lease" not in key and (tail or "/stream/" not in key):
            s3.raw.copy_object(
                Bucket=bucket, Key=f"{prefix}/{key[len('store/') :]}", CopySource={"Bucket": bucket, "Key": key}
            )
    shutil.rmtree(subject.database.parent)
    subject.database.parent.mkdir()
    said = subject.directory / "said"
    app = (sys.executable, "-S", "-c", f"import pathlib, time; pathlib.Path({str(said)!r}).touch(); time.sleep(1000)")
    env = {**subject.env, "SIDECAR_STORE": f"s3://{bucket}/{prefix}"}
    began = time.monotonic()
    child = start((*SIDECAR, "run", "--stream", "on", "--", *app), env, subject.log)
    try:
        eventually(said.exists, _PATIENCE, "the app starts")
        return {"started": time.monotonic() - began}
    finally:
        child.kill()
        said.unlink(missing_ok=True)
