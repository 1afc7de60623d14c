"""One application on machines that are lost: what it has said to have, and what of it is there on the next machine.

Every boot is on another machine, with an empty data directory. Each life of the application writes rows under names of its
own, so that a row that comes back can be told from one that is written again.
"""

import contextlib
import signal
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.apps.browser import Refused
from tests.apps.catalogue import Application, Client
from tests.e2e.machine import Machine
from tests.harness.eventually import eventually
from tests.harness.ports import free_port
from tests.harness.sidecar_process import SidecarProcess

ROWS = 10
SETTINGS: dict[str, Any] = {"interval": "1s", "lease_ttl": "3s", "lease_wait": "60s", "shutdown_grace": "15s"}
STARTING = 60.0
ENDED_BY_SIGTERM = (0, 128 + signal.SIGTERM)  # sidecar's own failures have other numbers


class Lost(Exception):
    """Something that had to be there was not, or the application did not work."""


@dataclass
class Round:
    """How many rows were acknowledged before the machine was lost, and how many of them the next one has."""

    written: int
    kept: int

    def __str__(self) -> str:
        return f"{self.kept} of {self.written}"


@dataclass
class Outcome:
    """What has come of one application; `problem` is empty when all is well."""

    journal_mode: str = "-"
    rounds: list[Round] = field(default_factory=list)
    problem: str = ""


class Trial:
    """The lives of one application, one after the other."""

    def __init__(self, application: Application, programs: Path, machine: Machine) -> None:
        self._application, self._programs, self._machine = application, programs, machine
        self._image = machine / "image"
        self._image.mkdir()
        self._written: set[str] = set()
        self._lives = 0
        self.outcome = Outcome()

    def run(self) -> None:
        """Every round; the outcome is kept also when one fails. Raises nothing but `KeyboardInterrupt`."""
        try:
            with self._life() as (process, client):
                self._write(client)
                self._stop(process)
            self._machine.lose_disk()
            with self._life() as (process, client):
                self._look(client)
                self._write(client)
                self._await_restore_point(process)
                process.kill()
            self._machine.lose_disk()
            with self._life() as (process, client):
                self._look(client)
                self._write(client)
                self._stop(process)
            self._check_database()
            self._machine.lose_disk()
            with self._life() as (process, client):
                self._look(client)
                self._stop(process)
        except (Lost, Refused, AssertionError, OSError, sqlite3.Error, LookupError, TypeError, ValueError) as error:
            self.outcome.problem = f"life {self._lives}: {type(error).__name__}: {error}"

    @contextlib.contextmanager
    def _life(self) -> Iterator[tuple[SidecarProcess, Client]]:
        """Boot on another machine; yields when the application answers."""
        self._lives += 1
        port = free_port()
        variables = {
            "FLY_MACHINE_ID": f"machine-{self._lives}",
            "PATH": f"{self._programs}:{self._machine.env['PATH']}",
            "DATA": str(self._machine.data),
            "bin": str(self._programs),
            "image": str(self._image),
            "port": str(port),
        }
        database = self._machine.data / self._application.database
        settings: dict[str, Any] = {**SETTINGS, "databases": database, "journal_mode": self._application.journal_mode}
        script = f"set -eu\n{self._application.script}"
        staging = self._machine / "t"
        with self._machine.run("sh", "-c", script, env=variables, staging_dir=staging, **settings) as process:
            yield process, eventually(lambda: self._client(process, port), STARTING, "the application answers")

    def _client(self, process: SidecarProcess, port: int) -> Client | None:
        assert process.running, f"ended with {process.wait(0)} before it answered"
        try:
            client = self._application.client(port)
            client.names()
        except Refused:
            return None
        return client

    def _write(self, client: Client) -> None:
        for number in range(ROWS):
            name = f"row-{self._lives}-{number}"
            client.write(name)
            self._written.add(name)
        if missing := self._written - client.names():
            raise Lost(f"acknowledged, and not shown: {', '.join(sorted(missing))}")

    def _look(self, client: Client) -> None:
        kept = self._written & client.names()
        self.outcome.rounds.append(Round(len(self._written), len(kept)))
        if missing := self._written - kept:
            raise Lost(f"lost with the machine: {', '.join(sorted(missing))}")

    def _stop(self, process: SidecarProcess) -> None:
        status = process.terminate(60)
        if status not in ENDED_BY_SIGTERM:
            raise Lost(f"ended with {status} after SIGTERM\n{process.report()}")

    def _await_restore_point(self, process: SidecarProcess) -> None:
        """Return when a cycle has succeeded that began after the last row was acknowledged: the second one from now."""
        name = "sidecar_last_backup_success_timestamp_seconds"
        before = process.metric(name) or 0.0
        first = process.wait_metric(name, before + 0.001)
        process.wait_metric(name, first + 0.001)

    def _check_database(self) -> None:
        database = self._machine.data / self._application.database
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            self.outcome.journal_mode = connection.execute("PRAGMA journal_mode").fetchone()[0]
            if (found := connection.execute("PRAGMA integrity_check").fetchall()) != [("ok",)]:
                raise Lost(f"integrity_check: {found}")
