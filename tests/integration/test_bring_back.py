"""Rows are brought back into a live database: what is done, what is left alone, what is refused. An app has it open."""

from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

import sidecar
from sidecar.compare.fitness import Preview
from sidecar.compare.saved import save
from sidecar.errors import DatabaseBusy, NothingToRestore, RowsChanged, UsageError
from tests.harness.bringing_back import connect, make, rows, session_of

pytestmark = pytest.mark.anyio
ORDERS = "SELECT id, customer, state, total FROM orders ORDER BY id"


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "t").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "t"))
    make(tmp_path / "app.db")
    return tmp_path / "app.db"


@pytest.fixture
def app(database: Path) -> Iterator[Any]:
    with closing(connect(database)) as app:
        app.execute("PRAGMA foreign_keys = ON")
        yield app


@pytest.fixture
async def session(database: Path, app: Any) -> AsyncIterator[sidecar.Sidecar]:
    async with session_of(database) as session:
        await session.backup()
        yield session


@pytest.fixture
async def point(session: sidecar.Sidecar) -> str:
    """The restore point from before the accident: each attempt publishes another one."""
    return (await session.list()).databases[0].restore_points[-1].point.key


def leftovers(database: Path) -> list[str]:
    """Files beside the database that are no part of it, and whatever is in the temporary directory."""
    own = {"app.db", "app.db-wal", "app.db-shm", "app.db.sidecar.json", "store", "t"}
    scratch = [each.name for each in (database.parent / "t").iterdir() if not each.name.endswith(".lock")]
    return sorted({each.name for each in database.parent.iterdir()} - own) + scratch


async def test_rows_that_are_gone_come_back_and_nothing_is_overwritten(
    session: sidecar.Sidecar, database: Path, app: Any, point: str
) -> None:
    before = rows(database, ORDERS)
    app.execute("DELETE FROM orders WHERE id <= 5")
    app.execute("UPDATE orders SET state = 'wrong' WHERE id = 7")
    app.execute("INSERT INTO orders VALUES (30, 1, 'new', 1)")
    app.execute("DELETE FROM log")
    done = await session.tables("orders", state=point).bring_back()
    (plan,) = done.preview.tables
    assert (plan.added, plan.removed, plan.changed, plan.left_changed, plan.left_newer) == (5, 0, 0, 1, 1)
    found = rows(database, ORDERS)
    assert found[:5] == before[:5]
    assert [each[2] for each in found if each[0] in (7, 30)] == ["wrong", "new"]
    assert done.restore_point
    assert leftovers(database) == [done.saved.name if done.saved else ""]
    assert (done.saved.stat().st_mode & 0o777) == 0o600 if done.saved else False


async def test_changed_rows_are_changed_back_and_newer_ones_stay(
    session: sidecar.Sidecar, database: Path, app: Any, point: str
) -> None:
    before = rows(database, ORDERS)
    app.execute("DELETE FROM orders WHERE id = 5")
    app.execute("UPDATE orders SET state = 'wrong' WHERE id = 7")
    app.execute("INSERT INTO orders VALUES (30, 1, 'new', 1)")
    await session.tables("orders", state=point).bring_back(rows="changed")
    assert rows(database, ORDERS) == [*before, (30, 1, "new", 1)]


