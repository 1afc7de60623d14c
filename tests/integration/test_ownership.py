"""Root's rights in a directory that the app's user may write in: nothing that this user plants there leads them astray."""

import os
import pwd
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sidecar.database import staging
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from sidecar.errors import ConfigurationError, SidecarError
from sidecar.host.files import Swap, swap, temporary
from sidecar.host.ownership import belongs, hand_over
from sidecar.host.permissions import give_restored, make_directory, permissions_of
from sidecar.model import Account, Permissions, Timestamp
from tests.harness.writers import check_ledger, create_ledger, fill, open_database

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away, and be led astray"),
]

NOBODY = pwd.getpwnam("nobody")
APP = Account("nobody", NOBODY.pw_uid, NOBODY.pw_gid, (NOBODY.pw_gid,), None)
STAMP = "20261120T145503.123Z"


@pytest.fixture
def data() -> Iterator[Path]:
    """The app's directory, beside what is root's alone. (pytest closes its own directories.)"""
    with tempfile.TemporaryDirectory(prefix="ownership-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        (root / "data").mkdir()
        os.chown(root / "data", APP.uid, APP.gid)
        yield root / "data"


@pytest.fixture
def secret(data: Path) -> Path:
    """What the app must never get."""
    path = data.parent / "shadow"
    path.write_text("root:secret")
    path.chmod(0o600)
    return path


@pytest.fixture
def database(data: Path) -> Path:
    """Root's, as after a restore."""
    fill(data / "app.db", 1)
    return data / "app.db"


def state(path: Path) -> tuple[int, int, str]:
    status = path.lstat()
    return status.st_uid, status.st_mode, path.read_text()


def is_back(database: Path) -> bool:
    return database.stat().st_size >= 1 << 20


def test_a_restored_database_and_its_log_are_given_away(data: Path) -> None:
    path = data / "app.db"
    with closing(open_database(path)) as connection:
        create_ledger(connection, 10)
        assert (data / "app.db-wal").stat().st_size
        hand_over([path], APP)
        assert {each.stat().st_uid for each in data.iterdir()} == {APP.uid}
    assert path.stat().st_mode & 0o600 == 0o600


@pytest.mark.parametrize("name", ["app.db", "app.db-wal", "app.db-shm", "app.db-journal"])
@pytest.mark.parametrize("plant", [os.link, os.symlink, os.rename], ids=["hard link", "symbolic link", "moved"])
def test_what_is_planted_under_a_name_of_the_database_is_not_given_away(
    data: Path, secret: Path, name: str, plant: Callable[[Path, Path], None]
) -> None:
    """A second name of another file, a way to it, and a file of root's that lay where the app may rename it."""
    if plant is not os.rename:
        secret.write_bytes(bytes(16) + b"begins like a file of SQLite's")
    before = state(secret)
    plant(secret, data / name)
    with pytest.raises(ConfigurationError, match=r"app\.db"):
        hand_over([data / "app.db"], APP)
    assert state(data / name if plant is os.rename else secret) == before


def test_a_pipe_is_not_waited_for(data: Path) -> None:
    os.mkfifo(data / "app.db-wal")
    with pytest.raises(ConfigurationError, match="not a regular file"):
        hand_over([data / "app.db"], APP)


def test_what_is_the_apps_already_is_left_alone_whatever_it_is(data: Path) -> None:
    """A second name for a backup, say."""
    fill(data / "app.db", 1)
    os.chown(data / "app.db", APP.uid, APP.gid)
    os.link(data / "app.db", data / "copy")
    hand_over([data / "app.db"], APP)
    assert data.joinpath("copy").stat().st_nlink == 2


def test_a_name_that_a_killed_restore_left_does_not_count(data: Path, database: Path) -> None:
    """Killed between link(2) and unlink(2), it leaves the database two names (`files._take_name`)."""
    os.link(database, temporary(database))
    hand_over([database], APP)
    assert (database.stat().st_uid, database.stat().st_nlink) == (APP.uid, 1)


def test_a_link_that_another_user_made_is_not_followed_to_a_database(data: Path, secret: Path) -> None:
    """Nor to the directory of one. Root's own links are."""
    (data.parent / "empty").mkdir()
    (data / "sub").symlink_to(data.parent / "empty")
    there = data.parent / "empty" / "app.db"
    hand_over([there], APP, [data / "sub" / "app.db"])
    os.chown(data.parent / "empty", 0, 0)
    os.lchown(data / "sub", APP.uid, APP.gid)
    with pytest.raises(ConfigurationError, match="symbolic link of uid"):
        hand_over([there], APP, [data / "sub" / "app.db"])
    assert (data.parent / "empty").stat().st_uid == 0


@pytest.mark.parametrize("relative", [False, True])
def test_nor_one_behind_a_link_of_roots(data: Path, *, relative: bool) -> None:
    """Root's /db leads into the app's directory, where the app has put a link to a directory that is none of its own."""
    other, front = data.parent / "other", data.parent / "db"
    other.mkdir()
    fill(other / "app.db", 1)
    (data / "current").symlink_to("../other" if relative else other)
    front.symlink_to("data/current" if relative else data / "current")
    configured = front / "app.db"
    os.lchown(data / "current", APP.uid, APP.gid)
    with pytest.raises(ConfigurationError, match="current is a symbolic link of uid"):
        hand_over([configured.resolve()], APP, [configured])
    assert (other.stat().st_uid, (other / "app.db").stat().st_uid) == (0, 0)
    os.lchown(data / "current", 0, 0)
    hand_over([configured.resolve()], APP, [configured])
    assert (other / "app.db").stat().st_uid == APP.uid


def test_a_link_that_takes_the_place_of_a_directory_is_an_error(data: Path) -> None:
    """After the configuration was read."""
    (data.parent / "empty").mkdir()
    (data / "sub").symlink_to(data.parent / "empty")
    with pytest.raises(ConfigurationError, match="cannot be given"):
        hand_over([data / "sub" / "app.db"], APP)
    assert (data.parent / "empty").stat().st_uid == 0


@pytest.mark.parametrize(
    "entry",
    [
        "app.db",
        "app.db-wal",
        "app.db.sidecar.json",
        ".app.db.sidecar.json.new",
        ".app.db.sidecar-restore",
        f"app.db.diverged-{STAMP}",
        f"app.db.diverged-{STAMP}.published",
        f"app.db.replaced-{STAMP}-wal",
        f"app.db.orphaned-{STAMP}-journal",
        "sidecar-0123456789abcdef-77.snapshot",
    ],
)
def test_what_belongs_to_a_database(entry: str) -> None:
    assert belongs(entry, "app.db")


@pytest.mark.parametrize(
    "entry",
    ["app.db.old", "app.db.key", "app.db-secret", ".app.db", "app.dbx", "app.db.old-wal", "my-app.db", "appxdb"],
)
def test_a_name_that_only_begins_like_a_databases_is_none_of_its_files(entry: str, data: Path) -> None:
    """A directory of root's with such a file stays root's."""
    assert not belongs(entry, "app.db")
    os.chown(data, 0, 0)
    (data / entry).touch()
    with pytest.raises(ConfigurationError, match="may not write"):
        hand_over([data / "app.db"], APP)
    assert data.stat().st_uid == 0


def test_a_second_database_is_no_foreign_file(data: Path) -> None:
    os.chown(data, 0, 0)
    fill(data / "app.db", 1)
    fill(data / "app.db.old", 1)
    hand_over([data / "app.db", data / "app.db.old"], APP)
    assert {each.stat().st_uid for each in (data, *data.iterdir())} == {APP.uid}


def test_owner_and_mode_of_the_old_database_go_to_no_other_file(data: Path, secret: Path, database: Path) -> None:
    """A link in the place of the file that a restore has put together."""
    os.chown(database, APP.uid, APP.gid)
    before = state(secret)
    for plant in (os.link, os.symlink):
        plant(secret, temporary(database))
        with pytest.raises(OSError, match=r"hard link|symbolic links"):
            swap(Swap(temporary(database), database, data / "kept", Timestamp(STAMP), durable=False))
        assert (state(secret), is_back(database)) == (before, True)
        temporary(database).unlink()


RECORDED = Permissions(APP.uid, APP.gid, 0o640)


@pytest.mark.parametrize("plant", [os.link, os.symlink, os.rename], ids=["hard link", "symbolic link", "moved"])
def test_the_recorded_owner_gets_no_other_file(
    data: Path, secret: Path, database: Path, plant: Callable[[Path, Path], None]
) -> None:
    """In the place of the file that a restore has put together."""
    before = state(secret)
    plant(secret, temporary(database))
    with pytest.raises(OSError, match=r"hard link|symbolic links|not a file of SQLite"):
        give_restored(database, RECORDED, temporary(database))
    assert state(temporary(database) if plant is os.rename else secret) == before


def test_a_link_in_the_path_leads_the_recorded_owner_nowhere(data: Path, database: Path) -> None:
    (data.parent / "other").symlink_to(data)
    with pytest.raises(OSError, match=r"Not a directory|symbolic links"):
        give_restored(data / "none.db", RECORDED, data.parent / "other" / "app.db")
    assert database.stat().st_uid == 0


def test_a_restored_database_and_its_directory_get_the_recorded_owner(data: Path) -> None:
    """Two levels are made, with a umask that lets nobody else in."""
    os.chown(data, 0, 0)
    directory = data / "a" / "b"
    before = os.umask(0o077)
    try:
        make_directory(directory, RECORDED)
    finally:
        os.umask(before)
    fill(directory / "restored", 1)
    give_restored(directory / "app.db", RECORDED, directory / "restored")
    assert permissions_of(directory / "restored") == RECORDED
    assert {each.stat().st_uid for each in (directory, directory.parent)} == {APP.uid}
    assert data.stat().st_uid == 0


def test_a_missing_directory_gets_the_owner_of_the_one_above_it_where_nobody_is_recorded(data: Path) -> None:
    make_directory(data / "a")
    assert (data / "a").stat().st_uid == APP.uid


def test_where_the_recorded_owner_may_not_write_the_directorys_gets_it(data: Path, database: Path) -> None:
    """The group's bits stay: the directory's group is the one that is meant here."""
    os.chown(data, 61234, 61235)
    with capture_logs() as logs:
        give_restored(database, RECORDED, database)
    assert permissions_of(database) == Permissions(61234, 61235, 0o640)
    assert [each["reason"] for each in logs] == [
        f"uid {APP.uid} may not write in {data} (uid 61234, gid 61235, mode 0755)"
    ]


def test_the_users_own_groups_count(data: Path, database: Path) -> None:
    """And the recorded group, as in a directory whose files get its group (setgid)."""
    os.chown(data, 0, 61235)
    data.chmod(0o2775)
    give_restored(database, Permissions(61234, 61235, 0o660), database)
    assert permissions_of(database) == Permissions(61234, 61235, 0o660)


def test_an_owner_that_cannot_be_set_is_told_and_the_group_gets_nothing(
    database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without CAP_CHOWN, or on a file system without owners."""

    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "fchown", refuse)
    with capture_logs() as logs:
        give_restored(database, RECORDED, database)
    assert permissions_of(database) == Permissions(0, 0, 0o600)
    assert [(each["event"], each["owner"]) for each in logs] == [("restored database has another owner", "0:0")]
    assert "CAP_CHOWN" in logs[0]["hint"]


@pytest.mark.parametrize("when", ["created", "copied"])
async def test_a_snapshot_is_never_made_of_or_in_another_file(
    data: Path, secret: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """
    The app's user puts a link under the staged file's name: before SQLite opens it for the copy, it is refused; when all
    is copied, what is read is still the copy.
    """
    with closing(open_database(data / "app.db")) as connection:
        create_ledger(connection, 10)
    before, created = state(secret), staging.created

    @contextmanager
    def planted(target: Path) -> Iterator[int]:
        with created(target) as file:
            target.unlink()
            target.symlink_to(secret)
            yield file

    snapshotter = SqliteSnapshotter(Staging(data))
    if when == "created":
        monkeypatch.setattr("sidecar.database.partial.created", planted)
        with pytest.raises(SidecarError, match="replaced by another process"):
            async with snapshotter.snapshot(data / "app.db"):
                pass
    else:
        async with snapshotter.snapshot(data / "app.db") as snapshot:
            snapshot.path.unlink()
            snapshot.path.symlink_to(secret)
            content = snapshot.content.read_bytes()
        (data.parent / "copy").write_bytes(content)
        check_ledger(data.parent / "copy")
    assert state(secret) == before
    assert not list(data.glob("*.snapshot"))
