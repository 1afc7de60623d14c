"""`Snapshotter` on files of every kind: what is copied is what the database holds, what is refused says why."""

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from anyio import to_thread

from sidecar.database.findings import CheckReport
from sidecar.database.integrity import SqliteIntegrity
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from sidecar.errors import ConfigurationError, DamagedDatabase, DatabaseBusy, DatabaseMissing
from tests.harness.writers import check_ledger, create_ledger, fill, open_database, transfer

pytestmark = pytest.mark.anyio

PAGE_SIZES = [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536]
NAMES = ["plain.db", "with space.db", "déjà vu 名前.db", "a#b.db", "a?mode=memory.db", "50%25 off%.db", "a'b\"c;d.db"]


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """Where snapshots are staged."""
    directory = tmp_path / "staged"
    directory.mkdir()
    return directory


@pytest.fixture
def snapshotter(staged: Path) -> SqliteSnapshotter:
    """The one under contract, as `run` uses it."""
    return SqliteSnapshotter(Staging(staged))


def query(path: Path, statement: str) -> object:
    """The first value of a statement's answer."""
    with closing(open_database(path)) as connection:
        return connection.execute(statement).fetchone()[0]


def ledger(path: Path, *pragmas: str, transfers: int = 50, journal_mode: str = "wal") -> Path:
    """A ledger made with these pragmas."""
    with closing(open_database(path)) as connection:
        for pragma in ("synchronous=off", *pragmas):
            connection.execute(f"PRAGMA {pragma}")
        create_ledger(connection, 10, journal_mode)
        for number in range(transfers):
            transfer(connection, number % 10, number, os.urandom(300))
    return path


async def copied(snapshotter: SqliteSnapshotter, path: Path) -> tuple[bytes, int]:
    """The bytes of a snapshot, and the last number of the ledger in it; nothing is staged any more."""
    async with snapshotter.snapshot(path) as snapshot:
        content = snapshot.path.read_bytes()
        assert len(content) == snapshot.size
        assert snapshot.size % snapshot.page_size == 0
        assert (snapshot.path.stat().st_mode & 0o777) == 0o600
        number = await to_thread.run_sync(check_ledger, snapshot.path)
    assert not snapshot.path.exists()
    return content, number


@pytest.mark.parametrize("page_size", PAGE_SIZES)
async def test_every_page_size_is_copied(snapshotter: SqliteSnapshotter, tmp_path: Path, page_size: int) -> None:
    path = ledger(tmp_path / "app.db", f"page_size={page_size}")
    async with snapshotter.snapshot(path) as snapshot:
        assert snapshot.page_size == page_size
        assert snapshot.tables == 3
        assert check_ledger(snapshot.path) == 50


@pytest.mark.parametrize("mode", [1, 2])
async def test_auto_vacuum_is_copied(snapshotter: SqliteSnapshotter, tmp_path: Path, mode: int) -> None:
    """Its pointer-map pages belong to the file like any other."""
    path = ledger(tmp_path / "app.db", f"auto_vacuum={mode}")
    async with snapshotter.snapshot(path) as snapshot:
        assert check_ledger(snapshot.path) == 50
        assert query(snapshot.path, "PRAGMA auto_vacuum") == mode


@pytest.mark.parametrize("vacuum", ["none", "full", "by hand"])
async def test_what_is_deleted_is_no_longer_in_use(snapshotter: SqliteSnapshotter, tmp_path: Path, vacuum: str) -> None:
    """Whether the file keeps its size, as it does without VACUUM, or not; SQLite's own count of pages is the witness."""
    path = tmp_path / "app.db"
    with closing(open_database(path)) as connection:
        connection.execute(f"PRAGMA auto_vacuum={'FULL' if vacuum == 'full' else 'NONE'}")
        connection.execute("CREATE TABLE notes (text)")
        connection.executemany("INSERT INTO notes VALUES (?)", [("x" * 1000,)] * 1000)
        connection.commit()
        async with snapshotter.snapshot(path) as snapshot:
            before = snapshot
            assert snapshot.live == snapshot.size
        connection.execute("DELETE FROM notes")
        connection.commit()
        if vacuum == "by hand":
            connection.execute("VACUUM")
        async with snapshotter.snapshot(path) as snapshot:
            pages, unused = (query(snapshot.path, f"PRAGMA {each}_count") for each in ("page", "freelist"))
            assert snapshot.live == (int(str(pages)) - int(str(unused))) * snapshot.page_size < before.live / 50
            assert (snapshot.size == before.size) == (vacuum == "none")


