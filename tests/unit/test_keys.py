"""The key layout: what is written can be read back, and foreign objects are never taken for restore points."""

from datetime import UTC, datetime

import pytest

from sidecar.model import ObjectInfo, Timestamp
from sidecar.repository.keys import (
    StreamName,
    diverged_key_of,
    folder_of,
    key_of,
    point_of,
    segment_key_of,
    segment_of,
    segments_after,
    stream_folder_of,
    stream_of,
)

AT = Timestamp("20261120T145503.123Z")
NAMES = [
    "app.db",
    "my notes.db",
    "größe.db",
    "数据",
    "100%.db",
    "a+b&c=d?.db",
    "a%2Fb",
    "-wal",
    "a-b",
    "~",
    ".hidden",
    "'\"`",
]


def info(key: str) -> ObjectInfo:
    return ObjectInfo(key, 42, '"etag"', datetime.now(UTC))


def test_keys_are_those_of_the_documentation() -> None:
    """Restore points are found without us, by this layout."""
    assert key_of("app.db", AT) == "app.db/20261120T145503.123Z.sqlite3.zst"
    assert diverged_key_of("app.db", AT, "148e2") == "diverged/app.db/20261120T145503.123Z-148e2.sqlite3.zst"
    assert (folder_of("app.db"), folder_of("app.db", diverged=True)) == ("app.db/", "diverged/app.db/")


def test_names_are_url_encoded_in_keys() -> None:
    assert key_of("größe 1/2.db", AT) == "gr%C3%B6%C3%9Fe%201%2F2.db/20261120T145503.123Z.sqlite3.zst"


@pytest.mark.parametrize("name", NAMES)
def test_a_key_of_ours_is_read_back(name: str) -> None:
    point = point_of(info(key_of(name, AT)))
    assert point
    assert (point.database, point.timestamp, point.diverged_holder, point.size) == (name, AT, None, 42)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("holder", ["148e2", "web-1.local", "größe", "a/b", "20261120T145503.123Z", "-"])
def test_a_diverged_key_is_read_back(name: str, holder: str) -> None:
    point = point_of(info(diverged_key_of(name, AT, holder)))
    assert point
    assert (point.database, point.timestamp, point.diverged_holder) == (name, AT, holder)


@pytest.mark.parametrize(
    "key",
    [
        "",
        "lease.json",
        "app.db",
        "app.db/",
        "app.db/README",
        "app.db/20261120T145503.123Z",
        "app.db/20261120T145503.123Z.sqlite3",
        "app.db/20261120T145503.123Z.sqlite3.zst.bak",
        "app.db/20261120T145503.123Z.SQLITE3.ZST",
        "app.db/20261120T145503.123Z-148e2.sqlite3.zst",
        "app.db/20261120T145503.123Z-.sqlite3.zst",
        "app.db/20261120T145503.sqlite3.zst",
        "app.db/20261320T145503.123Z.sqlite3.zst",
        "app.db/.sqlite3.zst",
        "app.db/deeper/20261120T145503.123Z.sqlite3.zst",
        "app.db//20261120T145503.123Z.sqlite3.zst",
        "/20261120T145503.123Z.sqlite3.zst",
        "20261120T145503.123Z.sqlite3.zst",
        "a%2edb/20261120T145503.123Z.sqlite3.zst",
        "a b/20261120T145503.123Z.sqlite3.zst",
        "größe/20261120T145503.123Z.sqlite3.zst",
        "%FF/20261120T145503.123Z.sqlite3.zst",
        "diverged/app.db/20261120T145503.123Z.sqlite3.zst",
        "diverged/app.db/20261120T145503.123Z-.sqlite3.zst",
        "diverged/app.db/deeper/20261120T145503.123Z-148e2.sqlite3.zst",
        "diverged/20261120T145503.123Z-148e2.sqlite3.zst",
        "diverged//20261120T145503.123Z-148e2.sqlite3.zst",
    ],
)
def test_a_foreign_key_is_no_restore_point(key: str) -> None:
    """Above all not one in a folder below a database's own: it sorts after every restore point and would be newest."""
    assert point_of(info(key)) is None


