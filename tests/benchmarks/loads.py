"""What streaming costs while an app writes: its commits, its checkpoints, and the daemon beside it.

commits   how long a writer's commits take at 100 a second, alone and beside each tool, in turns, with synchronous=normal
          and full
load      100 or 2,000 commits a second of a writer that does not wait for locks (busy_timeout 0): commits that were
          refused, CPU and resident memory of the daemon (the most that was seen), the busiest thread but the main
          one, the largest log, requests and bytes, and what the segments would have with whole pages beside what they have;
          without the first seconds after the first publish
truncate  the app's own PRAGMA wal_checkpoint(TRUNCATE), every half second at 20 commits a second, with a busy_timeout of 5 s
"""

import contextlib
import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.request import urlopen

from tests.benchmarks.measure import Values, memory, run
from tests.benchmarks.publishing import Bench
from tests.benchmarks.results import Sample
from tests.benchmarks.running import cpu_used, quantile
from tests.benchmarks.streamers import HOT, SidecarStream, Streamed, Streamer, streamers, streaming
from tests.benchmarks.writer import SCRIPT

RATES = (100, 2000)
SYNCHRONOUS = ("normal", "full")
NOBODY = "nobody"

_SETTLE = 3.0
_EVERY = 0.05
_CHECKPOINTS = ("--checkpoint-every", "0.5", "--busy-timeout", "5")


def commits(bench: Bench, base: Path, size: int, turn: int, seconds: float) -> None:
    """A writer's commits at 100 a second."""
    for synchronous in SYNCHRONOUS:
        for tool in (None, *streamers(bench, turn)):
            with _subject(bench, base, f"commits-{synchronous}-{turn}", tool) as (subject, name):
                seen = _write(subject, seconds, 100, "--synchronous", synchronous)
            bench.record(Sample(size, f"commits, {synchronous}", name, turn, _latency(seen)))


def load(bench: Bench, base: Path, size: int, turn: int, seconds: float) -> None:
    """What the daemon needs, and what it does to a writer that waits for nothing."""
    for rate in RATES:
        for tool in streamers(bench, turn):
            with _protected(bench, base, f"load-{rate}-{turn}", tool) as (subject, pid):
                values = _loaded(subject, pid, seconds, rate)
                if tool.name == SidecarStream.name:
                    values |= _ratio(subject)
            bench.record(Sample(size, f"load, {rate}", tool.name, turn, values))


def truncate(bench: Bench, base: Path, size: int, turn: int, seconds: float) -> None:
    """The app's own checkpoints."""
    for tool in (None, *streamers(bench, turn)):
        with _subject(bench, base, f"truncate-{turn}", tool) as (subject, name):
            seen = _write(subject, seconds, 20, *_CHECKPOINTS)
        took = sorted(seen["checkpoints"])
        values = {
            "median": statistics.median(took),
            "longest": took[-1],
            "busy": seen["busy"],
            "checkpoints": len(took),
        }
        bench.record(Sample(size, "truncate", name, turn, values))


@dataclass(slots=True)
class _Watched:
    """The most that was seen of a daemon's resident memory and of the log, in bytes."""

    pid: int
    wal: Path
    memory: int = 0
    log: int = 0
    _ended: threading.Event = field(default_factory=threading.Event)

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        thread = threading.Thread(target=self._watch, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(_EVERY):
            self.memory = max(self.memory, memory(self.pid))
            with contextlib.suppress(FileNotFoundError):
                self.log = max(self.log, self.wal.stat().st_size)


def _loaded(subject: Streamed, pid: int, seconds: float, rate: int) -> Values:
    watched, meter = _Watched(pid, subject.wal), Values()
    threads, used, began = _threads(pid), cpu_used(pid), time.monotonic()
    with watched.watching(), subject.server.metered(subject.bucket, meter):
        seen = _write(subject, seconds, rate, "--catch-up", "--busy-timeout", "0")
    took = time.monotonic() - began
    cpu = max(now - then for now, then in zip(cpu_used(pid), used, strict=True))
    busiest = max(
        (now - threads.get(thread, 0.0) for thread, now in _threads(pid).items() if thread != pid), default=0.0
    )
    tried = len(seen["commits"]) + seen["refused"]
    return _latency(seen) | {
        "refused": seen["refused"],
        "refused_per_100000": seen["refused"] * 100_000 / tried,
        "rate": tried / seconds,
        "share": cpu / took,
        "busiest": busiest / took,
        "memory": watched.memory,
        "log": watched.log,
        "requests_per_minute": meter["requests"] * 60 / took,
        "sent_per_minute": meter["sent"] * 60 / took,
    }


def _ratio(subject: Streamed) -> Values:
    """Bytes of the segments since the daemon's start with whole pages, by what they are."""
    with urlopen(f"http://{subject.env['SIDECAR_LISTEN']}/metrics", timeout=10) as answer:
        lines = answer.read().decode().splitlines()
    whole, sent = (
        sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"sidecar_stream_{name}_bytes_total{{"))
        for name in ("whole_pages", "uploaded")
    )
    return {"ratio": whole / sent}


def _threads(pid: int) -> dict[int, float]:
    """CPU seconds of each living thread."""
    found = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found[int(task.name)] = int((task / "schedstat").read_text().split()[0]) / 1e9
    return found


def _write(subject: Streamed, seconds: float, rate: int, *more: str) -> dict[str, Any]:
    output, log = subject.directory / "written.json", subject.directory / "writer.log"
    run(writer(subject.database, output, seconds, rate, *more), subject.env, log)
    found: dict[str, Any] = json.loads(output.read_text())
    return found


def writer(database: Path, output: Path, seconds: float, rate: int, *more: str) -> Sequence[str]:
    """The command line of a writer on a database that `make_streamed` made."""
    options = ("--seconds", str(seconds), "--rate", str(rate), "--output", str(output), "--hot", str(HOT))
    return (sys.executable, str(SCRIPT), str(database), *options, *more)


def _latency(seen: dict[str, Any]) -> Values:
    took = sorted(seen["commits"])
    return {"commits": len(took), "p50": quantile(took, 0.5), "p99": quantile(took, 0.99), "longest": took[-1]}


@contextlib.contextmanager
def _subject(bench: Bench, base: Path, label: str, tool: Streamer | None) -> Iterator[tuple[Streamed, str]]:
    """A database with the tool beside it, or nobody."""
    if tool:
        with _protected(bench, base, label, tool) as (subject, _):
            yield subject, tool.name
        return
    with Streamed(bench.server, bench.directory / f"{label}-{NOBODY}", f"{label}-{NOBODY}") as subject:
        subject.place(base)
        yield subject, NOBODY


@contextlib.contextmanager
def _protected(bench: Bench, base: Path, label: str, tool: Streamer) -> Iterator[tuple[Streamed, int]]:
    with Streamed(bench.server, bench.directory / f"{label}-{tool.name}", f"{label}-{tool.name}") as subject:
        subject.place(base)
        with streaming(subject, tool) as child:
            time.sleep(_SETTLE)
            yield subject, child.pid