async def test_exact_makes_the_table_what_it_was_and_can_be_undone(
    session: sidecar.Sidecar, database: Path, app: Any, point: str
) -> None:
    """Nothing fires: no trigger, no ON DELETE CASCADE. The triggers are there afterwards, in their order."""
    before, schema = rows(database, ORDERS), "SELECT type, name, sql FROM sqlite_schema ORDER BY rowid"
    defined = rows(database, schema)
    app.execute("DELETE FROM orders WHERE id <= 5")
    app.execute("UPDATE orders SET state = 'wrong', total = 0.0 WHERE id BETWEEN 7 AND 9")
    app.execute("INSERT INTO orders VALUES (30, 1, 'new', -0.0)")
    app.execute("DELETE FROM log")
    wrong = rows(database, ORDERS)
    done = await session.tables("orders", state=point).bring_back(rows="exact")
    assert rows(database, ORDERS) == before
    assert rows(database, "SELECT * FROM log") == []
    assert done.preview.triggers == ("second", "first")
    assert rows(database, schema) == defined
    app.execute("UPDATE orders SET state = 'x' WHERE id = 1")
    app.execute("UPDATE orders SET state = 'open' WHERE id = 1")
    assert rows(database, "SELECT text FROM log")[:2] == [("first",), ("second",)]
    assert done.saved is not None
    overwritten = "SELECT id, state FROM before_orders ORDER BY id"
    assert rows(done.saved, overwritten) == [(7, "wrong"), (8, "wrong"), (9, "wrong"), (30, "new")]
    await session.tables().undo()
    assert rows(database, ORDERS) == wrong
    with pytest.raises(NothingToRestore, match="nothing that was brought back"):
        await session.tables().undo()


async def test_the_higher_sequence_stays(session: sidecar.Sidecar, database: Path, app: Any, point: str) -> None:
    app.execute("INSERT INTO orders VALUES (90, 1, 'new', 1)")
    await session.tables("orders", state=point).bring_back(rows="exact")
    assert rows(database, "SELECT seq FROM sqlite_sequence") == [(90,)]
    app.execute("DELETE FROM orders")
    app.execute("UPDATE sqlite_sequence SET seq = 0")
    await session.tables("orders", state=point).bring_back()
    assert rows(database, "SELECT seq FROM sqlite_sequence") == [(20,)]


async def test_undo_names_rows_that_were_changed_since(
    session: sidecar.Sidecar, database: Path, app: Any, point: str
) -> None:
    app.execute("DELETE FROM orders WHERE id <= 5")
    await session.tables("orders", state=point).bring_back()
    app.execute("UPDATE orders SET total = 7 WHERE id = 3")
    found = rows(database, ORDERS)
    with pytest.raises(RowsChanged, match="nothing was undone: orders 3 ") as raised:
        await session.tables().undo()
    assert raised.value.exit_code == 75
    assert rows(database, ORDERS) == found


async def test_a_row_that_the_app_changes_meanwhile_ends_it(
    session: sidecar.Sidecar, database: Path, app: Any, point: str
) -> None:
    """1 becomes 1.0: SQL takes them for equal."""
    app.execute("UPDATE orders SET total = 1 WHERE id = 3")
    app.execute("UPDATE orders SET total = 0.0 WHERE id = 4")
    for change in ("total = 1.0 WHERE id = 3", "total = -0.0 WHERE id = 4", "state = 'OPEN' WHERE id = 3"):
        app.execute("BEGIN")
        found = rows(database, ORDERS)

        async def faster(_preview: Preview, change: str = change) -> None:
            app.execute(f"UPDATE orders SET {change}")
            app.execute("COMMIT")

        with pytest.raises(RowsChanged, match=f"orders {change[-1]}"):
            await session.tables("orders", state=point).bring_back(rows="exact", confirm=faster)
        assert len(rows(database, ORDERS)) == len(found)
        app.execute("UPDATE orders SET total = 1, state = 'open' WHERE id = 3")
        app.execute("UPDATE orders SET total = 0.0 WHERE id = 4")
        assert leftovers(database) == []


async def test_a_schema_that_is_changed_meanwhile_ends_it(
    session: sidecar.Sidecar, database: Path, app: Any, point: str
) -> None:
    app.execute("DELETE FROM orders WHERE id = 3")

    async def faster(_preview: Preview) -> None:
        app.execute("ALTER TABLE orders ADD COLUMN note DEFAULT 'x'")

    with pytest.raises(RowsChanged, match="schema of the tables was changed"):
        await session.tables("orders", state=point).bring_back(confirm=faster)
    with pytest.raises(UsageError, match="columns of orders changed since"):
        await session.tables("orders", state=point).bring_back()
    assert rows(database, "SELECT count(*) FROM orders") == [(19,)]


