"""`python -m tests.stress.replacing [--rounds N] [--seed N] [--parallel N] [--mutant NAME]`: a file is put in the place of a database.

An app closes its database, puts another file in its place in one of many ways, at once or later, and opens it again. It
must find that file, and its own commits on it, as without us, byte for byte. What is captured must be what the app saw, or
the stream must be cut, and the next one begin at what is there. Exits with 1 when anything was wrong; with `--mutant`, when
the broken protocol was not caught.

What goes wrong because a connection of ours was open during the app's close, for a checkpoint, is counted apart: that may
happen where a file is replaced within milliseconds of the close (docs/streaming.md says so).
"""

import argparse
import json
import random
import shutil
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import anyio
from anyio import to_thread
from anyio.abc import Process
from anyio.streams.buffered import BufferedByteReceiveStream

from sidecar.database import default_driver
from sidecar.database.wal import Capture, Captured, Feed, NotStreamable, StreamCut
from sidecar.database.wal.absence import Absence
from sidecar.database.wal.connections import Connections
from sidecar.database.wal.hands import Hands
from sidecar.database.wal.watch import Watch
from tests.harness.sql_process import NEW, OLD
from tests.stress import replacer
from tests.stress.judge import comparable
from tests.stress.mutants import Patch

_DRIVER = default_driver()
_LONGEST = 20.0  # seconds
_LINE = 1 << 24  # bytes

Plan = dict[str, Any]


def draw(seed: int, folder: Path, **fixed: Any) -> Plan:
    """What happens in a round. Times are in seconds: `delay` between the close and the new file, `wait` after it."""
    rng = random.Random(f"replacing {seed}")
    plan = {
        "library": rng.choice([OLD, NEW]),
        "path": str(folder / "app.db"),
        "new": str(folder / "new.db"),
        "page_size": rng.choice([1024, 4096, 4096, 4096]),
        "before": rng.choice([1, 50, 400]),
        "parts": rng.choice([1, 3]),
        "part": rng.choice([1, 20, 150]),
        "pause": rng.choice([0.01, 0.06, 0.3]),
        "delay": rng.choice([0, 0, 0.0005, 0.001, 0.003, 0.01, 0.03, 0.3, 2.5]),
        "deletes": rng.random() < 0.15,
        "way": rng.choice(["copied", *replacer.WAYS, "restored", ""]),
        "wait": rng.choice([0, 0, 0, 0.002, 0.05, 0.3]),
        "mode": rng.choice(["WAL", "WAL", None]),
        "after": rng.choice([1, 3]),
        "closes": rng.random() < 0.3,
        "new_page_size": rng.choice([None, None, None, 4096, 8192]),
        "new_rows": rng.choice([1, 60, 300, 800]),
        "new_mode": rng.choice(["WAL", "WAL", "DELETE"]),
    } | fixed
    if plan["way"] in {"restored", ""}:
        plan["new_page_size"] = None
    return plan


@dataclass(slots=True)
class Followed:
    """A feed, and what it gave: the newest stream's base and commits, and where earlier streams ended."""

    feed: Feed
    folder: Path
    base: bytes = b""
    commits: list[Captured] = field(default_factory=list)
    ends: list[bytes] = field(default_factory=list)
    cuts: list[str] = field(default_factory=list)
    refused: str = ""
    begun: anyio.Event = field(default_factory=anyio.Event)

    @property
    def content(self) -> bytes:
        """The database as it was captured; empty between two streams."""
        images: dict[int, bytes] = {}
        for commit in self.commits:
            images.update(commit.images)
        if not self.base or not images:
            return self.base
        size = len(next(iter(images.values())))
        content = bytearray(self.base.ljust(self.commits[-1].pages * size, b"\0")[: self.commits[-1].pages * size])
        for page, image in images.items():
            if page <= self.commits[-1].pages:
                content[(page - 1) * size : page * size] = image
        return bytes(content)

    async def run(self) -> None:
        """Follow, from each cut on anew."""
        while True:
            try:
                await self.feed.begin()
                self.commits = []
                self.base = await self._copy()
                self.begun.set()
                while True:
                    self.commits += (await self.feed.take(0.5)).commits
            except StreamCut as cut:
                self.cuts.append(f"{cut.cause}: {cut}".replace(str(self.folder), ""))
                self.ends.append(self.content)
                self.base = b""
                await self.feed.stop()
            except NotStreamable as reason:
                self.refused = str(reason)
            await anyio.sleep(0.05)

    async def _copy(self) -> bytes:
        """A snapshot, as restore points are made; what is taken later begins after it."""
        while True:
            async with self.feed.present():
                index = await to_thread.run_sync(self._backup)
                number = await self.feed.locate(index) if index else None
            if number is not None:
                self.commits = [each for each in (await self.feed.take(0)).commits if each.number > number]
                return (self.folder / "base.db").read_bytes()

    def _backup(self) -> Any:
        target = self.folder / "base.db"
        target.write_bytes(b"")
        with closing(_DRIVER.connect(self.feed.path, "ro")) as source, closing(_DRIVER.connect(target, "rw")) as copy:
            before = self.feed.index()
            source.execute("BEGIN")
            source.execute("PRAGMA schema_version").fetchall()
            after = self.feed.index()
            source.backup(copy)
        return after if before.same_commit(after) else None


