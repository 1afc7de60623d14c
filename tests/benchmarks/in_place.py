"""`python -m tests.benchmarks.in_place [--size 1GiB] [--rounds 5]`: what a restore point of a streamed database costs.

The same change is published twice in turns: read in place, and from a whole copy. Measured is the processor time of this
process for one backup cycle, beside a real S3 server on the same machine; the app is another process, and what it wrote is
streamed before. Everything lies below TMPDIR.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import anyio

from sidecar.units import format_size, parse_size
from tests.benchmarks.generate import generate
from tests.harness.seaweed import Seaweed
from tests.harness.sql_process import SqlProcess
from tests.integration.streaming_machine import StreamingMachine, streaming
from tests.integration.wiring import NAME, store_of

CHANGES = {
    "100 pages within 8 MiB": (100, 8 << 20),
    "10 MiB anywhere": (10, None),
    "100 MiB anywhere": (100, None),
}


def rows(count: int, within: int | None, size: int, total: int, chance: random.Random) -> Sequence[int]:
    """The ids of rows: so many, evenly spread over so many bytes somewhere in the table, or over all of it."""
    span = total if within is None else total * within // size
    first = chance.randrange(1, total - span + 2)
    return [first + span * each // count for each in range(count)]


async def cost(
    machine: StreamingMachine, app: SqlProcess, ids: Sequence[int], *, whole: bool
) -> tuple[float, float, int]:
    """Change these rows, and publish. Returns processor time and time in seconds, and how many MiB were read."""
    app.run(f"UPDATE rows SET noise = randomblob(length(noise)) WHERE id IN ({', '.join(map(str, ids))})")
    await machine.publish_segments()
    if whole:
        machine.backup.cycle._main_line.in_place._since = None
    before = machine.status.databases[NAME].chunks["read"]
    started, used = time.monotonic(), time.process_time()
    assert await machine.backup.cycle.run() == "published"
    used, took = time.process_time() - used, time.monotonic() - started
    return used, took, machine.status.databases[NAME].chunks["read"] - before


async def measure(seaweed: Seaweed, directory: Path, size: int, rounds: int) -> None:
    """Print a line for each kind of change."""
    path, chance = directory / NAME, random.Random(1)
    generate(path, size)
    seaweed.s3.make_bucket("bench")
    with SqlProcess(path) as app:
        total = int(app.run("SELECT max(id) FROM rows")[0][0])
        async with store_of("bench", seaweed.endpoint) as store, streaming(store, path, "bench") as machine:
            await machine.start()
            await cost(machine, app, [1], whole=True)
            for name, (count, within) in CHANGES.items():
                found: dict[bool, list[tuple[float, float, int]]] = {False: [], True: []}
                for _ in range(rounds):
                    for whole in (False, True):
                        ids = rows(count, within, size, total, chance)
                        found[whole].append(await cost(machine, app, ids, whole=whole))
                print(shown(name, found[False], found[True]), flush=True)


def shown(name: str, ours: list[tuple[float, float, int]], full: list[tuple[float, float, int]]) -> str:
    """Medians, with the lowest and the highest in brackets."""

    def values(found: list[tuple[float, float, int]], which: int, form: str) -> str:
        each = [one[which] for one in found]
        return f"{statistics.median(each):{form}} ({min(each):{form}}–{max(each):{form}})"

    ratio = statistics.median(one[0] for one in ours) / statistics.median(one[0] for one in full)
    return (
        f"{name}: processor {values(ours, 0, '.2f')} s in place, {values(full, 0, '.2f')} s whole, ratio {ratio:.2f}; "
        f"time {values(ours, 1, '.2f')} s, {values(full, 1, '.2f')} s; MiB read {values(ours, 2, '.0f')}"
    )


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=parse_size, default=1 << 30)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="bench-") as name, Seaweed(Path(name) / "server") as seaweed:
        os.environ.update(seaweed.environment())
        print(f"{format_size(options.size)}, load {os.getloadavg()[0]:.1f}", flush=True)
        anyio.run(partial(measure, seaweed, Path(name), options.size, options.rounds))
        print(f"load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
