"""`python -m tests.stress wait [--rounds N] [--clients N] [--seed N]`: the guestbook answers only for what is stored.

Clients sign it as fast as they are answered. At a random instant everything is killed, and its disk is lost; another machine
boots. Every entry that was ever answered with 201 must be there. Exits with 1, and says which, when one is not.

`--measure SECONDS` prints how long 100 waiters beside 200 commits a second wait, and how many segments that costs, beside
the same writer without waiters.
"""

import argparse
import http.client
import json
import random
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Self

from sidecar.status.histogram import SECONDS
from tests.e2e.guestbook import APP, entries, port_of
from tests.e2e.machine import Machine
from tests.e2e.streaming import status_of
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.seaweed import Seaweed
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.writer_process import writer_command

BUCKET = "waits"
LONGEST_LIFE = 3.0
SETTINGS: dict[str, Any] = {
    "stream": "on",
    "interval": "1h",
    "lease_ttl": "1s",
    "lease_wait": "60s",
    "stream_interval": "200ms",
}


class Visitors:
    """Clients that sign in their `life` until the app goes away. What was answered with 201 is in `acked`, by its id."""

    def __init__(self, port: int, clients: int, life: int) -> None:
        self.acked: dict[int, str] = {}
        self.seconds: list[float] = []
        self.statuses = Counter[str]()
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._sign, args=(f"life {life} {each}",)) for each in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def _sign(self, visitor: str) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=40)
        number = 0
        with suppress(
            OSError, http.client.HTTPException, ValueError
        ):  # everything is killed, which is what this is for
            while not self._stop.is_set():
                number += 1
                body = json.dumps({"name": "x", "message": f"{visitor} writes {number}"})
                began = time.monotonic()
                connection.request("POST", "/api/entries", body, {"Content-Type": "application/json"})
                answer = connection.getresponse()
                entry = json.loads(answer.read())
                self.statuses[f"{answer.status} {entry.get('error', '').partition(': ')[2]}".strip()] += 1
                if answer.status == 201:
                    self.acked[entry["id"]] = entry["message"]
                    self.seconds.append(time.monotonic() - began)
                else:
                    self._stop.wait(float(answer.headers.get("Retry-After", "1")))
        connection.close()


@dataclass
class Waiting:
    """Machines that are lost one after the other, and what was answered in all their lives."""

    directory: Path
    seaweed: Seaweed
    random: random.Random
    clients: int
    bucket: str = BUCKET
    acked: dict[int, str] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[str] = field(default_factory=Counter)
    lost: list[str] = field(default_factory=list)
    lives: int = 0
    longest: float = LONGEST_LIFE

    def machine(self) -> Machine:
        """One that nobody has seen before."""
        root = self.directory / f"machine-{self.lives}"
        root.mkdir()
        env = clean_environment(root, FLY_MACHINE_ID=f"machine-{self.lives}") | self.seaweed.environment()
        return Machine.make(root, f"s3://{self.bucket}/shop", env)

    def round(self, *, writes: bool = True) -> None:
        """Boot elsewhere, look, live, be killed."""
        self.lives += 1
        machine, listen = self.machine(), free_port()
        env = {
            "GUESTBOOK_DB": str(machine.database),
            "GUESTBOOK_PORT": "0",
            "GUESTBOOK_WAIT_URL": f"http://{LOOPBACK}:{listen}/wait",
        }
        with machine.run(*APP, env=env, listen=f"{LOOPBACK}:{listen}", **SETTINGS) as process:
            port = port_of(process)
            found = entries(port)
            self.lost += [text for number, text in self.acked.items() if found.get(number) != text]
            if writes:
                self._live(process, port)
            process.kill()
        machine.sweep_memory()

    def _live(self, process: SidecarProcess, port: int) -> None:
        with Visitors(port, self.clients, self.lives) as visitors:
            eventually(lambda: visitors.acked, 60, f"somebody is answered\n{process.report()}")
            time.sleep(self.random.uniform(0, self.longest))
            process.kill()
        self.acked |= visitors.acked
        self.seconds += visitors.seconds
        self.statuses += visitors.statuses

    def __str__(self) -> str:
        waits = sorted(self.seconds)
        p99 = waits[int(0.99 * len(waits))] if waits else 0.0
        statuses = ", ".join(f"{count} times {status}" for status, count in sorted(self.statuses.items()))
        return (
            f"{self.lives} lives, {len(self.acked)} entries answered ({statuses}), {len(self.lost)} of them lost; "
            f"answered after {median(waits or [0.0]):.2f} s, p99 {p99:.2f} s"
        )


