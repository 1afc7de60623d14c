"""Judges a round by the files that it left."""

import json
import random
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from sidecar.database import default_driver
from sidecar.errors import SidecarError
from sidecar.model import Bytes, Commit
from sidecar.repository.format.increment import decode, first_prev
from tests.harness.segments import commits_of
from tests.stress.plan import TOTAL
from tests.stress.recorder import page_size_of

REWRITTEN = ((18, 20), (24, 28), (40, 44), (92, 100))  # bytes of page 1 that SQLite's backup changes
LOOKED_AT = 5  # commits of each stream besides the samples

Rows = set[tuple[int, int]]


@dataclass(slots=True)
class Verdict:
    """The result of a round.

    SQLite 3.40 and older lose commits, or damage the database, when all processes die after a cache spill, ROLLBACK TO and
    COMMIT in one transaction; that is counted separately. `wrong` has a sentence for each violation, `strange` for each cut without a reason.
    """

    acknowledged: int = 0
    commits: int = 0
    streams: int = 0
    compared: int = 0
    checked: int = 0
    missed: int = 0
    lost_by_sqlite: int = 0
    damaged_by_sqlite: int = 0
    resumed: int = 0
    cuts: Counter[str] = field(default_factory=Counter)
    counters: Counter[str] = field(default_factory=Counter)
    strange: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Replica:
    """A base with the commits of its stream applied."""

    def __init__(self, base: Path) -> None:
        self._base, self._images = base.read_bytes(), dict[int, bytes]()
        self.page_size = page_size_of(base)
        self._pages = len(self._base) // self.page_size

    def add(self, commit: Commit) -> None:
        """Apply the next commit."""
        self._images.update({page: bytes(image) for page, image in commit.images.items()})
        self._pages = commit.pages

    @property
    def content(self) -> bytes:
        """The database after the last commit."""
        size = self._pages * self.page_size
        content = bytearray(self._base.ljust(size, b"\0")[:size])
        for page, image in self._images.items():
            if page <= self._pages:
                content[(page - 1) * self.page_size : page * self.page_size] = image
        return bytes(content)


