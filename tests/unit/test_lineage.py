"""The lineage marker: believed only when it speaks of this very file in this very store; never in the way of a backup."""

import json
import os
from pathlib import Path

import pytest

from sidecar.database.lineage import PENDING_KEPT, Lineage, Marker, StorePlace, posix_locks_seen
from sidecar.host.endpoints import OWN
from sidecar.host.files import temporary

STORE = "s3://bucket/prefix"
KEY = "app.db/20261120T145503.123Z.sqlite3.zst"
NEXT = "app.db/20261120T150003.123Z.sqlite3.zst"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    path.write_bytes(b"a database")
    return path


def lineage(database: Path, store: str = STORE, *, durable: bool = False) -> Lineage:
    return Lineage(database, store, durable=durable)


def test_without_a_marker_nothing_is_known(database: Path) -> None:
    assert lineage(database).read() is None


@pytest.mark.parametrize("durable", [True, False])
def test_a_marker_names_what_the_database_descends_from(database: Path, durable: bool) -> None:
    lineage(database, durable=durable).descends(KEY, "root")
    status = database.stat()
    assert lineage(database).read() == Marker(STORE, KEY, (), "root", status.st_dev, status.st_ino)


def test_a_publish_that_begins_adds_to_what_is_known(database: Path) -> None:
    """A crash between publish and marker must not look like a conflict: both keys are named."""
    lineage(database).descends(KEY, "root")
    lineage(database).pending(NEXT)
    marker = lineage(database).read()
    assert marker
    assert (marker.last, marker.pending, marker.root) == (KEY, (NEXT,), "root")
    assert marker.names(KEY)
    assert marker.names(NEXT)
    assert not marker.names("app.db/20261120T151003.123Z.sqlite3.zst")


def test_a_first_publish_is_pending_without_a_last_one(database: Path) -> None:
    lineage(database).pending(KEY)
    marker = lineage(database).read()
    assert marker
    assert (marker.last, marker.pending) == (None, (KEY,))


def test_a_publish_that_failed_stays_named_because_it_may_have_succeeded(database: Path) -> None:
    """Its reply may have been lost: forgotten, its restore point would make the next boot a conflict."""
    lineage(database).pending(KEY)
    lineage(database).pending(NEXT)
    marker = lineage(database).read()
    assert marker is not None
    assert marker.names(KEY)
    assert marker.names(NEXT)


def test_publishes_that_failed_stay_pending_for_they_may_have_succeeded(database: Path) -> None:
    """A reply that was lost for good: the point exists, and the next attempt must not make a conflict of it."""
    lineage(database).descends(KEY, "root")
    for key in (NEXT, "later"):
        lineage(database).pending(key)
    marker = lineage(database).read()
    assert marker
    assert all(marker.names(key) for key in (KEY, NEXT, "later"))


def test_a_store_that_is_down_for_long_does_not_make_the_marker_grow_without_end(database: Path) -> None:
    for number in range(PENDING_KEPT + 5):
        lineage(database).pending(str(number))
    marker = lineage(database).read()
    assert marker
    assert len(marker.pending) == PENDING_KEPT
    assert marker.names("0"), "the first one, whose reply may have been lost when the outage began, is kept"
    assert marker.names(str(PENDING_KEPT + 4))


def test_a_publish_that_ended_leaves_nothing_pending(database: Path) -> None:
    lineage(database).pending(KEY)
    lineage(database).descends(KEY, "root")
    marker = lineage(database).read()
    assert marker
    assert (marker.last, marker.pending) == (KEY, ())


def test_a_marker_of_another_store_is_not_believed(database: Path) -> None:
    lineage(database, "s3://elsewhere").descends(KEY, "root")
    assert lineage(database).read() is None


def test_a_pending_publish_does_not_take_over_the_word_of_another_store(database: Path) -> None:
    lineage(database, "s3://elsewhere").descends(KEY, "root")
    lineage(database).pending(NEXT)
    marker = lineage(database).read()
    assert marker
    assert (marker.last, marker.pending) == (None, (NEXT,))


def test_a_marker_of_a_replaced_file_is_not_believed(database: Path) -> None:
    """The app, or a person, put another database there: it descends from nothing we know."""
    lineage(database).descends(KEY, "root")
    other = database.with_name("other.db")
    other.write_bytes(b"a database")
    os.replace(other, database)
    assert lineage(database).read() is None