@pytest.mark.parametrize("indexes", [0, 3])
async def test_what_empty_tables_take_is_known_and_rows_are_counted(
    snapshotter: SqliteSnapshotter, tmp_path: Path, indexes: int
) -> None:
    """When all rows are deleted that is what is left; tables of any name, and a virtual one, whose rows are in others."""
    path = tmp_path / "app.db"
    with closing(open_database(path)) as connection:
        for number in range(20):
            connection.execute(f'CREATE TABLE "a ""quoted"" {number}" (text UNIQUE, other)')
            for index in range(indexes):
                connection.execute(f'CREATE INDEX "by {index} {number}" ON "a ""quoted"" {number}" (other)')
            rows = [(f"{each} {'x' * 500}", "y" * 500) for each in range(20)]
            connection.executemany(f'INSERT INTO "a ""quoted"" {number}" VALUES (?, ?)', rows)
        connection.commit()
        async with snapshotter.snapshot(path) as snapshot:
            full = snapshot
            assert snapshot.rows == 400
            assert snapshot.bare == (20 * (2 + indexes) + 1) * snapshot.page_size < snapshot.live
        for number in range(20):
            connection.execute(f'DELETE FROM "a ""quoted"" {number}"')
        connection.commit()
        async with snapshotter.snapshot(path) as snapshot:
            assert snapshot.rows == 0
            assert snapshot.bare == full.bare
            assert 0 <= snapshot.live - (snapshot.bare or 0) < (full.live - (full.bare or 0)) / 10, "but for the schema"


@pytest.mark.parametrize("encoding", ["UTF-8", "UTF-16le", "UTF-16be"])
async def test_rows_are_counted_in_every_encoding(
    snapshotter: SqliteSnapshotter, tmp_path: Path, encoding: str
) -> None:
    path = tmp_path / "app.db"
    with closing(open_database(path)) as connection:
        connection.execute(f"PRAGMA encoding='{encoding}'")
        connection.execute('CREATE TABLE "größe 数" (text)')
        connection.execute("""INSERT INTO "größe 数" VALUES ('one'), ('two')""")
        connection.commit()
    async with snapshotter.snapshot(path) as snapshot:
        assert (snapshot.tables, snapshot.rows) == (1, 2)


async def test_a_table_whose_name_is_no_text_is_copied_all_the_same(
    snapshotter: SqliteSnapshotter, tmp_path: Path
) -> None:
    """SQLite does not look at the bytes of a name; only its rows are not counted."""
    path = tmp_path / "app.db"
    with closing(open_database(path)) as connection:
        connection.execute("CREATE TABLE cafe (x)")
        connection.execute("PRAGMA writable_schema=on")
        connection.execute(
            "UPDATE sqlite_schema SET name = CAST(x'636166e9' AS TEXT), tbl_name = CAST(x'636166e9' AS TEXT), "
            "sql = CAST(x'435245415445205441424c452022636166e9222878 29' AS TEXT)".replace(" 29'", "29'")
        )
        connection.commit()
    async with snapshotter.snapshot(path) as snapshot:
        assert (snapshot.tables, snapshot.rows) == (1, None)


async def test_rows_of_a_large_database_are_not_counted(snapshotter: SqliteSnapshotter, tmp_path: Path) -> None:
    """That would read all of it."""
    path = tmp_path / "app.db"
    with closing(open_database(path)) as connection:
        connection.execute("CREATE TABLE blobs AS SELECT randomblob(5 << 20) AS bytes")
        connection.commit()
        async with snapshotter.snapshot(path) as snapshot:
            assert snapshot.rows is None


async def test_rows_that_need_the_app_are_not_counted(snapshotter: SqliteSnapshotter, tmp_path: Path) -> None:
    """A table whose key has a collation of the app's: no failure, and nothing is said of its rows."""
    path = tmp_path / "app.db"
    with closing(open_database(path)) as connection:
        connection.create_collation("ours", lambda one, other: (one > other) - (one < other))
        connection.execute("CREATE TABLE odd (name TEXT COLLATE ours PRIMARY KEY) WITHOUT ROWID")
        connection.execute("INSERT INTO odd VALUES ('x')")
        connection.commit()
        async with snapshotter.snapshot(path) as snapshot:
            assert snapshot.rows in {None, 1}
            assert snapshot.tables == 1