class Judge:
    """Compares what the follower recorded in `folder` with SQLite's own copies and the database."""

    def __init__(self, database: Path, folder: Path, acknowledged: Path, *, seed: int) -> None:
        self._database, self._folder, self._acknowledged = database, folder, acknowledged
        self._rng = random.Random(f"judge {seed}")
        self.verdict = Verdict()

    def judge(self, *, calm: bool, old: bool) -> Verdict:
        """`calm`: no process was killed. `old`: some writers had an SQLite that loses commits when all processes die."""
        end: Replica | None = None
        streams = [each for each in sorted(self._folder.glob("stream-*")) if list(each.glob("base-*"))]
        for stream in streams:
            end = self._stream(stream, old=old)
        self.verdict.streams = len(streams)
        self._count()
        self._cuts(streams, calm=calm)
        if end is None:
            self.verdict.wrong.append("there is no stream")
        else:
            self._end(end, old=old)
        return self.verdict

    def _stream(self, folder: Path, *, old: bool) -> Replica:
        base = next(folder.glob("base-*"))
        replica, begun = Replica(base), _number(base)
        sound = self._look(f"{folder.name} base", replica.content, old=old)
        samples = {_number(each): each for each in folder.glob("sample-*")}
        for each in folder.glob("past-*"):
            self._wrong(f"{folder.name} at commit {_number(each)}: nobody is said to have written {each.read_text()}")
        commits = list(self._commits(folder, begun))
        some = set(self._rng.sample(range(len(commits)), min(LOOKED_AT, len(commits))))
        for place, commit in enumerate(commits):
            replica.add(commit)
            name = f"{folder.name} at commit {commit.number}"
            if sample := samples.get(commit.number):
                self.verdict.compared += 1
                self._compare(name, replica.content, sample.read_bytes(), replica.page_size)
            if sound and (sample or place in some):
                self._look(name, replica.content)
        if commits:
            self.verdict.commits += commits[-1].number
        return replica

    def _commits(self, folder: Path, begun: int) -> Iterator[Commit]:
        """The commits after `begun`. A damaged segment, a gap or a broken chain is a violation."""
        prev, number, images = first_prev(folder.name), 0, dict[int, Bytes]()
        for path in sorted(folder.glob("[0-9]*.zst")):
            try:
                segment = decode(path.read_bytes(), path.name)
                commits = commits_of(segment, images)
            except SidecarError as error:
                self._wrong(f"{folder.name}: {error}")
                return
            if segment.header.prev != prev or segment.header.first != number + 1:
                self._wrong(f"{folder.name}: {path.name} does not follow commit {number}")
                return
            prev, number = segment.digest, segment.header.last
            for commit in commits:
                images.update(commit.images)
                if commit.number > begun:
                    yield commit

    def _cuts(self, streams: list[Path], *, calm: bool) -> None:
        """Cuts must have a reason: SQLite recovers only after deaths of the app, and only a follower that was down misses a reset.

        A recovery that lost frames without checksums may have been followed by as many commits as it removed, so that only
        the frames themselves differ. A writer that is killed may leave a complete transaction in the log that never counted. A
        follower that has closed a database that no process had open cannot tell a checkpoint of an app that came back from a
        file that replaced it.
        """
        following = set() if calm else {"recovered", "mismatch"}
        following |= {"replaced"} if self.verdict.counters["departures"] else set()
        for stream in streams:
            if not (path := stream / "cut.json").exists():
                continue
            cut = json.loads(path.read_text())
            self.verdict.cuts[f"{cut['when']}: {cut['cause']}"] += 1
            if cut["cause"] not in ({"reset", "recovered"} if cut["when"] == "resuming" else following):
                self.verdict.cuts["without a reason"] += 1
                self.verdict.strange.append(f"{stream.name} was cut {cut['when']}: {cut['why']}")

    def _count(self) -> None:
        last: dict[int, dict[str, float]] = {}
        for line in (self._folder / "recorder.log").read_text().splitlines():
            entry = json.loads(line)
            if "counters" in entry:
                last[entry["counters"].pop("pid")] = entry["counters"]
            self.verdict.resumed += "resumed" in entry
        for counters in last.values():
            for name, value in counters.items():
                if name == "longest_hold":
                    self.verdict.counters[name] = max(self.verdict.counters[name], round(value * 1000))
                else:
                    self.verdict.counters[name] += int(value)

    def _end(self, end: Replica, *, old: bool) -> None:
        """Check that the newest stream ends at the database, with every acknowledged commit that SQLite did not lose."""
        lines = self._acknowledged.read_text().splitlines() if self._acknowledged.exists() else []
        acknowledged = {(int(writer), int(number)) for writer, number in (line.split() for line in lines)}
        self.verdict.acknowledged = len(acknowledged)
        copy = self._folder / "live"
        try:
            with closing(default_driver().connect(self._database, "rw")) as live:
                if (answer := live.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                    raise sqlite3.DatabaseError(answer)
                copy.write_bytes(b"")
                with closing(default_driver().connect(copy, "rw")) as target:
                    live.backup(target)
            real = self._rows(copy)
        except (sqlite3.Error, default_driver().error) as error:
            self.verdict.damaged_by_sqlite += old
            if not old:
                self._wrong(f"the app's database is damaged: {error}")
            return
        lost = acknowledged - real
        self.verdict.lost_by_sqlite = len(lost)
        if lost and not old:
            self._wrong(f"the app's database has lost {len(lost)} acknowledged commits")
        self._compare("the end", end.content, copy.read_bytes(), end.page_size)
        restored = self._folder / "end"
        restored.write_bytes(end.content)
        try:
            rows = self._rows(restored)
        except sqlite3.Error as error:
            self._wrong(f"the end: {error}")
            return
        self.verdict.missed = len(real - rows)
        if missed := real - rows:
            self._wrong(f"the end misses {len(missed)} of {len(real)} commits")
        if extra := rows - real:
            self._wrong(f"the end has {len(extra)} commits that the database does not have")

    def _compare(self, name: str, found: bytes, wanted: bytes, page_size: int) -> None:
        if len(found) != len(wanted):
            self._wrong(f"{name}: {len(found)} bytes instead of {len(wanted)}")
            return
        found, wanted = comparable(found), comparable(wanted)
        if found != wanted:
            pages = range(len(found) // page_size)
            different = [
                p + 1 for p in pages if found[p * page_size :][:page_size] != wanted[p * page_size :][:page_size]
            ]
            self._wrong(f"{name}: pages {different[:5]} of {len(pages)} differ ({len(different)} in all)")

    def _look(self, name: str, content: bytes, *, old: bool = False) -> bool:
        """Run SQLite's own check, and check the sum that every transaction preserves. With `old`, SQLite may be the cause."""
        path = self._folder / "looked-at"
        path.write_bytes(content)
        self.verdict.checked += 1
        if problem := self._problem(path):
            if old:
                self.verdict.damaged_by_sqlite += 1
            else:
                self._wrong(f"{name}: {problem}")
        return not problem

    @staticmethod
    def _problem(path: Path) -> str:
        try:
            with closing(_opened(path)) as connection:
                if (answer := connection.execute("PRAGMA integrity_check(1)").fetchone()[0]) != "ok":
                    return str(answer)
                total = connection.execute("SELECT sum(balance) FROM account").fetchone()[0]
        except sqlite3.Error as error:
            return str(error)
        return "" if total == TOTAL else f"the balances add up to {total}"

    @staticmethod
    def _rows(path: Path) -> Rows:
        with closing(_opened(path)) as connection:
            return set(connection.execute("SELECT writer, number FROM ledger"))

    def _wrong(self, what: str) -> None:
        self.verdict.wrong.append(what)


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True)


def _number(path: Path) -> int:
    return int(path.name.rpartition("-")[2])


def comparable(content: bytes) -> bytes:
    page = bytearray(content)
    for first, end in REWRITTEN:
        page[first:end] = bytes(end - first)
    return bytes(page)
