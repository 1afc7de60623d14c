"""Segments of streams in a directory: a folder for each hour, no side files, and listings that read little."""

import os
import random
from pathlib import Path

import pytest

from sidecar.model import IfAbsent, Timestamp
from sidecar.repository.keys import StreamName, segment_key_of, stream_folder_of
from sidecar.storage import Expired
from sidecar.storage.file.layout import path_of
from sidecar.storage.file.root import PRIVATE
from sidecar.storage.file.store import FileStore

pytestmark = pytest.mark.anyio

FIRST = 1_795_186_503_123  # 2026-11-20T14:55:03.123Z
HOUR = 3_600_000
TAGS = {"sidecar-tier": "stream"}


def stream(number: int = 0) -> str:
    return str(StreamName(Timestamp(f"2026112{number}T145503.123Z"), number + 1, "web 1"))


def key(last: int, ms: int, number: int = 0, first: int | None = None) -> str:
    return segment_key_of("my notes.db", stream(number), last if first is None else first, last, ms)


def place(root: Path, key: str) -> None:
    """An object as `put` makes it, without waiting for the disk."""
    path = root / path_of(key)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")


async def listed(store: FileStore, prefix: str, after: str = "", limit: int = 1000) -> list[str]:
    """All pages."""
    found: list[str] = []
    while True:
        page = await store.list(prefix, start_after=after, limit=limit)
        found += [info.key for info in page.objects]
        if not page.more:
            return found
        after = found[-1]


async def test_a_segment_is_one_file_in_the_folder_of_its_hour(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    written = await store.put(key(7, FIRST), b"data", condition=IfAbsent(), metadata={"a": "b"}, tags=TAGS)
    path = tmp_path / stream_folder_of("my notes.db", stream()) / "20261120T14" / Path(key(7, FIRST)).name
    assert path.read_bytes() == b"data"
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file()]
    assert {str(path.parent) for path in files if PRIVATE in path.parts} == {PRIVATE}, "no metadata and no tags"
    blob = await store.get(key(7, FIRST))
    assert (bytes(blob.data), blob.info.etag, await store.tags(key(7, FIRST))) == (b"data", written.etag, {})
    assert await listed(store, "stream/") == [key(7, FIRST)]


async def test_a_segment_that_was_copied_from_another_store_is_found(tmp_path: Path) -> None:
    """A store that was copied from S3 file by file has no folders of hours."""
    store = FileStore(tmp_path)
    await store.put(key(1, FIRST), b"data")
    flat = tmp_path / key(2, FIRST + HOUR)
    flat.write_bytes(b"copied")
    assert bytes((await store.get(key(2, FIRST + HOUR))).data) == b"copied"
    assert await listed(store, stream_folder_of("my notes.db")) == [key(1, FIRST), key(2, FIRST + HOUR)]
    assert await store.prune([await expired(store, key(2, FIRST + HOUR))]) == (key(2, FIRST + HOUR),)
    assert not flat.exists()


@pytest.mark.parametrize("limit", [1, 1000])
async def test_segments_are_listed_in_the_order_of_their_keys(tmp_path: Path, limit: int) -> None:
    """Also where the parts of a giant transaction begin in the hour before, and where an hour is empty."""
    store = FileStore(tmp_path)
    at = FIRST - FIRST % HOUR
    keys = [key(number, at + number * HOUR // 4) for number in range(1, 40)]
    keys += [key(40, at + 10 * HOUR, first=40), *(key(41, at + 10 * HOUR - 3 + part, first=41) for part in range(4))]
    keys += [key(42, at + 13 * HOUR), key(3, at + 20 * HOUR, 1), key(9, at + 50 * HOUR, 1)]
    others = ["app.db/a", "stream/app.db/x", "stream/my notes.db/y", "streams/b", "z"]
    for each in random.Random(1).sample([*keys, *others], len(keys) + len(others)):
        place(tmp_path, each)
    (tmp_path / stream_folder_of("my notes.db", stream()) / "20261121T02").mkdir()
    assert keys == sorted(keys)
    everything = sorted([*keys, *others])
    assert await listed(store, "", limit=limit) == everything
    for after in ["", *keys[::3], stream_folder_of("my notes.db", stream()) + "0000000000000020", "stream0", "stream/"]:
        for prefix in (
            "",
            "stream/",
            stream_folder_of("my notes.db"),
            stream_folder_of("my notes.db", stream()),
            "s",
            "z",
        ):
            expected = [each for each in everything if each > after and each.startswith(prefix)]
            assert await listed(store, prefix, after, limit) == expected


async def test_a_listing_opens_few_folders_of_a_long_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FileStore(tmp_path)
    for number in range(1, 301):
        place(tmp_path, key(number, FIRST + number * HOUR))
    opened: list[str] = []
    scandir, listdir = os.scandir, os.listdir

    def scanned(path: Path) -> "os._ScandirIterator[str]":
        opened.append(str(path))
        return scandir(path)

    def named(path: Path) -> list[str]:
        opened.append(str(path))
        return listdir(path)

    monkeypatch.setattr(os, "scandir", scanned)
    monkeypatch.setattr(os, "listdir", named)
    for after, expected in [("", 1), (key(150, 0), 150), (key(299, FIRST + 299 * HOUR), 300)]:
        opened.clear()
        page = await store.list(stream_folder_of("my notes.db", stream()), start_after=after, limit=1)
        assert page.objects[0].key == key(expected, FIRST + expected * HOUR)
        assert len(opened) < 16
    opened.clear()
    assert (await store.list("", start_after="stream0")).objects == ()
    assert len(opened) == 1, "what is before is not opened"


async def expired(store: FileStore, key: str) -> Expired:
    return Expired(key, (await store.head(key)).etag)


async def test_pruned_segments_leave_no_folder_behind(tmp_path: Path) -> None:
    store = FileStore(tmp_path)
    for each in (key(1, FIRST), key(2, FIRST), "app.db/20261120T145503.123Z.sqlite3.zst"):
        await store.put(each, b"x")
    pruned = await store.prune([await expired(store, key(1, FIRST)), Expired(key(5, FIRST), "gone")])
    assert pruned == (key(1, FIRST),)
    assert await listed(store, "stream/") == [key(2, FIRST)]
    assert len((await store.list("app.db/")).objects) == 1
    await store.prune([await expired(store, key(2, FIRST))])
    assert list((tmp_path / stream_folder_of("my notes.db", stream())).iterdir()) == [], "no empty folder of an hour"