@dataclass(slots=True)
class Round:
    """One round in `folder`. `wrong` has a sentence for each violation."""

    plan: Plan
    folder: Path
    wrong: list[str] = field(default_factory=list)
    cuts: list[str] = field(default_factory=list)
    met: bool = False  # a connection of ours was open during the app's close, and something went wrong

    async def run(self, capture: Capture) -> "Round":
        """Play it, and judge it."""
        path, reference = Path(self.plan["path"]), self.folder / "reference.db"
        self._make()
        shutil.copyfile(self.plan["new"], reference)
        followed = Followed(capture.feed(path), self.folder)
        async with self._app() as say, anyio.create_task_group() as group:
            await say(json.dumps(self.plan))
            group.start_soon(followed.run)
            with anyio.fail_after(_LONGEST):
                await followed.begun.wait()
            seen = json.loads(await say("go"))
            self._judge_app(seen)
            await self._judge_end(followed, seen)
            group.cancel_scope.cancel()
            with anyio.CancelScope(shield=True):
                await followed.feed.stop()
                await say("end")
        self.cuts = followed.cuts
        if not self.wrong and self.plan["way"] not in {"", "restored"}:
            self._judge_file(path, reference)
        for end in filter(None, [*followed.ends, followed.content]):
            self._judge_captured(end)
        if self.wrong and connected(path, *seen["closed"]):
            self.met = True
        return self

    def _make(self) -> None:
        """The file that takes the database's place."""
        plan = self.plan
        with closing(sqlite3.connect(plan["new"], isolation_level=None)) as connection:
            connection.execute(f"PRAGMA page_size={plan['new_page_size'] or plan['page_size']}")
            connection.execute(f"PRAGMA journal_mode={plan['new_mode']}")
            connection.execute("CREATE TABLE t(origin, n, pad)")
            replacer.insert(connection, "new", 0, plan["new_rows"])

    @asynccontextmanager
    async def _app(self) -> AsyncIterator[Callable[[str], Any]]:
        """The app's process, and a way to tell it something and read its answer."""
        process: Process = await anyio.open_process([sys.executable, replacer.__file__], stderr=None)
        assert process.stdin
        assert process.stdout
        lines = BufferedByteReceiveStream(process.stdout)

        async def say(line: str) -> str:
            assert process.stdin
            await process.stdin.send(f"{line}\n".encode())
            if line == "end":
                await process.wait()
                return ""
            with anyio.fail_after(_LONGEST):
                return (await lines.receive_until(b"\n", _LINE)).decode()

        async with process:
            try:
                yield say
            finally:
                if process.returncode is None:
                    process.kill()

    def _rows(self, origin: str) -> list[list[Any]]:
        plan = self.plan
        counts = {"old": plan["before"] + plan["parts"] * plan["part"], "new": plan["new_rows"]}
        return [[origin, number] for number in range(counts.get(origin, 10 * plan["after"]))]

    def _judge_app(self, seen: Plan) -> None:
        if "error" in seen:
            self.wrong.append(f"the app failed: {seen['error']}")
            return
        start = self._rows("new" if self.plan["way"] else "old")
        for name, wanted in (("first", start), ("last", start + self._rows("after"))):
            if seen[name]["rows"] != wanted or seen[name]["check"] != "ok":
                counts = dict(Counter(row[0] for row in seen[name]["rows"]))
                self.wrong.append(f"the app saw {counts} at {name}, {seen[name]['check']}")

    async def _judge_end(self, followed: Followed, seen: Plan) -> None:
        """What is captured comes to what the app saw last, unless there is nothing to capture any more."""
        with anyio.move_on_after(_LONGEST / 2):
            while "error" not in seen:
                content = followed.content
                if content and _looked(self.folder, content)["rows"] == seen["last"]["rows"]:
                    live = await self._live()
                    if live and comparable(live) != comparable(content):
                        self.wrong.append("the end is captured, but not byte for byte")
                    return
                if not content and "journal mode" in followed.refused and seen["last"]["mode"] != "wal":
                    return
                await anyio.sleep(0.05)
        content = followed.content
        rows = Counter(row[0] for row in _looked(self.folder, content)["rows"])
        self.wrong.append(
            f"the end is not captured, but {dict(rows)} of {len(followed.commits)} commits on {len(followed.base)} bytes: "
            f"{followed.feed.status}, {followed.refused}"
        )

    async def _live(self) -> bytes:
        """SQLite's copy, by a process of its own."""
        target = self.folder / "live.db"
        code = "import sqlite3, sys; sqlite3.connect(f'file:{sys.argv[1]}?mode=ro', uri=True).backup(sqlite3.connect(sys.argv[2]))"
        await anyio.run_process([sys.executable, "-c", code, self.plan["path"], str(target)], check=False)
        return target.read_bytes() if target.exists() else b""

    def _judge_file(self, path: Path, reference: Path) -> None:
        """Nobody has it open any more, so the file alone is what it would have become without us."""
        library = import_module(self.plan["library"])
        connection, _ = replacer.go_on(library, str(reference), self.plan | {"pause": 0})
        connection.close()
        if comparable(path.read_bytes()) != comparable(reference.read_bytes()):
            self.wrong.append("the file is not what it would have become without us")

    def _judge_captured(self, content: bytes) -> None:
        """A stream's end is a state of the old database or of the new one."""
        found, old, new = _looked(self.folder, content), self._rows("old"), self._rows("new")
        if not self.plan["way"]:
            new = old
        rows, last = found["rows"], new + self._rows("after")
        is_old = rows == old[: len(rows)]
        if found["check"] != "ok" or not (is_old or (len(rows) >= len(new) and rows == last[: len(rows)])):
            self.wrong.append(f"captured: {dict(Counter(row[0] for row in rows))}, {found['check']}")


