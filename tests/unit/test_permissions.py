"""Who gets a restored database, and with which mode: nobody gets more than was recorded."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sidecar.errors import DamagedRestorePoint
from sidecar.host.permissions import give_restored, make_directory, narrowed, obstacle, permissions_of
from sidecar.model import Account, Permissions
from sidecar.repository.format.index import Index, decode_index, encode_index

SOMEBODY = Account("61234", 61234, 61234, (61234,))
INDEX = Index("app.db", "20261120T145503.123Z", 512, 512, bytes(32))


@pytest.fixture
def restored(tmp_path: Path) -> Path:
    path = tmp_path / "restored"
    path.write_bytes(b"SQLite format 3\0")
    path.chmod(0o600)
    return path


def test_the_mode_for_a_foreign_group_gives_it_what_everybody_has() -> None:
    assert [narrowed(mode) for mode in (0o640, 0o660, 0o664, 0o644, 0o777, 0o604)] == [
        0o600,
        0o600,
        0o644,
        0o644,
        0o777,
        0o604,
    ]


@pytest.mark.parametrize("mode", [0o000, 0o640, 0o777])
def test_owner_and_mode_survive_the_index(mode: int) -> None:
    known = replace(INDEX, permissions=Permissions(1000, 2**32 - 2, mode))
    assert decode_index(encode_index(known), "key") == known


def test_a_restore_point_of_an_older_version_has_no_owner() -> None:
    assert b"uid" not in encode_index(INDEX)
    assert decode_index(encode_index(INDEX), "key").permissions is None


@pytest.mark.parametrize(
    "wrong", [{"uid": -1}, {"gid": 2**32 - 1}, {"mode": 0o100640}, {"mode": 0o10000}, {"uid": 1.5}, {"uid": True}]
)
def test_an_owner_that_makes_no_sense_is_not_damage(wrong: dict[str, int]) -> None:
    """The data is good: older data in its place would be a loss."""
    known = replace(INDEX, permissions=replace(Permissions(1, 1, 0o600), **wrong))
    assert decode_index(encode_index(known), "key").permissions is None


def test_what_the_checksum_covers_is_still_damage() -> None:
    payload = encode_index(replace(INDEX, permissions=Permissions(1000, 1000, 0o600)))
    with pytest.raises(DamagedRestorePoint):
        decode_index(payload.replace(b'"0600"', b'"0666"'), "key")


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that everybody may enter, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="permissions-") as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


def test_who_may_write_is_told_by_the_directory_and_those_above(root: Path) -> None:
    data = root / "closed" / "data"
    data.mkdir(parents=True)
    data.chmod(0o755)
    assert f"uid 61234 may not write in {data} (uid {os.geteuid()}" in str(obstacle(data, SOMEBODY))
    data.chmod(0o777)
    assert obstacle(data, SOMEBODY) is None
    data.parent.chmod(0o700)
    assert f"may not enter {data.parent} (" in str(obstacle(data, SOMEBODY))
    assert obstacle(root / "missing" / "deeper", SOMEBODY) is None
    data.parent.chmod(0o750)
    group = replace(SOMEBODY, groups=(61234, data.parent.stat().st_gid))
    assert obstacle(data, group) is None, "one of its groups may enter"


def test_the_recorded_mode_is_set_and_nothing_is_logged(restored: Path) -> None:
    mine = Permissions(os.geteuid(), os.getegid(), 0o640)
    with capture_logs() as logs:
        give_restored(restored.with_name("app.db"), mine, restored)
    assert permissions_of(restored) == mine
    assert logs == []


def test_an_empty_file_counts_only_where_nothing_was_recorded(restored: Path) -> None:
    empty = restored.with_name("app.db")
    empty.touch()
    empty.chmod(0o604)
    give_restored(empty, None, restored)
    assert restored.stat().st_mode & 0o777 == 0o604
    give_restored(empty, Permissions(os.geteuid(), os.getegid(), 0o600), restored)
    assert restored.stat().st_mode & 0o777 == 0o600


def test_a_directory_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    before = tmp_path.stat()
    make_directory(tmp_path, Permissions(61234, 61234, 0o600))
    assert tmp_path.stat() == before
