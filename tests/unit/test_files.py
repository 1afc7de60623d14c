"""Local files: nothing is overwritten, and no WAL meets a database that it does not belong to."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from sidecar.errors import ConfigurationError, DatabaseBusy, NoRoom
from sidecar.host import files, local_errors
from sidecar.host import mounts as mounted
from sidecar.host.files import COMPANIONS
from sidecar.model import Timestamp
from sidecar.policies import Durability

AT = Timestamp("20261120T145503.123Z")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def write(target: Path, *suffixes: str) -> None:
    for suffix in suffixes:
        Path(f"{target}{suffix}").write_text(f"old{suffix}")


def test_a_database_that_gives_way_is_named_by_reason_and_time(target: Path) -> None:
    assert files.aside(target, "diverged", AT).name == "app.db.diverged-20261120T145503.123Z"


@pytest.mark.parametrize("suffix", ["", *COMPANIONS])
def test_what_was_kept_aside_is_never_overwritten(target: Path, suffix: str) -> None:
    """Stores tell time by the second: two conflicts may well carry the same timestamp."""
    write(files.aside(target, "diverged", AT), suffix)
    assert files.aside(target, "diverged", AT).name == "app.db.diverged-20261120T145503.124Z"


def test_a_database_moves_with_everything_that_belongs_to_it(target: Path) -> None:
    """SQLite opens it under its new name, the WAL included; the -shm is made anew."""
    write(target, "", *COMPANIONS)
    files.move_aside(target, target.with_name("kept"))
    assert content(target.parent) == {f"kept{suffix}": f"old{suffix}" for suffix in ("", "-wal", "-journal")}


def test_a_database_without_companions_moves_too(target: Path) -> None:
    write(target, "")
    files.move_aside(target, target.with_name("kept"))
    assert content(target.parent) == {"kept": "old"}


@pytest.mark.parametrize("crash_at", [1, 2, 3], ids=["database", "wal", "journal"])
def test_after_a_crash_while_moving_no_wal_lies_beside_a_database_it_is_not_of(
    target: Path, crash_at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The database goes first; what stays behind is kept as an orphan at the next boot, never replayed."""
    write(target, "", *COMPANIONS)
    replace, calls = os.replace, 0

    def crashing(source: str | Path, to: str | Path) -> None:
        nonlocal calls
        calls += 1
        if calls == crash_at:
            raise KeyboardInterrupt
        replace(source, to)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", crashing)
        with pytest.raises(KeyboardInterrupt):
            files.move_aside(target, target.with_name("kept"))
    if not target.exists():
        files.keep_orphans(target, AT)
        target.with_name("restored").write_text("new")
        files.put_in_place(target.with_name("restored"), target, durable=False)
        assert not any(Path(f"{target}{suffix}").exists() for suffix in COMPANIONS)
    assert "old-wal" in content(target.parent).values()
    assert "old" in content(target.parent).values()


def test_a_wal_and_a_journal_without_their_database_are_kept(target: Path) -> None:
    write(target, "-wal", "-journal")
    kept = files.keep_orphans(target, AT)
    assert [path.name for path in kept] == [
        "app.db.orphaned-20261120T145503.123Z-wal",
        "app.db.orphaned-20261120T145503.123Z-journal",
    ]
    assert [path.read_text() for path in kept] == ["old-wal", "old-journal"]
    assert not Path(f"{target}-wal").exists()


def test_orphans_do_not_overwrite_earlier_ones(target: Path) -> None:
    write(target, "-wal")
    files.keep_orphans(target, AT)
    Path(f"{target}-wal").write_text("newer")
    files.keep_orphans(target, AT)
    assert sorted(content(target.parent).values()) == ["newer", "old-wal"]


def test_an_empty_wal_and_a_shm_are_nothing_to_keep(target: Path) -> None:
    Path(f"{target}-wal").touch()
    write(target, "-shm")
    assert files.keep_orphans(target, AT) == []


@pytest.mark.parametrize("durable", [True, False])
def test_a_restored_database_meets_no_foreign_wal(target: Path, durable: bool) -> None:
    write(target, *COMPANIONS)
    restored = files.temporary(target)
    restored.write_text("new")
    files.put_in_place(restored, target, durable=durable)
    assert content(target.parent) == {"app.db": "new"}


def test_a_database_that_appeared_meanwhile_is_not_replaced(target: Path) -> None:
    """Somebody created it between the decision and the rename: an app that writes to an unlinked file loses it all."""
    write(target, "")
    files.temporary(target).write_text("new")
    with pytest.raises(DatabaseBusy, match="was created while it was restored"):
        files.put_in_place(files.temporary(target), target, durable=False)
    assert content(target.parent)["app.db"] != "new"


def test_an_empty_file_is_replaced_and_its_mode_is_kept(target: Path) -> None:
    target.touch()
    target.chmod(0o600)
    files.temporary(target).write_text("new")
    files.swap(files.Swap(files.temporary(target), target, None, AT, durable=False))
    assert target.read_text() == "new"
    assert target.stat().st_mode & 0o777 == 0o600