async def test_empty_schema_is_a_database(snapshotter: SqliteSnapshotter, tmp_path: Path) -> None:
    with closing(open_database(tmp_path / "app.db")) as connection:
        connection.execute("PRAGMA user_version=7")
    async with snapshotter.snapshot(tmp_path / "app.db") as snapshot:
        assert snapshot.tables == 0
        assert query(snapshot.path, "PRAGMA user_version") == 7


async def test_what_sqlite_keeps_for_itself_is_no_table(snapshotter: SqliteSnapshotter, tmp_path: Path) -> None:
    """Every table of the app is dropped, and those of AUTOINCREMENT and ANALYZE stay: that is an empty database."""
    path = tmp_path / "app.db"
    with closing(open_database(path)) as connection:
        connection.execute("CREATE TABLE notes (id INTEGER PRIMARY KEY AUTOINCREMENT, text TEXT)")
        connection.execute("CREATE INDEX by_text ON notes (text)")
        connection.execute("INSERT INTO notes (text) VALUES ('one')")
        connection.execute("ANALYZE")
        async with snapshotter.snapshot(path) as snapshot:
            assert snapshot.tables == 1
        connection.execute("DROP TABLE notes")
        async with snapshotter.snapshot(path) as snapshot:
            assert snapshot.tables == 0
        assert query(path, "SELECT count(*) FROM sqlite_schema WHERE type = 'table'") != 0


@pytest.mark.parametrize("name", NAMES)
async def test_any_file_name_is_copied(tmp_path: Path, name: str) -> None:
    """In a directory of the same name; SQLite's URIs give a meaning to `?`, `#` and `%`."""
    folder = tmp_path / name.removesuffix(".db")
    folder.mkdir()
    snapshotter = SqliteSnapshotter(Staging(tmpfs=tmp_path / "none"))
    path = ledger(folder / name)
    await snapshotter.prepare(path)
    async with snapshotter.snapshot(path) as snapshot:
        (tmp_path / "copy").write_bytes(snapshot.path.read_bytes())
        assert check_ledger(tmp_path / "copy") == 50
    await snapshotter.settle(path)
    await SqliteIntegrity().check(path, "full")
    assert {found.name for found in folder.iterdir()} <= {name, f"{name}-shm"}


async def test_file_name_that_is_no_unicode_is_copied(snapshotter: SqliteSnapshotter, tmp_path: Path) -> None:
    path = ledger(tmp_path / os.fsdecode(b"latin-\xe9.db"))
    async with snapshotter.snapshot(path) as snapshot:
        assert check_ledger(snapshot.path) == 50


@pytest.mark.parametrize("journal_mode", ["wal", "delete", "truncate", "persist"])
@pytest.mark.parametrize("switch", [True, False])
async def test_journal_mode_is_switched_unless_kept(
    staged: Path, tmp_path: Path, journal_mode: str, *, switch: bool
) -> None:
    snapshotter = SqliteSnapshotter(Staging(staged), switch_to_wal=switch)
    path = ledger(tmp_path / "app.db", journal_mode=journal_mode)
    await snapshotter.prepare(path)
    assert (await copied(snapshotter, path))[1] == 50
    with closing(open_database(path)) as connection:  # the app writes, with the locks that WAL requires
        transfer(connection, 1, 1)
    assert (await copied(snapshotter, path))[1] == 51
    kept = "delete" if journal_mode != "wal" else "wal"  # the others last as long as a connection
    assert query(path, "PRAGMA journal_mode") == ("wal" if switch else kept)


