"""The key layout: what is written can be read back, and foreign objects are never taken for restore points."""

from datetime import UTC, datetime

import pytest

from sidecar.model import ObjectInfo, Timestamp
from sidecar.repository.keys import diverged_key_of, folder_of, key_of, point_of

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