def test_keys_of_a_database_sort_as_time_does() -> None:
    times = [AT, AT.next(), Timestamp("20270101T000000.000Z"), Timestamp("99991231T235959.999Z")]
    keys = [key_of("app.db", each) for each in times]
    assert keys == sorted(keys)


HOLDERS = ["148e2", "web-1.local", "größe", "a/b", "20261120T145503.123Z", "-"]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("holder", HOLDERS)
def test_a_segment_s_key_is_read_back(name: str, holder: str) -> None:
    stream = StreamName(AT, 7, holder)
    key = segment_key_of(name, str(stream), 12, 345, 1_790_000_000_123)
    segment = segment_of(info(key))
    assert segment
    assert (segment.key, segment.first, segment.last, segment.time) == (key, 12, 345, 1_790_000_000_123)
    assert stream_of(key) == (name, str(stream))
    assert StreamName.of(str(stream)) == stream


def test_keys_of_segments_are_those_of_the_documentation() -> None:
    stream = "20261120T145503.123Z-0000000007-web%201"
    assert str(StreamName(AT, 7, "web 1")) == stream
    assert stream_folder_of("my notes.db") == "stream/my%20notes.db/"
    key = segment_key_of("my notes.db", stream, 12, 345, 1_790_000_000_123)
    assert key == f"stream/my%20notes.db/{stream}/0000000000000345-0000000000000012-1790000000123.zst"


STREAM = "stream/app.db/20261120T145503.123Z-0000000007-web"
LAST = "0000000000000345-0000000000000012-1790000000123.zst"


@pytest.mark.parametrize(
    "key",
    [
        "",
        "stream",
        f"{STREAM}/",
        f"{STREAM}/README",
        f"{STREAM}/deeper/{LAST}",
        f"{STREAM}/{LAST}.bak",
        f"{STREAM}/{LAST[:-4]}",
        f"{STREAM}/345-12-1790000000123.zst",
        f"{STREAM}/0000000000000012-0000000000000345-1790000000123.zst",
        f"{STREAM}/0000000000000345-0000000000000000-1790000000123.zst",
        f"stream/app.db/{LAST}",
        f"stream//20261120T145503.123Z-0000000007-web/{LAST}",
        f"stream/a b/20261120T145503.123Z-0000000007-web/{LAST}",
        f"stream/app.db/20261120T145503.123Z-7-web/{LAST}",
        f"stream/app.db/20261120T145503.123Z-0000000007-/{LAST}",
        f"stream/app.db/20261120T145503.123Z-0000000007-a b/{LAST}",
        f"stream/app.db/20261320T145503.123Z-0000000007-web/{LAST}",
        f"streams/app.db/20261120T145503.123Z-0000000007-web/{LAST}",
        f"{STREAM[7:]}/{LAST}",
    ],
)
def test_a_foreign_key_is_no_segment(key: str) -> None:
    assert segment_of(info(key)) is None
    assert point_of(info(key)) is None


def test_a_segment_is_no_restore_point() -> None:
    assert segment_of(info(f"{STREAM}/{LAST}"))
    assert point_of(info(f"{STREAM}/{LAST}")) is None


def test_a_listing_after_a_commit_has_exactly_the_segments_with_later_ones() -> None:
    stream = "20261120T145503.123Z-0000000007-web"
    keys = [segment_key_of("app.db", stream, last - 2, last, 1_790_000_000_000 + last) for last in range(3, 40, 3)]
    assert keys == sorted(keys)
    for commit in range(40):
        expected = [key for key, last in zip(keys, range(3, 40, 3), strict=True) if last > commit]
        assert [key for key in keys if key > segments_after("app.db", stream, commit)] == expected