def test_a_marker_without_its_database_is_not_believed(database: Path) -> None:
    lineage(database).descends(KEY, "root")
    database.unlink()
    assert lineage(database).read() is None


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"\0\xff",
        b"{",
        b"null",
        b"[]",
        b"7",
        b'"text"',
        b"{}",
        b'{"store": "x"}',
        b'{"store": "x", "last": null, "more": 1}',
        b'{"store": "s3://b/p", "last": null, "pending": [], "restored_to": {"stream": "s", "commit": Infinity}}',
        b"[" * 100_000,
    ],
)
def test_garbage_is_no_marker(database: Path, garbage: bytes) -> None:
    lineage(database).path.write_bytes(garbage)
    assert lineage(database).read() is None


@pytest.mark.timeout(20)
def test_a_named_pipe_is_no_marker_and_nobody_waits_for_it(database: Path) -> None:
    os.mkfifo(lineage(database).path)
    assert lineage(database).read() is None
    lineage(database).require_readable()
    lineage(database).descends(KEY, "root")
    assert lineage(database).read()


def test_garbage_is_overwritten_by_the_next_publish(database: Path) -> None:
    lineage(database).path.write_bytes(b"{")
    lineage(database).pending(KEY)
    assert json.loads(lineage(database).path.read_text())["pending"] == [KEY]


def test_a_marker_that_cannot_be_written_does_not_stop_a_backup(database: Path) -> None:
    """A directory of its name stands for every reason: the write fails whoever runs this."""
    lineage(database).path.mkdir()
    lineage(database).pending(KEY)
    lineage(database).descends(KEY, "root")
    assert lineage(database).read() is None


def test_a_missing_directory_does_not_stop_a_backup(tmp_path: Path) -> None:
    lineage(tmp_path / "gone" / "app.db").descends(KEY, "root")


def test_nothing_else_is_left_beside_the_database(database: Path) -> None:
    lineage(database).descends(KEY, "root")
    assert {path.name for path in database.parent.iterdir()} == {"app.db", "app.db.sidecar.json"}


def test_a_link_under_the_markers_temporary_name_is_not_followed(database: Path, tmp_path: Path) -> None:
    """The directory may be the app's user's, and we may be root: a link would lead our rights to any file."""
    victim = tmp_path / "victim"
    victim.write_text("root's")
    database.with_name(f".{database.name}.sidecar.json.new").symlink_to(victim)
    lineage(database).pending("app.db/1")
    assert victim.read_text() == "root's"
    assert not lineage(database).path.is_symlink()
    assert lineage(database).read()


def test_a_marker_of_another_store_says_where_the_database_comes_from(database: Path) -> None:
    lineage(database, "s3://elsewhere").descends(KEY, "root")
    marker = lineage(database).elsewhere()
    assert marker
    assert (marker.store, marker.last) == ("s3://elsewhere", KEY)
    lineage(database).descends(NEXT, "root")
    assert lineage(database).elsewhere() is None


def test_of_a_replaced_file_nobody_knows_where_it_comes_from(database: Path) -> None:
    lineage(database, "s3://elsewhere").descends(KEY, "root")
    other = database.with_name("other.db")
    other.write_bytes(b"a database")
    os.replace(other, database)
    assert lineage(database).elsewhere() is None


@pytest.mark.parametrize("empty", [False, True], ids=["no-file", "zero-bytes"])
def test_a_marker_without_its_database_says_that_there_was_one(database: Path, empty: bool) -> None:
    assert lineage(database).left_behind() is None
    lineage(database).descends(KEY, "root")
    assert lineage(database).left_behind() is None
    database.unlink()
    if empty:
        database.touch()
    marker = lineage(database).left_behind()
    assert marker
    assert marker.last == KEY
    assert lineage(database, "s3://elsewhere").left_behind() is None


def file_backed(database: Path, store: str = STORE, identity: str | None = "abc") -> Lineage:
    return Lineage(database, store, durable=False, place=lambda: StorePlace(identity, "/proc", "proc"))


def test_where_the_store_was_is_written_down_and_stays(database: Path) -> None:
    """A publish that begins says nothing new about it."""
    file_backed(database).descends(KEY, "root")
    lineage(database).pending(NEXT)
    marker = lineage(database).read()
    assert marker
    assert (marker.identity, marker.mount) == ("abc", "/proc")


def test_a_marker_of_an_older_version_learns_where_the_store_is(database: Path) -> None:
    """Without a publish: an idle database would never have it."""
    lineage(database).descends(KEY, "root")
    values = json.loads(lineage(database).path.read_text())
    del values["identity"], values["mount"]
    lineage(database).path.write_text(json.dumps(values))
    marker = lineage(database).read()
    assert marker
    assert marker.identity is None
    file_backed(database).refresh()
    marker = lineage(database).read()
    assert marker
    assert (marker.last, marker.root, marker.identity, marker.mount) == (KEY, "root", "abc", "/proc")


