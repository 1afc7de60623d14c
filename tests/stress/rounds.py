"""One round: writers, a follower, and what kills them."""

import json
import random
import select
import signal
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

from sidecar.database import default_driver
from tests.harness.environment import ROOT
from tests.harness.sql_process import NEW
from tests.stress.judge import Judge, Verdict
from tests.stress.plan import ACCOUNTS, BALANCE, WRITERS, Plan

_LONGEST_WAIT = 60.0  # seconds


class Round:
    """The processes of a round, and their files in `folder`."""

    def __init__(self, folder: Path, plan: Plan) -> None:
        self._folder, self._plan = folder, plan
        self._rng = random.Random(f"schedule {plan.seed}")
        self._database, self._recorded = folder / "app.db", folder / "recorded"
        self._acknowledged = folder / "acknowledged"
        self._writers: dict[int, subprocess.Popen[bytes]] = {}
        self._follower: subprocess.Popen[bytes] | None = None
        self._ready = False
        self._lives = 0
        self.kills = self.follower_kills = 0

    def run(self) -> Verdict:
        """Run the round and judge it. No process is left running."""
        self._recorded.mkdir()
        (self._folder / "plan.json").write_text(json.dumps(self._plan.as_json()))
        self._make_database()
        try:
            self._follow()
            self._await_ready()
            for number in range(WRITERS):
                self._write(number)
            self._await_first_commit()
            self._disturb()
            self._end_writers()
            self._stop_follower()
        except AssertionError:
            if not self._is_damaged_by_old():
                raise
        finally:
            self._sweep()
        plan = self._plan
        judge = Judge(self._database, self._recorded, self._acknowledged, seed=plan.seed)
        calm = plan.calm and not self.kills  # in the end writers may be killed in calm rounds, too
        return judge.judge(calm=calm, old=any(each != NEW for each in plan.libraries))

    def _is_damaged_by_old(self) -> bool:
        """Whether an old SQLite has written, and the database is malformed, so that nobody can follow it."""
        if all(each == NEW for each in self._plan.libraries):
            return False
        try:
            with closing(default_driver().connect(self._database, "rw")) as connection:
                return bool(connection.execute("PRAGMA integrity_check(1)").fetchone()[0] != "ok")
        except default_driver().error:
            return True

    def _make_database(self) -> None:
        self._database.touch()
        with closing(default_driver().connect(self._database, "rw")) as connection:
            for statement in (
                f"PRAGMA page_size={self._plan.page_size}",
                f"PRAGMA auto_vacuum={self._plan.auto_vacuum}",
                "PRAGMA journal_mode=WAL",
                "CREATE TABLE account(id INTEGER PRIMARY KEY, balance INT, pad BLOB)",
                "CREATE TABLE big(id INTEGER PRIMARY KEY, b BLOB)",
                "CREATE TABLE ledger(writer INT, number INT, PRIMARY KEY(writer, number)) WITHOUT ROWID",
                f"WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n LIMIT {ACCOUNTS}) INSERT INTO account SELECT i, {BALANCE}, randomblob(30) FROM n",
            ):
                connection.execute(statement).fetchall()

    def _await_first_commit(self) -> None:
        """On a busy machine the round would be over before a writer has begun."""
        until = time.monotonic() + _LONGEST_WAIT
        while not (self._acknowledged.exists() and self._acknowledged.stat().st_size):
            if time.monotonic() > until:
                raise AssertionError(f"nothing is committed: {(self._folder / 'stderr').read_text()[-2000:]}")
            time.sleep(0.01)

    def _disturb(self) -> None:
        until = time.monotonic() + self._plan.seconds
        while time.monotonic() < until:
            time.sleep(self._rng.uniform(0.05, 0.5))
            chance = self._rng.random()
            if not self._plan.calm:
                self._disturb_once(chance)

    def _disturb_once(self, chance: float) -> None:
        rng = self._rng
        if chance < 0.3:
            number = rng.randrange(WRITERS)
            self._kill(number)
            self._write(number)
        elif chance < 0.4:
            self._kill_follower()
            time.sleep(rng.choice([0, rng.uniform(0, 0.4)]))
            self._follow()
        elif chance < 0.5:
            self._pause(rng.choice([*self._writers.values(), self._follower]), rng.uniform(0, 1))
        elif chance < 0.5 + self._plan.kill_all:
            if rng.random() < 0.3:
                self._kill_follower()
            for number in self._writers:
                self._kill(number)
            if self._follower is None:
                self._follow()
            for number in self._writers:
                self._write(number)

    @staticmethod
    def _pause(process: subprocess.Popen[bytes] | None, seconds: float) -> None:
        """Pause a process, as a busy machine would, whatever it is doing and whatever locks it holds."""
        if process:
            process.send_signal(signal.SIGSTOP)
            time.sleep(seconds)
            process.send_signal(signal.SIGCONT)

    def _write(self, number: int) -> None:
        self._lives += 1
        plan, library = self._plan, self._rng.choice(self._plan.libraries)
        seed, first = f"{plan.seed} {self._lives}", self._lives * 1_000_000
        arguments = [library, self._database, number, first, plan.seconds, seed, self._acknowledged]
        self._writers[number] = self._start([Path(__file__).with_name("app.py"), *arguments, *(plan.busy or ())])

    def _start(self, command: list[object], **pipes: int) -> subprocess.Popen[bytes]:
        with (self._folder / "stderr").open("ab") as errors:
            return subprocess.Popen([sys.executable, *map(str, command)], stderr=errors, cwd=ROOT, **pipes)  # type: ignore[call-overload,no-any-return]

    def _follow(self) -> None:
        self._ready = False
        command = ["-m", "tests.stress.recorder", self._database, self._recorded]
        self._follower = self._start(list(command), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self._follower.stdin
        self._follower.stdin.write(json.dumps(self._plan.as_json()).encode())
        self._follower.stdin.close()

    def _await_ready(self) -> None:
        assert self._follower
        assert self._follower.stdout
        pipe = self._follower.stdout
        self._ready = self._ready or (
            bool(select.select([pipe], [], [], _LONGEST_WAIT)[0]) and pipe.readline() == b"ready\n"
        )
        if not self._ready:
            raise AssertionError(f"the follower does not follow: {(self._folder / 'stderr').read_text()[-2000:]}")

    def _kill(self, number: int) -> None:
        self.kills += 1
        self._writers[number].kill()
        self._writers[number].wait()

    def _kill_follower(self) -> None:
        assert self._follower
        self.follower_kills += 1
        self._follower.kill()
        self._close_follower()

    def _close_follower(self) -> None:
        assert self._follower
        assert self._follower.stdout
        self._follower.wait(_LONGEST_WAIT)
        self._follower.stdout.close()
        self._follower = None

    def _end_writers(self) -> None:
        """Kill some writers; others may close the database."""
        polite = self._rng.random() < 0.3
        for number, writer in self._writers.items():
            if not polite:
                self._kill(number)
            writer.wait(_LONGEST_WAIT)

    def _stop_follower(self) -> None:
        """Stop the follower; one that was just started must have begun first."""
        assert self._follower
        self._await_ready()
        self._follower.send_signal(signal.SIGTERM)
        code = self._follower.wait(_LONGEST_WAIT)
        self._close_follower()
        if code:
            raise AssertionError(f"the follower ended with {code}: {(self._folder / 'stderr').read_text()[-2000:]}")

    def _sweep(self) -> None:
        for process in [*self._writers.values(), *([self._follower] if self._follower else [])]:
            process.kill()
            process.wait()
        if self._follower and self._follower.stdout:
            self._follower.stdout.close()
