"""An app in its own process that executes commands on one database, with an old or a new SQLite.

    python tests/harness/sql_process.py LIBRARY DATABASE

Each line of its input is a JSON array of a command and its arguments, each line of its output `{"rows", "error", "seconds"}`.
"""

import json
import select
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any, Self

OLD, NEW = "sqlite3", "pysqlite3.dbapi2"


class SqlProcess:
    """The test's side of the app."""

    def __init__(
        self, path: Path, library: str = NEW, *, wait: float = 5.0, rollback: bool = False, uri: bool = False
    ) -> None:
        """Start it and open the database, which is created in WAL mode if it is missing; `wait` is its busy timeout in seconds."""
        self._process = subprocess.Popen(
            [sys.executable, __file__, library, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._uri = uri
        self.open(wait)
        if not rollback:
            self.run("PRAGMA journal_mode=WAL")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def pid(self) -> int:
        return self._process.pid

    def open(self, wait: float = 5.0) -> None:
        self.say("open", wait, self._uri)
        self.answer()

    def close(self) -> None:
        """Close the database; the process keeps running."""
        self.say("close")
        self.answer()

    def run(self, sql: str, *values: Any) -> list[Any]:
        """The rows that a statement returns. Raises RuntimeError with SQLite's message."""
        self.say("sql", sql, values)
        return self.answer()

    def script(self, *statements: str) -> None:
        for each in statements:
            self.run(each)

    def say(self, *words: Any) -> None:
        """Send a command without waiting for its result."""
        assert self._process.stdin
        self._process.stdin.write(json.dumps(words).encode() + b"\n")
        self._process.stdin.flush()

    def answer(self, meanwhile: Callable[[], object] | None = None, every: float = 0.05) -> list[Any]:
        """Wait for the result without blocking the event loop."""
        assert self._process.stdout
        while meanwhile and not select.select([self._process.stdout], [], [], every)[0]:
            meanwhile()
        line = self._process.stdout.readline()
        assert line, "the app has died"
        reply = json.loads(line)
        self.seconds: float = reply["seconds"]
        if reply["error"]:
            raise RuntimeError(reply["error"])
        return list(reply["rows"])

    def kill(self) -> None:
        """Kill the process, like a crash."""
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe:
                pipe.close()


def _serve(library: str, path: str) -> None:
    sqlite: Any = import_module(library)
    connection: Any = None
    for line in sys.stdin:
        word, *arguments = json.loads(line)
        rows, error, since = [], None, time.monotonic()
        try:
            if word == "open":
                connection = sqlite.connect(path, isolation_level=None, timeout=arguments[0], uri=arguments[1])
            elif word == "close":
                connection.close()
            elif word == "until":
                _commit_until(connection, *arguments)
            else:
                rows = connection.execute(arguments[0], arguments[1]).fetchall()
        except sqlite.Error as problem:
            error = str(problem)
        print(json.dumps({"rows": rows, "error": error, "seconds": time.monotonic() - since}, default=str), flush=True)


def _commit_until(connection: Any, sql: str, seconds: float, pause: float) -> None:
    """Run one statement repeatedly."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        connection.execute(sql)
        if pause:
            time.sleep(pause)


if __name__ == "__main__":
    _serve(*sys.argv[1:])
