"""How cost grows with the database, from 64 MiB to 4 GiB: 64 MiB are generate.py's, the rest are rows of zeros.

growth, publish  100 rows are changed, evenly spread over 8 MiB, and streamed; then `sidecar backup` asks the daemon
                 for a restore point. `daemon CPU` is what the daemon needed for it, `memory` its highest since it was
                 started, the first publish included. Litestream: `replicate -once` of the same change
growth, boot     from the start of the process to the moment that an app prints, on a machine without the database

Zeros compress to nothing, so a size says what is read, hashed, written and kept account of, and little of the wire.
"""

import random
from contextlib import closing
from pathlib import Path

from tests.benchmarks import generate
from tests.benchmarks.in_place import rows
from tests.benchmarks.measure import Values, memory, run
from tests.benchmarks.publishing import Bench, metered
from tests.benchmarks.results import MIB, Sample, show_size
from tests.benchmarks.running import booted, cpu_used
from tests.benchmarks.streamers import SidecarStream, Streamed, streaming
from tests.benchmarks.tools import Sidecar, Tool
from tests.harness.eventually import eventually
from tests.harness.writers import open_database

SCENARIOS = ("growth, publish", "growth, boot")
SIZES = tuple(each * MIB for each in (64, 256, 1024, 4096))
ROOM = 5 * SIZES[-1]  # base and copy; a snapshot or Litestream's own; and the store's

_GENERATED = 64 * MIB
_CHANGED = 100
_WITHIN = 8 * MIB
_PATIENCE = 60.0


def measure(bench: Bench, runs: int) -> None:
    """All scenarios that are wanted."""
    if not bench.wants(*SCENARIOS):
        return
    for size in SIZES:
        bench.say(f"growth, {show_size(size)}:")
        base = _make(bench.directory / "growing.db", size)
        for turn in range(runs):
            for tool in bench.tools(turn):
                _measure(bench, base, tool, size, turn)
        base.unlink()


def _make(path: Path, size: int) -> Path:
    generate.generate(path, min(size, _GENERATED))
    with closing(open_database(path)) as connection:
        connection.execute("PRAGMA journal_mode=off")
        connection.execute("CREATE TABLE zeros (content BLOB)")
        for _ in range((size - _GENERATED) // MIB):
            connection.execute("INSERT INTO zeros VALUES (zeroblob(?))", (MIB,))
        connection.execute("PRAGMA journal_mode=wal")
    return path


def _measure(bench: Bench, base: Path, tool: Tool, size: int, turn: int) -> None:
    name = f"growth-{tool.name}-{size // MIB}-{turn}"
    with Streamed(bench.server, bench.directory / name, name) as subject:
        subject.place(base)
        publish = _by_the_daemon if tool.name == Sidecar.name else _at_once
        values = publish(subject, tool)
        if "growth, publish" in bench.only:
            bench.record(Sample(size, "growth, publish", tool.name, turn, values))
        if "growth, boot" in bench.only:
            subject.lose_database()
            seen: Values = {}
            with bench.server.metered(subject.bucket, seen):
                values = booted(subject, tool)
            bench.record(Sample(size, "growth, boot", tool.name, turn, values | seen))


def _by_the_daemon(subject: Streamed, tool: Tool) -> Values:
    with streaming(subject, SidecarStream()) as child:
        before = subject.segments()
        _change(subject)
        eventually(lambda: subject.segments() > before, _PATIENCE, "the change is streamed")
        used = cpu_used(child.pid)
        values = metered(subject, [tool.publish(subject)])
        values["daemon"] = max(now - then for now, then in zip(cpu_used(child.pid), used, strict=True))
        values["memory"] = float(memory(child.pid, "VmHWM"))
        child.popen.terminate()
        child.popen.wait(_PATIENCE)  # it gives its lease back: a boot need not wait for that
        return values


def _at_once(subject: Streamed, tool: Tool) -> Values:
    assert subject.app
    first = run(tool.publish(subject), subject.env, subject.log)
    _change(subject)
    values = metered(subject, [tool.publish(subject)])
    values["memory"] = max(values["memory"], first["memory"])
    return values


def _change(subject: Streamed) -> None:
    (total,) = subject.app.execute("SELECT max(id) FROM rows").fetchone()
    ids = ((each,) for each in rows(_CHANGED, _WITHIN, _GENERATED, total, random.Random(1)))
    subject.app.execute("BEGIN IMMEDIATE")
    subject.app.executemany("UPDATE rows SET noise = randomblob(length(noise)) WHERE id = ?", ids)
    subject.app.execute("COMMIT")
