"""What a stream makes of a base: the way of a restore, in a dozen lines, to compare it with SQLite's own copy."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.database import default_driver
from sidecar.database.wal import Captured, Follower, Limits, StreamCut

DRIVER = default_driver()
REWRITTEN = ((18, 20), (24, 28), (40, 44), (92, 100))  # bytes of page 1 that SQLite's backup changes


def following(path: Path, **limits: object) -> Follower:
    """A follower that has just begun."""
    follower = Follower(path, DRIVER, Limits(**limits))  # type: ignore[arg-type]
    follower.open()
    follower.start()
    return follower


def copy_of(follower: Follower, target: Path) -> bytes:
    """SQLite's copy of what the follower has captured, while nothing else is committed."""
    target.unlink(missing_ok=True)
    target.touch()
    with closing(DRIVER.connect(follower.path, "ro")) as source, closing(DRIVER.connect(target, "rw")) as destination:
        source.execute("BEGIN")
        source.execute("PRAGMA schema_version").fetchall()
        assert follower.index().same_commit(follower.hold.mark.index)
        source.backup(destination)
    return target.read_bytes()


def applied(base: bytes, commits: Sequence[Captured], page_size: int = 4096) -> bytes:
    """The base with the commits on it, in order."""
    images: dict[int, bytes] = {}
    for commit in commits:
        images.update(commit.images)
    if not commits:
        return base
    size = commits[-1].pages * page_size
    content = bytearray(base.ljust(size, b"\0")[:size])
    for page, image in images.items():
        if page <= commits[-1].pages:
            content[(page - 1) * page_size : page * page_size] = image
    return bytes(content)


def comparable(content: bytes) -> bytes:
    """A database's bytes without those that differ in SQLite's copies."""
    page = bytearray(content)
    for first, end in REWRITTEN:
        page[first:end] = bytes(end - first)
    return bytes(page)


def settled(follower: Follower, reached: Callable[[], bool]) -> list[Captured]:
    """Look until something is reached; what was captured on the way."""
    commits, until = [], time.monotonic() + 20
    while not reached():
        assert time.monotonic() < until, f"not reached: {follower.counters}"
        commits += follower.poll()
        time.sleep(0.005)
    return commits


def cut_of(follower: Follower) -> StreamCut:
    """The cut that looking ends with."""
    until = time.monotonic() + 20
    with pytest.raises(StreamCut) as cut:
        while time.monotonic() < until:
            follower.look(thorough=True)
            time.sleep(0.005)
    return cut.value
