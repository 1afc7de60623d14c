"""What streaming costs while nobody writes.

quiet   daemons side by side in the same minute, with streaming, without, and Litestream; the app has the database open, and
        has committed once: CPU, resident memory at the end, and requests; `streamed` counts LISTs and new segments,
        the only kinds that a stream could need (the lease is renewed by PUTs)
parked  one daemon with 100 databases of 1 MiB that an app has open, with streaming and without: what streaming adds
"""

import contextlib
import time
from contextlib import ExitStack
from pathlib import Path

from tests.benchmarks.measure import Values, copy_in_pages, cpu_seconds, memory, start
from tests.benchmarks.publishing import Bench
from tests.benchmarks.results import MIB, Sample
from tests.benchmarks.running import cpu_used
from tests.benchmarks.streamers import SidecarStream, Streamed, Streamer, Unstreamed, streamers, streaming
from tests.harness.eventually import eventually
from tests.harness.writers import open_database

DATABASES = 100

_SETTLE = 10.0
_PATIENCE = 300.0
_QUIET = 0.06  # CPU seconds in a second, in ticks of 10 ms: what follows the start is over


def quiet(bench: Bench, base: Path, size: int, seconds: float) -> None:
    """Daemons with nothing to do, all in the same minute."""
    with ExitStack() as stack:
        running = []
        for tool in (*streamers(bench, 0), Unstreamed()):
            label = f"quiet-{tool.name.replace(', ', '-').replace('=', '-')}"
            subject = stack.enter_context(Streamed(bench.server, bench.directory / label, label))
            subject.place(base)
            child = stack.enter_context(streaming(subject, tool))
            subject.app.execute("UPDATE rows SET version = version WHERE id = 1")
            running.append((tool, subject, child))
        time.sleep(_SETTLE)
        before = [cpu_used(child.pid) for _, _, child in running]
        segments = [subject.segments() for _, subject, _ in running]
        seen: list[Values] = [{} for _ in running]
        with ExitStack() as metering:
            for (_, subject, _), into in zip(running, seen, strict=True):
                metering.enter_context(bench.server.metered(subject.bucket, into))
            time.sleep(seconds)
        for (tool, subject, child), used, made, requests in zip(running, before, segments, seen, strict=True):
            cpu = max(now - then for now, then in zip(cpu_used(child.pid), used, strict=True))
            values = {"seconds": seconds, "share": cpu / seconds, "memory": float(memory(child.pid))}
            values["streamed"] = subject.segments() - made + requests.get("requests.LIST", 0.0)
            bench.record(Sample(size, "quiet", tool.name, 0, values | requests))


def parked(bench: Bench, base: Path, turn: int, seconds: float) -> None:
    """One daemon with many databases."""
    tools: list[Streamer] = [SidecarStream(), Unstreamed()]
    for tool in tools if turn % 2 == 0 else tools[::-1]:
        label = f"parked-{turn}-{'on' if isinstance(tool, SidecarStream) else 'off'}"
        with Streamed(bench.server, bench.directory / label, label) as subject, ExitStack() as stack:
            paths = [subject.database.with_name(f"app{number}.db") for number in range(DATABASES)]
            for path in paths:
                copy_in_pages(base, path)
                app = stack.enter_context(contextlib.closing(open_database(path)))
                app.execute("UPDATE rows SET version = version + 1 WHERE id = 1")  # opens the log
            bench.record(Sample(MIB, "parked", tool.name, turn, _parked(subject, tool, paths, seconds)))


def _parked(subject: Streamed, tool: Streamer, paths: list[Path], seconds: float) -> Values:
    databases = [option for path in paths for option in ("--database", str(path))]
    env = {name: value for name, value in subject.env.items() if name != "SIDECAR_DATABASES"}
    child = start((*tool.stream(subject), *databases), env, subject.log)
    try:
        eventually(lambda: _published(subject) >= DATABASES, _PATIENCE, "100 restore points")
        eventually(lambda: _is_calm(child.pid), _PATIENCE, "what follows the start is over")
        time.sleep(_SETTLE)
        used = cpu_used(child.pid)
        time.sleep(seconds)
        cpu = max(now - then for now, then in zip(cpu_used(child.pid), used, strict=True))
        streams = subject.log.read_text().count("stream begun")
        return {"share": cpu / seconds, "memory": float(memory(child.pid)), "streams": streams, "seconds": seconds}
    finally:
        child.kill()


def _published(subject: Streamed) -> int:
    return len({key.split("/")[1] for key in subject.stored() if key.endswith(".sqlite3.zst")})


def _is_calm(pid: int) -> bool:
    before = cpu_seconds(pid)
    time.sleep(1.0)
    return cpu_seconds(pid) - before <= _QUIET
