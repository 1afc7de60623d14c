"""Who chose WAL mode: the app, or sidecar. It outlives the process in the lineage marker, and the disk in restore points."""

import json
from pathlib import Path

import pytest

from sidecar.database import Lineage, WalOrigins
from sidecar.database.lineage import wal_by_recorded
from sidecar.model import WalBy

KEY = "app.db/20261120T145503.123Z.zst"


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    path.write_bytes(b"database")
    return path


def lineage(database: Path, store: str = "s3://bucket/shop") -> Lineage:
    return Lineage(database, store, durable=False)


def origins(database: Path) -> WalOrigins:
    """As a process that has just been started."""
    found = WalOrigins()
    found.keep_in([(database, lineage(database))])
    return found


def test_wal_mode_at_first_contact_is_the_choice_of_the_app_from_then_on(database: Path) -> None:
    assert origins(database).of(database) is None
    assert origins(database).found_wal(database) is WalBy.APP
    assert origins(database).of(database) is WalBy.APP


def test_a_database_that_was_switched_once_stays_switched(database: Path) -> None:
    first = origins(database)
    first.not_chosen(database)
    assert first.found_wal(database) is WalBy.SIDECAR
    assert origins(database).found_wal(database) is WalBy.SIDECAR


def test_an_app_that_sets_another_mode_has_not_chosen_wal_after_all(database: Path) -> None:
    first = origins(database)
    first.found_wal(database)
    first.not_chosen(database)
    assert origins(database).of(database) is WalBy.SIDECAR


@pytest.mark.parametrize("who", [*WalBy])
def test_restore_points_neither_set_nor_lose_it(who: WalBy, database: Path) -> None:
    lineage(database).chose_wal(who)
    lineage(database).pending(KEY)
    lineage(database).descends(KEY, "root")
    lineage(database).stream("stream")
    assert wal_by_recorded(database) is who
    marker = lineage(database).read()
    assert marker
    assert (marker.last, marker.streams) == (KEY, ("stream",))


def test_a_new_choice_leaves_the_rest_of_the_marker_alone(database: Path) -> None:
    lineage(database, "s3://other").descends(KEY, "root")
    lineage(database).chose_wal(WalBy.APP)
    elsewhere = lineage(database).elsewhere()
    assert elsewhere
    assert (elsewhere.last, elsewhere.wal_by) == (KEY, "app")


@pytest.mark.parametrize(("said", "known"), [(WalBy.APP, WalBy.APP), (None, WalBy.SIDECAR)])
def test_a_restored_database_has_it_from_its_restore_point(
    said: WalBy | None, known: WalBy, database: Path, tmp_path: Path
) -> None:
    """One of an older version does not say: that version may have switched it. What was there before does not matter."""
    lineage(database).chose_wal(WalBy.APP if said is None else WalBy.SIDECAR)
    staged = tmp_path / "staged"
    staged.write_bytes(b"restored")
    lineage(database).descends(KEY, "root", staged, wal_by=said)
    assert wal_by_recorded(database) is known


@pytest.mark.parametrize("value", [None, "nobody", 7])
def test_a_marker_that_does_not_say_may_be_of_a_version_that_switched(value: object, database: Path) -> None:
    lineage(database).descends(KEY, "root")
    path = lineage(database).path
    path.write_text(json.dumps({**json.loads(path.read_text()), "wal_by": value}))
    assert origins(database).found_wal(database) is (WalBy.SIDECAR if value != 7 else WalBy.APP)