def test_a_directory_that_moved_is_the_same_store(database: Path) -> None:
    file_backed(database).descends(KEY, "root")
    moved = file_backed(database, "file:///elsewhere")
    assert moved.elsewhere() is None
    marker = moved.read()
    assert marker
    assert marker.names(KEY)
    moved.refresh()
    assert lineage(database, "file:///elsewhere").read()
    assert file_backed(database, identity="another").elsewhere()


def test_a_directory_without_a_name_is_no_other_one_without_a_name(database: Path) -> None:
    lineage(database, "file:///one").descends(KEY, "root")
    assert file_backed(database, "file:///two", identity=None).read() is None


def test_what_a_killed_boot_left_is_no_deleted_database(database: Path) -> None:
    """The marker is written before the rename, of the file that is to get the name."""
    staged = temporary(database)
    database.rename(staged)
    lineage(database).descends(KEY, "root", staged)
    assert lineage(database).left_behind() is None
    staged.unlink()
    assert lineage(database).left_behind()


A, B = "https://a.example", "https://b.example"


def at(database: Path, endpoint: str) -> Lineage:
    return Lineage(database, STORE, durable=False, endpoint=endpoint)


def test_a_bucket_of_the_same_name_on_another_server_is_another_store(database: Path) -> None:
    at(database, A).descends(KEY, "root")
    assert at(database, A).read()
    assert at(database, B).read() is None
    came_from = at(database, B).elsewhere()
    assert came_from
    assert came_from.place == f"{STORE} at {A}"


SPELLED_OUT = "https://s3.eu-west-1.amazonaws.com"  # as an older version wrote it


@pytest.mark.parametrize(("written", "now"), [(SPELLED_OUT, OWN), (OWN, SPELLED_OUT), (SPELLED_OUT, SPELLED_OUT)])
def test_aws_is_one_store_with_and_without_an_endpoint(database: Path, written: str, now: str) -> None:
    """Setting or removing AWS_ENDPOINT_URL must not make a conflict of every database."""
    at(database, written).descends(KEY, "root")
    assert at(database, now).read()
    assert at(database, now).elsewhere() is None
    assert at(database, A).read() is None


def test_a_marker_without_an_endpoint_is_of_this_store_and_completed_at_the_next_write(database: Path) -> None:
    """An older version did not write it: its databases must not become conflicts."""
    lineage(database).descends(KEY, "root")
    assert at(database, B).elsewhere() is None
    at(database, B).refresh()
    marker = at(database, B).read()
    assert marker
    assert (marker.last, marker.endpoint) == (KEY, B)
    assert at(database, A).read() is None


def test_a_server_that_got_another_name_is_followed(database: Path) -> None:
    """It has the restore point that the marker names; another server with a bucket of the same name does not."""
    at(database, A).descends(KEY, "root")
    renamed = at(database, B)
    assert renamed.follow("app.db/20261120T151003.123Z.sqlite3.zst") is None
    assert renamed.follow(KEY)
    renamed.pending(NEXT)
    renamed.refresh()
    marker = at(database, B).read()
    assert marker
    assert (marker.last, marker.pending, marker.endpoint) == (KEY, (NEXT,), B)


def test_a_marker_of_another_store_is_never_followed(database: Path) -> None:
    Lineage(database, "s3://other/prefix", durable=False, endpoint=A).descends(KEY, "root")
    assert at(database, A).follow(KEY) is None


def test_that_a_program_uses_posix_locks_is_kept(database: Path) -> None:
    """From one restore point to the next, over a restore, and for whatever store; it is about this database alone."""
    one = lineage(database)
    one.descends(KEY, "root")
    assert not posix_locks_seen(database)
    one.pending("next", posix_locks=True)
    one.pending("other")
    assert posix_locks_seen(database)
    one.descends("other", "root")
    assert posix_locks_seen(database)
    Lineage(database, "s3://elsewhere/x", durable=False).descends("first", "root")
    assert posix_locks_seen(database)
    text = one.path.read_text()
    one.path.write_text(text.replace('"posix_locks": true', '"posix_locks": "yes"'))
    assert not posix_locks_seen(database)
    one.path.write_text(text)
    database.rename(database.with_name("gone"))
    assert posix_locks_seen(database)
    database.write_text("another")
    assert not posix_locks_seen(database)
