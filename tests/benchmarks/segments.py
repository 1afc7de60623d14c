"""What segments have of pages, offline: bytes of a segment with whole pages and as they are published, and CPU time for both.

A writer commits in this process, and a follower captures what it commits; one segment is made for each second of the load,
without waiting for that second. No restore point is published meanwhile, after which each page would be whole once. Each load
has a database of its own:

guestbook  an entry of the demo app, a text of some twenty words, into a table to which nothing else is added
hot        a row of 450 random bytes, and a change of one of a thousand rows (as in `load`)
anywhere   the same, with a change of any of the rows
"""

import contextlib
import random
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sidecar.backup.previous_images import ImageCache, PreviousImages
from sidecar.backup.segmenter import Segmenter, StoreTime, StreamIdentity
from sidecar.database.driver import default_driver
from sidecar.database.wal import Batch, Follower
from tests.benchmarks.measure import Values
from tests.benchmarks.publishing import Bench
from tests.benchmarks.results import Sample
from tests.benchmarks.streamers import HOT, make_streamed
from tests.benchmarks.writer import Writer
from tests.harness.writers import open_database

LOADS = (("guestbook", 1), ("guestbook", 20), ("hot", 20), ("hot", 200), ("hot", 2000), ("anywhere", 200))
MOST = 20_000  # commits of one load

_LOOKS = 20  # each second
_WORDS = [
    "when",
    "we",
    "came",
    "here",
    "in",
    "spring",
    "all",
    "was",
    "quiet",
    "but",
    "for",
    "the",
    "birds",
    "and",
    "somebody",
    "who",
    "played",
    "music",
    "on",
    "an",
    "old",
    "piano",
]
_NOW = datetime(2026, 11, 20, 14, 55, 3, tzinfo=UTC)
_STREAM = "20261120T145503.123Z-0000000007-web"


def segments(bench: Bench, size: int, seconds: float) -> None:
    """All loads, each for so many seconds of its time; the busiest for fewer."""
    for kind, rate in LOADS:
        path = bench.directory / f"{kind}-{rate}.db"
        values = _measured(kind, rate, path, size, min(int(seconds), MOST // rate))
        bench.record(Sample(size, f"segments, {kind}, {rate}", "sidecar", 0, values))
        for each in path.parent.glob(f"{path.name}*"):
            each.unlink()


def _measured(kind: str, rate: int, path: Path, size: int, seconds: int) -> Values:
    plain, smaller = _Made(None), _Made(PreviousImages(ImageCache()))
    if kind != "guestbook":
        make_streamed(path, size)
    with contextlib.closing(open_database(path)) as connection:
        commit = _writer(kind, connection)
        follower = Follower(path, default_driver())
        follower.open()
        try:
            follower.start()
            for batch in _batches(follower, commit, rate, seconds):
                plain.add(batch)
                smaller.add(batch)
        finally:
            follower.close()
    return {
        "whole": plain.sent / plain.segments,
        "sent": smaller.sent / smaller.segments,
        "ratio": plain.sent / smaller.sent,
        "cpu_whole": plain.cpu / seconds,
        "cpu": smaller.cpu / seconds,
        "seconds": seconds,
    }


class _Made:
    """The segments of a load: how many, their bytes, and the CPU seconds that they took."""

    def __init__(self, images: PreviousImages | None) -> None:
        identity = StreamIdentity("app.db", _STREAM, "web", 7, "3.53.4", None)
        self._segmenter = Segmenter(identity, StoreTime(_NOW, _NOW, 0.0), images)
        self.segments = self.sent = 0
        self.cpu = 0.0

    def add(self, batch: Batch) -> None:
        self._segmenter.add(batch)
        began = time.thread_time()
        while made := self._segmenter.next():
            assert not made.mistake, made.mistake
            self.segments += 1
            self.sent += len(made.data)
        self.cpu += time.thread_time() - began


def _batches(follower: Follower, commit: Callable[[], None], rate: int, seconds: int) -> Iterator[Batch]:
    """What is captured in each second."""
    for _ in range(seconds):
        captured = []
        for look in range(_LOOKS):
            for _ in range(rate * (look + 1) // _LOOKS - rate * look // _LOOKS):
                commit()
            captured += follower.poll()
        yield Batch(captured, follower.position)


def _writer(kind: str, connection: Any) -> Callable[[], None]:
    connection.isolation_level = None
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("PRAGMA synchronous=normal")
    if kind != "guestbook":
        return Writer(connection, HOT if kind == "hot" else 0, None).commit
    connection.execute("CREATE TABLE entries (id INTEGER PRIMARY KEY, name TEXT, message TEXT, written_at TEXT)")
    chance = random.Random(4)

    def commit() -> None:
        text = " ".join(chance.choices(_WORDS, k=chance.randint(5, 35)))
        row = (" ".join(chance.choices(_WORDS, k=2)), text, f"2026-11-20T14:55:{chance.uniform(10, 59):06.3f}Z")
        connection.execute("INSERT INTO entries (name, message, written_at) VALUES (?, ?, ?)", row)

    return commit