def test_the_foreign_wal_is_gone_before_the_database_is_there(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash at the rename leaves no database, rather than one with a WAL that would be replayed into it."""
    write(target, *COMPANIONS)
    files.temporary(target).write_text("new")

    def crash(_source: Path, _to: Path) -> None:
        assert not any(Path(f"{target}{suffix}").exists() for suffix in COMPANIONS)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "link", crash)
    with pytest.raises(KeyboardInterrupt):
        files.put_in_place(files.temporary(target), target, durable=False)
    assert not target.exists()


def test_a_durable_restore_is_synced_before_and_after_the_rename(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.temporary(target).write_text("new")
    synced: list[tuple[str, bool]] = []
    monkeypatch.setattr(files, "sync", lambda path: synced.append((path.name, target.exists())))
    files.put_in_place(files.temporary(target), target, durable=True)
    assert synced == [(".app.db.sidecar-restore", False), (target.parent.name, True)]


def mounts(*lines: str) -> str:
    return "\n".join(f"36 35 98:0 / {line}" for line in lines) + "\n"


FLY = mounts("/ rw - ext4 /dev/vda rw", "/data rw,noatime - ext4 /dev/vdc rw", "/tmp rw - tmpfs tmpfs rw")
DOCKER = mounts("/ rw - overlay overlay rw", "/data rw master:1 - xfs /dev/sda1 rw", "/dev/shm rw - tmpfs shm rw")


@pytest.fixture
def mountinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Replaces what the kernel says of mounts; every other file is read as it is."""

    def replaced(text: bytes) -> None:
        fake = tmp_path / "mountinfo"
        fake.write_bytes(text)
        monkeypatch.setattr(mounted, "Path", lambda path: fake if path == "/proc/self/mountinfo" else Path(path))

    return replaced


@pytest.mark.parametrize(
    ("text", "path", "ephemeral_root", "durable"),
    [
        (FLY, "/data/db", True, True),
        (FLY, "/app", True, False),
        (FLY, "/database", True, False),
        (FLY, "/app", False, True),
        (FLY, "/tmp/x", False, False),
        (FLY, "/data", True, True),
        (DOCKER, "/app", False, False),
        (DOCKER, "/data/db", False, True),
        (DOCKER, "/dev/shm/db", False, False),
        (mounts("/ rw - overlay o rw", r"/my\040data rw - ext4 d rw"), "/my data/db", True, True),
        (mounts("/ rw - overlay o rw", "/größe rw - ext4 d rw"), "/größe/db", True, True),
        (mounts("/ rw - ext4 d rw", "/data rw - ext4 d rw", "/data rw - tmpfs t rw"), "/data/db", False, False),
        ("", "/data", True, True),
    ],
)
def test_files_are_synced_where_the_disk_outlives_the_machine(
    text: str, path: str, ephemeral_root: bool, durable: bool, mountinfo: Callable[[bytes], None]
) -> None:
    """An unknown file system counts as one that does: an fsync too many is only slow."""
    mountinfo(text.encode())
    assert files.is_durable(Path(path), Durability.AUTO, ephemeral_root=ephemeral_root) is durable


@pytest.mark.parametrize("name", ["My\u00a0Disk", "a\u3000b", "a\u2028b", "a\x85b", "a\x0bb", "a\rb"])
def test_a_mount_point_with_unusual_spaces_is_found(name: str, mountinfo: Callable[[bytes], None]) -> None:
    """The kernel escapes space, tab, newline and backslash alone."""
    mountinfo(f"36 35 98:0 / / rw - overlay o rw\n36 35 98:0 / /{name} rw - ext4 d rw\n".encode())
    assert mounted.mount_of(Path(f"/{name}/store")) == (f"/{name}", "ext4")
    assert mounted.mount_of(Path("/elsewhere")) == ("/", "overlay")


def test_a_mount_point_that_is_not_utf8_is_no_problem(mountinfo: Callable[[bytes], None]) -> None:
    mountinfo(mounts("/ rw - overlay o rw").encode() + b"36 35 98:0 / /\xff\x85x rw - ext4 d rw\n")
    assert files.is_durable(Path("/\udcff\udc85x/db"), Durability.AUTO, ephemeral_root=True)


@pytest.mark.parametrize(("mode", "durable"), [(Durability.ALWAYS, True), (Durability.NEVER, False)])
def test_the_setting_overrides_the_mount(mode: Durability, durable: bool, mountinfo: Callable[[bytes], None]) -> None:
    mountinfo(DOCKER.encode())
    assert files.is_durable(Path("/app"), mode, ephemeral_root=True) is durable
    assert files.is_durable(Path("/data"), mode, ephemeral_root=True) is durable


def test_room_is_required_before_a_restore_begins(target: Path) -> None:
    files.require_room(target, 1)
    with pytest.raises(NoRoom, match="no room to restore"):
        files.require_room(target, 1 << 60)


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOSPC, NoRoom), (errno.EDQUOT, NoRoom), (errno.EROFS, ConfigurationError)]
)
def test_errors_of_local_files_become_ours(target: Path, number: int, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"app\.db") as caught, local_errors(target):
        raise OSError(number, os.strerror(number))
    assert isinstance(caught.value.__cause__, OSError)
