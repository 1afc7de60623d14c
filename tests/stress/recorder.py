"""The follower in its own process, which writes what it captures to files, so that it can be killed at any instant.

    python -m tests.stress.recorder DATABASE FOLDER < PLAN

Each stream has a folder: `base-N`, a copy of the database at commit N; segments; `sample-N`, copies of later snapshots;
`begin.json`, the position in the log where it began; `cut.json`, once it has ended; `past-N`, if copy N differs from the one
before where no commit is said to have written. SIGTERM ends it after a last hop. It
prints "ready" once it follows.
"""

import json
import os
import random
import signal
import sys
import time
from contextlib import closing
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import anyio

from sidecar.database import default_driver
from sidecar.database.wal import (
    Batch,
    Capture,
    CutCause,
    Feed,
    Follower,
    Limits,
    NotStreamable,
    StreamCut,
    worker,
)
from sidecar.database.wal import follower as following
from sidecar.database.wal.changed import Changed
from sidecar.database.wal.hold import Hold
from sidecar.model import Bytes, Commit, LogPosition
from sidecar.repository.format.differences import encode_smaller
from sidecar.repository.format.folding import fold
from sidecar.repository.format.increment import ClockAnchor, SegmentHeader, decode, first_prev
from tests.stress import mutants

PART = 1 << 16  # bytes: the databases are small

resets = 0


@dataclass(slots=True)
class Stream:
    """The part of a stream that is in its folder. `log` is the position in the log where that ends.

    `images` are the last images of pages that this process has written, from which only what changed is written.
    """

    folder: Path
    page_size: int
    log: LogPosition
    commits: int
    prev: str
    images: dict[int, Bytes] = field(default_factory=dict)

    @classmethod
    def read(cls, folder: Path) -> "Stream | None":
        """The stream in a folder, if it can continue."""
        if (folder / "cut.json").exists() or not list(folder.glob("base-*")):
            return None
        began = json.loads((folder / "begin.json").read_text())
        log = LogPosition(bytes.fromhex(began["salts"]), began["frame"], tuple(began["checksum"]))
        stream = cls(folder, page_size_of(next(folder.glob("base-*"))), log, 0, first_prev(folder.name))
        if segments := sorted(folder.glob("[0-9]*.zst")):
            last = decode(segments[-1].read_bytes(), segments[-1].name)
            assert last.header.log
            stream.log, stream.commits, stream.prev = last.header.log, last.header.last, last.digest
        return stream

    def add(self, batch: Batch, *, folded: bool = False) -> None:
        """Publish a segment; with `folded`, as one commit."""
        if not batch.commits:
            return
        commits = [Commit(c.number, int(c.at * 1e6), c.pages, c.images, folded=c.folded) for c in batch.commits]
        if folded:
            commits = [fold(commits)]
        header = SegmentHeader(
            database="app.db",
            stream=self.folder.name,
            first=batch.commits[0].first,
            last=batch.commits[-1].number,
            page_size=self.page_size,
            prev=self.prev,
            holder="stress",
            epoch=1,
            sqlite="",
            clock=ClockAnchor(0, 0),
            log=batch.end,
            unsummed=batch.unsummed,
        )
        smaller = encode_smaller(header, commits, 0, self.images.get)
        assert not smaller.mistake, smaller.mistake
        for commit in commits:
            self.images.update(commit.images)
        segment = smaller.encoded
        write(self.folder / f"{header.last:016}-{header.first:016}.zst", segment.data)
        self.log, self.commits, self.prev = batch.end, header.last, segment.digest

    def end(self, cut: StreamCut, when: str) -> None:
        """Record that it cannot continue."""
        write(self.folder / "cut.json", json.dumps({"cause": cut.cause, "why": str(cut), "when": when}).encode())


def write(path: Path, data: bytes) -> None:
    """Write a file completely or not at all."""
    temporary = path.with_name(f"tmp-{path.name}")
    temporary.write_bytes(data)
    temporary.rename(path)