async def test_wal_that_was_never_checkpointed_is_in_the_snapshot(
    snapshotter: SqliteSnapshotter, tmp_path: Path
) -> None:
    path = ledger(tmp_path / "app.db", transfers=1)
    with closing(open_database(path)) as connection:
        connection.execute("PRAGMA wal_autocheckpoint=0")
        for number in range(200):
            transfer(connection, number % 10, number)
        assert (await copied(snapshotter, path))[1] == 201


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
async def test_two_snapshots_without_a_write_between_are_byte_identical(
    snapshotter: SqliteSnapshotter, tmp_path: Path, journal_mode: str
) -> None:
    """What lets a cycle find that nothing changed, also with the app connected and reading."""
    path = ledger(tmp_path / "app.db", journal_mode=journal_mode)
    await snapshotter.prepare(path)
    with closing(open_database(path)) as connection:
        connection.execute("SELECT * FROM sequence").fetchall()
        first, _ = await copied(snapshotter, path)
        second, _ = await copied(snapshotter, path)
        assert first == second
        transfer(connection, 1, 1)
        assert (await copied(snapshotter, path))[0] != second


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
async def test_database_that_is_locked_exclusively_is_busy(
    snapshotter: SqliteSnapshotter, tmp_path: Path, journal_mode: str
) -> None:
    path = ledger(tmp_path / "app.db", journal_mode=journal_mode)
    with closing(open_database(path)) as connection:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE")
        transfer(connection, 1, 1)
        for attempt in (lambda: copied(snapshotter, path), lambda: snapshotter.settle(path)):
            with pytest.raises(DatabaseBusy):
                await attempt()
        with pytest.raises(DatabaseBusy):
            await snapshotter.prepare(path)
    assert (await copied(snapshotter, path))[1] == 51


async def test_settle_folds_the_wal_into_the_file(snapshotter: SqliteSnapshotter, tmp_path: Path) -> None:
    path = ledger(tmp_path / "app.db")
    with closing(open_database(path)) as connection:
        transfer(connection, 1, 1)
        with pytest.raises(DatabaseBusy):
            await snapshotter.settle(path)
        os.link(path, tmp_path / "crashed.db")
        os.link(f"{path}-wal", tmp_path / "crashed.db-wal")
        (tmp_path / "other").mkdir()
        for name in ("crashed.db", "crashed.db-wal"):  # as a crash leaves them: copies nobody has open
            (tmp_path / "other" / name).write_bytes((tmp_path / name).read_bytes())
    crashed = tmp_path / "other" / "crashed.db"
    await snapshotter.settle(crashed)
    assert sorted(crashed.parent.glob("*")) == [crashed]
    assert check_ledger(crashed) == 51


async def test_nothing_there_is_not_found(snapshotter: SqliteSnapshotter, tmp_path: Path) -> None:
    (tmp_path / "empty.db").touch()
    for path in (tmp_path / "none.db", tmp_path / "empty.db", tmp_path / "no" / "where.db"):
        assert snapshotter.signature(path) is None
        await snapshotter.prepare(path)
        with pytest.raises(DatabaseMissing):
            await copied(snapshotter, path)
    assert (tmp_path / "empty.db").stat().st_size == 0
    assert not (tmp_path / "none.db").exists()


async def test_directory_and_other_kinds_are_a_configuration_error(
    snapshotter: SqliteSnapshotter, tmp_path: Path
) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(ConfigurationError):
            await snapshotter.prepare(path)
        with pytest.raises(ConfigurationError):
            await copied(snapshotter, path)


def _text(path: Path) -> None:
    path.write_text("name,value\n" * 1000)


def _random(path: Path) -> None:
    path.write_bytes(os.urandom(1 << 20))


def _no_schema(path: Path) -> None:
    """The header is right, the rest of the first page is gone."""
    content = bytearray(path.read_bytes())
    content[100:4096] = bytes(3996)
    path.write_bytes(content)


def _cut_short(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _cut_inside_the_header(path: Path) -> None:
    os.truncate(path, 60)


@pytest.mark.parametrize("damage", [_text, _random, _no_schema, _cut_short, _cut_inside_the_header])
async def test_file_that_is_no_database_is_damaged(
    snapshotter: SqliteSnapshotter, staged: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    path = ledger(tmp_path / "app.db", transfers=500, journal_mode="delete")
    damage(path)
    before = path.read_bytes()
    with pytest.raises(DamagedDatabase) as caught:
        await copied(snapshotter, path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert path.read_bytes() == before
    assert list(staged.iterdir()) == []


@pytest.mark.parametrize("mode", ["quick", "full"])
async def test_integrity_check_finds_damage_inside(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "app.db"
    fill(path, 2, journal_mode="delete")
    assert await SqliteIntegrity().check(path, mode) == CheckReport(mode)
    content = bytearray(path.read_bytes())
    content[300 * 4096 : 301 * 4096] = b"\xff" * 4096
    path.write_bytes(content)
    assert await SqliteIntegrity().check(path, "none") == CheckReport("none")
    report = await SqliteIntegrity().check(path, mode)
    assert "cannot be read: database disk image is malformed" in report.unreadable
    assert report.findings[0] == report.unreadable
    assert await SqliteIntegrity().unreadable_live(path) == report.unreadable