def _looked(folder: Path, content: bytes) -> Plan:
    path = folder / "looked-at.db"
    path.write_bytes(content)
    try:
        with closing(sqlite3.connect(f"file:{path}?immutable=1", uri=True)) as connection:
            return replacer.seen(connection)
    except sqlite3.Error as error:
        return {"rows": [], "check": str(error), "mode": ""}


_connected = dict[Path, list[tuple[float, float]]]()


def note_connections() -> None:
    """Note from when to when connections of ours are open."""
    opening, closing_ = Connections.open, Connections.close
    since = dict[Connections, float]()

    def open_(self: Connections, *, first: bool = False) -> None:
        since[self] = time.monotonic()
        opening(self, first=first)

    def close(self: Connections, *, tidy: bool) -> None:
        closing_(self, tidy=tidy)
        if self in since:
            _connected.setdefault(self.path, []).append((since.pop(self), time.monotonic()))

    Connections.open, Connections.close = open_, close  # type: ignore[method-assign]


def connected(path: Path, first: float, last: float) -> bool:
    """Whether one was open at any moment between the two."""
    return any(since <= last and until >= first for since, until in _connected.get(path, []))


def always_connected(patch: Patch) -> None:
    """A connection of ours stays open, so that the app's is never the last one."""
    patch(Hands, "disconnect", lambda self: None)


def unwatched(patch: Patch) -> None:
    """Nobody looks whether the file was written past its log, nor whether it is still the same."""
    patch(Watch, "_was_written", lambda self, now: False)
    patch(Watch, "pin", lambda self: None)
    patch(Absence, "is_same", lambda self, path: True)


MUTANTS = {"always-connected": always_connected, "unwatched": unwatched}


async def play(options: argparse.Namespace) -> int:
    """All rounds."""
    folder = Path(tempfile.mkdtemp(prefix="sidecar-replacing-"))
    fixed, cuts, done, bad, met = json.loads(options.fixed), Counter[str](), 0, 0, 0
    note_connections()
    capture, seeds = Capture(_DRIVER), iter(range(options.seed, options.seed + options.rounds))

    async def work(seeds: Iterator[int]) -> None:
        nonlocal done, bad, met
        for seed in seeds:
            own = folder / f"round-{seed}"
            own.mkdir()
            current = await Round(draw(seed, own, **fixed), own).run(capture)
            done, bad, met = done + 1, bad + bool(current.wrong and not current.met), met + current.met
            cuts.update(current.cuts)
            if current.wrong:
                what = "met a checkpoint" if current.met else "wrong"
                print(f"round {seed}, {what}: {current.plan}: {current.wrong}; cuts {current.cuts}", flush=True)
            shutil.rmtree(own)
            if bad and options.mutant:
                return

    async with capture.running(), anyio.create_task_group() as group:
        for _ in range(options.parallel):
            group.start_soon(work, seeds)
    print(f"{done} rounds, {bad} wrong, {met} met a checkpoint of ours at the close")
    for cut, count in cuts.most_common():
        print(f"{count:5} {cut}")
    shutil.rmtree(folder)
    return bad


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 31))
    parser.add_argument("--parallel", type=int, default=2)
    parser.add_argument("--fixed", default="{}", help="values of the plan that all rounds have, as JSON")
    parser.add_argument("--mutant", choices=MUTANTS)
    options = parser.parse_args()
    print(f"seed {options.seed}", flush=True)
    if options.mutant:
        MUTANTS[options.mutant](setattr)
    bad = anyio.run(partial(play, options))
    if options.mutant:
        print(f"mutant {options.mutant} was {'caught' if bad else 'NOT caught'}")
    return bool(bad) != bool(options.mutant)


if __name__ == "__main__":
    raise SystemExit(main())
