"""Databases that their apps are content with, whatever our SQLite says: published, restored, drilled and verified.

None is lost, and none is replaced by an older one; what SQLite's check complains about is told.
"""

from contextlib import closing
from pathlib import Path

import pytest

from sidecar.database.driver import default_driver
from sidecar.errors import DamagedDatabase
from sidecar.progress import no_progress
from sidecar.repository.drill_tag import DrillOutcome
from sidecar.restore.verification import Verification
from sidecar.storage.file.store import FileStore
from tests.harness.odd_databases import ODD, Odd, rewritten
from tests.integration.wiring import Machine

pytestmark = pytest.mark.anyio

# The journal mode, the counters of changes and of the schema, and the version that wrote last: a copy may differ in them.
_COUNTERS = (slice(18, 20), slice(24, 28), slice(40, 44), slice(92, 100))


def content(path: Path) -> bytes:
    found = bytearray(path.read_bytes())
    for part in _COUNTERS:
        found[part] = bytes(part.stop - part.start)
    return bytes(found)


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: odd.name)
async def test_every_kind_of_database_comes_back(odd: Odd, tmp_path: Path) -> None:
    """Byte for byte, from the newest restore point, by a boot that checks it; a drill and a verification call it good."""
    store = FileStore(tmp_path / "store")
    before = Machine(store, tmp_path / "before" / "app.db")
    before.database.path.parent.mkdir()
    odd.write(before.database.path)
    original = content(before.database.path)
    assert await before.backup.attempt() is None
    assert await before.drill().drill() is DrillOutcome.GOOD
    told = [each.message for each in before.status.problems if each.kind == "finding"]
    assert bool(told) == bool(odd.finding)
    assert odd.finding in " ".join(before.status.databases["app.db"].findings)

    after = Machine(store, tmp_path / "after" / "app.db")
    assert (await after.boot()).outcome == "restored"
    assert content(after.database.path) == original
    verification = Verification(
        after.catalog, lambda database, name, share, _: after.prover(database, name, share), no_progress, concurrency=1
    )
    report = await verification.verify((after.database,), every=True)
    assert report.good
    assert bool(report.results[0].findings) == bool(odd.finding)


def break_table(path: Path) -> None:
    """Overwrite a page of the table: the first of its leaves, which no other page checks."""
    with closing(default_driver().connect(path, "ro")) as connection:
        assert connection.execute("SELECT count(*) FROM keep").fetchone()[0] == 50
    size = int.from_bytes(path.read_bytes()[16:18], "big")
    with path.open("r+b") as file:
        file.seek(2 * size)
        file.write(b"\xff" * size)


async def test_table_that_the_app_cannot_read_either_comes_back_as_it_is(tmp_path: Path) -> None:
    """The app had it so. Its other tables have newer rows than any older restore point."""
    store = FileStore(tmp_path / "store")
    before = Machine(store, tmp_path / "before" / "app.db")
    before.database.path.parent.mkdir()
    Odd("", "CREATE TABLE other AS SELECT * FROM keep").write(before.database.path)
    assert await before.backup.attempt() is None
    break_table(before.database.path)
    before = Machine(store, before.database.path)  # whose first snapshot is checked
    assert await before.backup.attempt() is None
    assert "cannot be read" in before.status.problems[-1].message
    assert before.status.databases["app.db"].findings

    after = Machine(store, tmp_path / "after" / "app.db")
    booted = await after.boot()
    assert booted.outcome == "restored"
    assert booted.restored
    assert booted.restored.point.key == before.backup.cycle.newest_key
    assert "cannot be read" in after.status.problems[-1].message
    assert await after.drill().drill() is DrillOutcome.GOOD


async def test_table_that_nobody_knew_to_be_unreadable_is_damage(tmp_path: Path) -> None:
    """A restore point that was published without a check, as older versions did: the one before it is restored."""
    store = FileStore(tmp_path / "store")
    before = Machine(store, tmp_path / "before" / "app.db", checked=False)
    before.database.path.parent.mkdir()
    Odd("", "").write(before.database.path)
    assert await before.backup.attempt() is None
    good = before.backup.cycle.newest_key
    break_table(before.database.path)
    assert await before.backup.attempt() is None
    after = Machine(store, tmp_path / "after" / "app.db")
    booted = await after.boot()
    assert booted.outcome == "fell_back"
    assert booted.restored
    assert booted.restored.point.key == good


async def test_strict_boot_ends_with_a_finding_and_changes_nothing(tmp_path: Path) -> None:
    """No older restore point is tried, though an older one has no finding."""
    store = FileStore(tmp_path / "store")
    before = Machine(store, tmp_path / "before" / "app.db")
    before.database.path.parent.mkdir()
    Odd("", "CREATE TABLE t(a, b)").write(before.database.path)
    assert await before.backup.attempt() is None
    with closing(default_driver().connect(before.database.path, "rw")) as connection:
        connection.executescript("INSERT INTO t VALUES (1, NULL);" + rewritten("t", "CREATE TABLE t(a, b NOT NULL)"))
    assert await before.backup.attempt() is None
    after = Machine(store, tmp_path / "after" / "app.db")
    with pytest.raises(DamagedDatabase, match=r"NULL value in t\.b, and integrity_check=strict"):
        await after.boot(strict=True)
    assert list(after.database.path.parent.iterdir()) == []
    assert (await after.boot()).outcome == "restored"