def play(rounds: int, clients: int, seed: int) -> Waiting:
    """So many rounds, and a last look."""
    with tempfile.TemporaryDirectory() as directory, Seaweed(Path(directory, "seaweed")) as seaweed:
        seaweed.s3.make_bucket(BUCKET)
        waiting = Waiting(Path(directory), seaweed, random.Random(seed), clients)
        for number in range(1, rounds + 1):
            waiting.round()
            if number % 5 == 0:
                print(waiting, flush=True)
        waiting.round(writes=False)
        return waiting


def measure(seconds: float) -> None:
    """A writer with 200 commits a second, without and with 100 waiters."""
    for waiters in (0, 100, 0, 100):
        with tempfile.TemporaryDirectory() as directory, Seaweed(Path(directory, "seaweed")) as seaweed:
            seaweed.s3.make_bucket(BUCKET)
            machine = Waiting(Path(directory), seaweed, random.Random(), 0).machine()
            app = writer_command(machine.database, "--acks", str(machine / "acks"), "--rate", "200")
            with machine.run(*app, stream="on", interval="1h") as process:
                process.wait_ready()
                eventually(lambda: status_of(process)["protects"], 60, "the stream protects")
                eventually(lambda: status_of(process)["segments"] > 1, 60, "it is under way")
                before, began, waits = status_of(process), time.monotonic(), list[float]()
                threads = [
                    threading.Thread(target=_wait, args=(process.port, began + seconds, waits)) for _ in range(waiters)
                ]
                for each in threads:
                    each.start()
                time.sleep(seconds)
                after, took = status_of(process), time.monotonic() - began
                put = process.metric("sidecar_store_request_duration_seconds_sum", operation="put") or 0.0
                puts = process.metric("sidecar_store_request_duration_seconds_count", operation="put") or 1.0
                slow = next(
                    bound
                    for bound in (*map(str, SECONDS), "+Inf")
                    if process.metric("sidecar_store_request_duration_seconds_bucket", operation="put", le=bound)
                    == puts
                )
                for each in threads:
                    each.join()
            waits.sort()
            shown = (
                f"waits median {median(waits):.2f} s, p99 {waits[int(0.99 * len(waits))]:.2f} s, longest {waits[-1]:.2f} s"
                if waits
                else ""
            )
            segments, commits = (after[name] - before[name] for name in ("segments", "commits"))
            print(
                f"{waiters} waiters: {commits / took:.0f} commits/s, {segments / took:.3f} segments/s, "
                f"a PUT takes {put / puts:.3f} s on average and at most {slow} s; {len(waits)} {shown}",
                flush=True,
            )


def _wait(port: int, until: float, waits: list[float]) -> None:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=60)
    while time.monotonic() < until:
        began = time.monotonic()
        connection.request("POST", "/wait")
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200, answer.status
        waits.append(time.monotonic() - began)
    connection.close()


def main(arguments: Sequence[str]) -> int:
    """The command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.stress wait", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--clients", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--measure", type=float, default=0.0, metavar="SECONDS")
    options = parser.parse_args(arguments)
    if options.measure:
        measure(options.measure)
        return 0
    print(f"seed {options.seed}", flush=True)
    waiting = play(options.rounds, options.clients, options.seed)
    print(waiting)
    for text in waiting.lost[:10]:
        print(f"lost: {text}")
    return bool(waiting.lost)
