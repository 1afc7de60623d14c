"""The final backup of a streamed database: it costs what changed, and is what SQLite's backup would copy."""

import json
from contextlib import closing
from pathlib import Path

from sidecar.database.driver import default_driver
from tests.e2e.machine import Machine, python_app
from tests.e2e.streaming import HOLDING, status_of
from tests.harness.eventually import eventually
from tests.harness.writers import open_database

MIB = 20


def copied_by_sqlite(path: Path, target: Path) -> bytes:
    """What SQLite's backup writes of this database."""
    driver = default_driver()
    target.write_bytes(b"")
    with closing(driver.connect(path, "ro")) as source, closing(driver.connect(target, "rw")) as copy:
        copy.execute("PRAGMA journal_mode = OFF")
        source.backup(copy)
    return target.read_bytes()


def test_the_final_backup_is_made_in_place(machine: Machine) -> None:
    """
    1. A database of 20 MiB is streamed and has a restore point; then two of its rows are changed.
    2. `check` says how the final backup would be made, and the status how long it takes.
    3. SIGTERM: a restore point of which few MiB were read, and the others compared.
    Result: it is what SQLite copies, byte for byte.
    """
    with closing(open_database(machine.database)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, a)")
        connection.execute(
            f"WITH n AS (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < {MIB * 4}) "
            "INSERT INTO t SELECT i, randomblob(260000) FROM n"
        )
    with machine.run(*python_app(HOLDING, str(machine.database)), stream="on") as process:
        process.wait_ready()
        eventually(lambda: status_of(process)["protects"], 30, "a restore point names the stream")
        with closing(open_database(machine.database)) as connection:
            connection.execute("UPDATE t SET a = randomblob(260000) WHERE id IN (30, 31)")
        said = machine.cli("check").stdout
        assert "ok      final backup app.db: would be published in place: " in said, said
        shown = json.loads(process.http("/status")[1])["databases"][0]
        assert shown["final_in_place"]
        assert shown["final_estimate"] > 0
        assert process.terminate() == 0
        lines = [line for line in process.output().splitlines() if '"event": "restore point published"' in line]
    published = [json.loads(line) for line in lines]
    assert [each["chunks_taken_over"] > 0 for each in published] == [False, True]
    assert published[-1]["chunks_read"] < MIB / 2
    assert machine.restore_copy().read_bytes() == copied_by_sqlite(machine.database, machine / "sqlite.db")
