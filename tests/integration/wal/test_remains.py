"""Whether a log still has the last frame of a stream, when nobody has followed it for a while."""

from dataclasses import replace
from pathlib import Path

from sidecar.database import default_driver
from sidecar.database.wal import Follower, Limits
from sidecar.database.wal.remains import log_has
from sidecar.model import LogPosition
from tests.harness.writers import open_database

DRIVER = default_driver()


def test_the_log_has_the_last_frame_until_it_is_reset_or_loses_its_end(tmp_path: Path) -> None:
    """
    1. An app commits while it is followed; the follower ends.
    2. The app goes on in the same log, which is then cut off in the middle of its last frame, and reset at last.
    Result: the log proves that it has what was followed, but neither without its end, nor with a damaged frame before it,
    nor once it was reset.
    """
    path = tmp_path / "app.db"
    app = open_database(path)
    app.execute("PRAGMA journal_mode=WAL")
    app.execute("CREATE TABLE t(x)")
    follower = Follower(path, DRIVER, Limits())
    follower.open()
    follower.start()
    app.execute("INSERT INTO t VALUES (randomblob(9000))")
    assert len(follower.poll()) == 1
    position = follower.position
    assert log_has(path, position, DRIVER)
    assert log_has(path, replace(position, frame=0, checksum=(0, 0)), DRIVER)
    app.execute("INSERT INTO t VALUES (1)")
    assert log_has(path, position, DRIVER)
    assert not log_has(path, replace(position, checksum=(1, 2)), DRIVER)
    assert not log_has(path, replace(position, salts=bytes(8)), DRIVER)

    log = Path(f"{path}-wal")
    whole = log.read_bytes()
    page_size = app.execute("PRAGMA page_size").fetchone()[0]
    end = 32 + position.frame * (24 + page_size)
    assert _has(tmp_path / "copy", path, whole, position)
    assert not _has(tmp_path / "cut", path, whole[: end - page_size - 20], position)
    assert not _has(tmp_path / "damaged", path, whole[:100] + bytes([whole[100] ^ 1]) + whole[101:], position), (
        "its first frame"
    )
    assert not _has(tmp_path / "empty", path, b"", position)
    assert not log_has(tmp_path / "none.db", position, DRIVER)

    follower.close()
    app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert not log_has(path, position, DRIVER)
    app.execute("INSERT INTO t VALUES (2)")
    assert not log_has(path, position, DRIVER)
    app.close()


def _has(directory: Path, database: Path, log: bytes, position: LogPosition) -> bool:
    """Whether a copy of the database with this log has it. It is asked twice: nothing is changed by that."""
    directory.mkdir()
    copy = directory / "app.db"
    copy.write_bytes(database.read_bytes())
    log_of_copy = Path(f"{copy}-wal")
    log_of_copy.write_bytes(log)
    found = log_has(copy, position, DRIVER)
    assert (copy.read_bytes(), log_of_copy.read_bytes()) == (database.read_bytes(), log)
    assert log_has(copy, position, DRIVER) is found
    return found