async def test_a_table_that_was_renamed_is_refused_and_named(
    session: sidecar.Sidecar, app: Any, database: Path, point: str
) -> None:
    """Its triggers went on with it, so that it cannot be created again."""
    app.execute("ALTER TABLE orders RENAME TO purchases")
    with pytest.raises(UsageError, match="orders cannot be created again: the trigger"):
        await session.tables("orders", state=point).bring_back()
    app.execute("ALTER TABLE purchases RENAME TO orders")
    again = (await session.backup()).databases[0].restore_point or ""
    app.execute("ALTER TABLE orders RENAME TO purchases")
    with pytest.raises(UsageError, match="orders was renamed to purchases since"):
        await session.tables("orders", state=again).bring_back()
    assert leftovers(database) == []


async def test_a_database_that_is_replaced_meanwhile_ends_it(
    session: sidecar.Sidecar, database: Path, app: Any, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the restore point: before it, publishing refuses the other database."""
    app.execute("DELETE FROM orders WHERE id = 3")

    def replacing(*arguments: Any, **named: Any) -> Any:
        with closing(connect(database)) as other:
            other.execute("VACUUM INTO ?", (f"{database}.new",))
        for each in (database, database.with_name("app.db-wal"), database.with_name("app.db-shm")):
            each.unlink()
        database.with_name("app.db.new").rename(database)
        return save(*arguments, **named)

    monkeypatch.setattr("sidecar.states.bring_back.save", replacing)
    with pytest.raises(DatabaseBusy, match="was replaced meanwhile"):
        await session.tables("orders", state=point).bring_back()
    assert rows(database, "SELECT count(*) FROM orders") == [(19,)]


async def test_another_process_that_keeps_the_lock_ends_it(
    session: sidecar.Sidecar, database: Path, app: Any, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sidecar.compare.transaction.BUSY_SECONDS", 0.1)
    app.execute("DELETE FROM orders WHERE id = 3")

    async def locked(_preview: Preview) -> None:
        app.execute("BEGIN IMMEDIATE")

    with pytest.raises(DatabaseBusy, match="is locked by another process"):
        await session.tables("orders", state=point).bring_back(confirm=locked)
    app.execute("COMMIT")
    assert rows(database, "SELECT count(*) FROM orders") == [(19,)]
    assert leftovers(database) == []


async def test_rows_whose_parents_are_gone_are_refused_unless_allowed(
    session: sidecar.Sidecar, database: Path, app: Any, point: str
) -> None:
    app.execute("DELETE FROM customers WHERE id = 2")  # and its orders
    with pytest.raises(UsageError, match="orders 1 refers to a row of customers that is not there"):
        await session.tables("orders", state=point).bring_back()
    assert rows(database, "SELECT count(*) FROM orders") == [(13,)]
    await session.tables("orders", "customers", state=point).bring_back()
    assert rows(database, "SELECT count(*) FROM orders") == [(20,)]
    assert rows(database, "PRAGMA foreign_key_check") == []


async def test_parents_that_others_refer_to_by_now_stay(
    session: sidecar.Sidecar, database: Path, app: Any, point: str
) -> None:
    app.execute("INSERT INTO customers VALUES (9, 'new')")
    app.execute("INSERT INTO orders VALUES (30, 9, 'new', 1)")
    with pytest.raises(UsageError, match="a row of orders refers to customers 9, which would be removed"):
        await session.tables("customers", state=point).bring_back(rows="exact")
    app.execute("DELETE FROM orders WHERE id = 30")

    async def faster(_preview: Preview) -> None:
        app.execute("INSERT INTO orders VALUES (31, 9, 'new', 1)")

    with pytest.raises(UsageError, match="customers 9"):
        await session.tables("customers", state=point).bring_back(rows="exact", confirm=faster)
    await session.tables("customers", state=point).bring_back(rows="exact", orphans=True)
    assert rows(database, "SELECT count(*) FROM customers") == [(3,)]


async def test_a_table_that_is_gone_comes_back_with_all_that_belongs_to_it(
    session: sidecar.Sidecar, database: Path, app: Any, point: str
) -> None:
    app.execute("CREATE INDEX by_state ON orders(state)")
    await session.backup()
    app.execute("DROP TABLE orders")
    done = await session.tables("orders").bring_back()
    assert done.preview.tables[0].created
    assert rows(database, "SELECT count(*) FROM orders") == [(20,)]
    names = "SELECT name FROM sqlite_schema WHERE tbl_name = 'orders' ORDER BY rowid"
    assert rows(database, names) == [("orders",), ("by_state",), ("second",), ("first",)]
    app.execute("INSERT INTO orders VALUES (99, 1, 'new', 1)")
    with pytest.raises(RowsChanged, match="orders, which has other rows by now"):
        await session.tables().undo()
    app.execute("DELETE FROM orders WHERE id = 99")
    await session.tables().undo()
    assert rows(database, names) == []


async def test_a_table_comes_back_under_another_name_and_binds_nobody(
    session: sidecar.Sidecar, database: Path, app: Any, point: str
) -> None:
    app.execute("ALTER TABLE orders ADD COLUMN note")
    with pytest.raises(UsageError, match="customers"):
        await session.tables("orders", state=point).bring_back(name="customers")
    await session.tables("orders", state=point).bring_back(name="orders_old")
    assert rows(database, "SELECT id, customer, state, total FROM orders_old") == rows(database, ORDERS)
    app.execute("DELETE FROM customers WHERE id = 1")
    await session.tables().undo()
    assert rows(database, "SELECT 1 FROM sqlite_schema WHERE name = 'orders_old'") == []


async def test_what_cannot_be_done_is_refused(session: sidecar.Sidecar, database: Path, app: Any, point: str) -> None:
    app.execute("CREATE TABLE fresh(a)")
    with pytest.raises(UsageError, match="has no table fresh"):
        await session.tables("fresh", state=point).bring_back()
    with pytest.raises(UsageError, match="neither state has a table nothing"):
        await session.tables("nothing", state=point).bring_back()
    with pytest.raises(NothingToRestore, match="does not exist in file"):
        await session.tables("orders", state="other.db/20261129T120000.000Z.sqlite3.zst").bring_back()
    done = await session.tables("orders", state=point).bring_back(rows="exact")
    assert done.saved is None
    assert leftovers(database) == []


async def test_long_waits_have_to_be_allowed(
    session: sidecar.Sidecar, database: Path, app: Any, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.execute("DELETE FROM orders WHERE id = 3")
    monkeypatch.setattr("sidecar.states.bring_back.LONGEST", 0.0)
    with pytest.raises(UsageError, match="would have to wait"):
        await session.tables("orders", state=point).bring_back()
    await session.tables("orders", state=point).bring_back(long=True)


async def test_triggers_fire_if_they_are_let(session: sidecar.Sidecar, database: Path, app: Any, point: str) -> None:
    app.execute("UPDATE orders SET total = 1 WHERE id = 3")
    app.execute("DELETE FROM log")
    done = await session.tables("orders", state=point).bring_back(rows="exact", triggers=True)
    assert rows(database, "SELECT text FROM log") == [("first",), ("second",)]
    assert done.preview.triggers == ()


async def test_a_store_that_is_away_ends_it_before_anything_is_done(
    session: sidecar.Sidecar, database: Path, app: Any, point: str
) -> None:
    app.execute("DELETE FROM orders WHERE id = 3")
    store = database.parent / "store"

    async def lose(_preview: Preview) -> None:
        store.rename(database.parent / "t" / "lost")

    with pytest.raises(sidecar.errors.SidecarError):
        await session.tables("orders", state=point).bring_back(confirm=lose)
    assert rows(database, "SELECT count(*) FROM orders") == [(19,)]
    assert [each for each in leftovers(database) if each != "lost"] == []