def page_size_of(path: Path) -> int:
    """The page size of a database."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(18)[16:], "big")
    return 65536 if size == 1 else size


class Recorder:
    """Follows a database until it is told to stop."""

    def __init__(self, path: Path, folder: Path, plan: dict[str, Any]) -> None:
        self._path, self._folder, self._plan = path, folder, plan
        self._rng = random.Random(time.time_ns())
        self._driver = default_driver()
        self._capture = Capture(self._driver, Limits(**plan["limits"]))
        self._feed = self._capture.feed(path)
        self._followers: list[Follower] = []
        self._last: tuple[int, bytes] | None = None  # the copy before, of the same follower
        self.stopping = False

    async def run(self) -> None:
        """Record one stream after the other."""
        async with self._capture.running():
            last = max(self._folder.glob("stream-*"), default=None)
            stream = Stream.read(last) if last else None
            if stream:
                stream = await self._resume(stream)
            stream = stream or await self._begin()
            print("ready", flush=True)
            while not await self._record(stream):
                stream = await self._begin()

    async def _begin(self) -> Stream:
        folder = self._folder / f"stream-{len(list(self._folder.glob('stream-*'))):06}"
        while True:
            try:
                log = await self._feed.begin()
                self._note()
                folder.mkdir(exist_ok=True)
                place = {"salts": log.salts.hex(), "frame": log.frame, "checksum": log.checksum}
                write(folder / "begin.json", json.dumps(place).encode())
                base = await self._copy(folder, "base")
            except (StreamCut, NotStreamable) as problem:
                self._log({"not begun": str(problem)})
                await anyio.sleep(0.01)
                continue
            if base:
                return Stream(folder, page_size_of(base), log, 0, first_prev(folder.name))

    async def _resume(self, stream: Stream) -> Stream | None:
        try:
            await self._feed.resume(stream.log, stream.commits)
        except (StreamCut, NotStreamable) as problem:
            cut = problem if isinstance(problem, StreamCut) else StreamCut(CutCause.MODE, str(problem))
            stream.end(cut, "resuming")
            return None
        self._note()
        self._log({"resumed": stream.folder.name, "at": stream.commits})
        return stream

    async def _record(self, stream: Stream) -> bool:
        """Record until told to stop (returns True) or until the stream ends."""
        try:
            return await self._publish(stream)
        except StreamCut as cut:
            stream.end(cut, "following")
            self._count()
            return False

    async def _publish(self, stream: Stream) -> bool:
        plan, rng = self._plan, self._rng
        while not self.stopping:
            stream.add(await self._feed.take(plan["publish_every"]), folded=rng.random() < plan["fold"])
            if rng.random() < plan["sample"]:
                await self._copy(stream.folder, "sample")
            if plan["loses_locks"] and not _track(self._feed).follower.away:
                await self._capture.call(lambda _worker: _track(self._feed).follower.hold.hands.end())
            self._count()
            await anyio.sleep(plan["publish_every"] * rng.random())
            if rng.random() < plan["reopen"]:
                await self._feed.stop()
                await anyio.sleep(rng.choice([0, 0, 0.02, 0.3]))
                if not await self._resume(stream):
                    return False
        await self._feed.flush()
        await self._copy(stream.folder, "sample")  # opened by SQLite, what killed writers have left may count at last
        await self._feed.flush()
        stream.add(await self._feed.take(0))
        self._count()
        return True

    async def _copy(self, folder: Path, kind: str) -> Path | None:
        """Have SQLite copy the snapshot that the follower holds, if that is exactly what it has captured."""

        def copy(_worker: worker.Worker) -> Path | None:
            track = _track(self._feed)
            follower, hands = track.follower, track.follower.hold.hands
            if track.cut or follower.away:
                return None
            temporary, path = folder / "tmp-copy", folder / f"{kind}-{follower.commits}"
            temporary.write_bytes(b"")
            with closing(self._driver.connect(self._path, "ro")) as source:
                source.execute("BEGIN")
                source.execute("PRAGMA schema_version").fetchall()
                if not hands.index().same_commit(follower.hold.mark.index):
                    return None
                with closing(self._driver.connect(temporary, "rw")) as destination:
                    source.backup(destination)
            temporary.rename(path)
            self._require_written(folder, follower, path.read_bytes())
            return path

        return await self._capture.call(copy)

    def _require_written(self, folder: Path, follower: Follower, content: bytes) -> None:
        """What a daemon looks at with each restore point: only what commits wrote may differ from the copy before."""
        before, self._last = self._last, (follower.commits, content)
        if before is None:
            return
        size = PART
        for part in range(min(len(before[1]), len(content)) // size):
            span = slice(part * size, (part + 1) * size)
            if before[1][span] != content[span] and not follower.changed.wrote(part, before[0]):
                write(folder / f"past-{follower.commits}", f"part {part} since commit {before[0]}".encode())

    def _note(self) -> None:
        self._last = None
        self._followers.append(_track(self._feed).follower)

    def _count(self) -> None:
        """Write the counters of this process; the last line counts."""
        totals: dict[str, float] = {"pid": os.getpid(), "resets": resets}
        for follower in self._followers:
            for name, value in asdict(follower.counters).items():
                totals[name] = (
                    max(totals.get(name, 0), value) if name == "longest_hold" else totals.get(name, 0) + value
                )
        self._log({"counters": totals})

    def _log(self, line: dict[str, Any]) -> None:
        with (self._folder / "recorder.log").open("a") as file:
            file.write(json.dumps(line) + "\n")


def _track(feed: Feed) -> worker.Track:
    assert feed._track
    return feed._track


def _count_resets() -> None:
    keep = Hold.keep

    def counting(self: Hold, mark: Any, found: Any) -> None:
        global resets
        resets += self.mark.index.salts not in {mark.index.salts, bytes(8)}
        keep(self, mark, found)

    Hold.keep = counting  # type: ignore[method-assign]


async def main(path: str, folder: str) -> None:
    """Follow until SIGTERM."""
    plan = json.load(sys.stdin)
    worker.EVERY = plan["look_every"]
    vars(following)["Changed"] = partial(Changed, PART)
    _count_resets()
    if plan["mutant"]:
        mutants.apply(plan["mutant"])
    recorder = Recorder(Path(path), Path(folder), plan)
    with anyio.open_signal_receiver(signal.SIGTERM) as signals:
        async with anyio.create_task_group() as group:

            async def listen() -> None:
                async for _ in signals:
                    recorder.stopping = True

            group.start_soon(listen)
            await recorder.run()
            group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2])
