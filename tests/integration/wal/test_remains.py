"""Whether a log still has the last frame of a stream, when nobody has followed it for a while."""

from dataclasses import replace
from pathlib import Path

from sidecar.database import default_driver
from sidecar.database.wal import Follower, Limits
from sidecar.database.wal.remains import log_has
from tests.harness.writers import open_database


def test_the_log_has_the_last_frame_until_it_is_reset_or_loses_its_end(tmp_path: Path) -> None:
    """
    1. An app commits while it is followed; the follower ends.
    2. The app goes on in the same log, which is then cut off in the middle of its last frame, and reset at last.
    Result: the log proves that it has what was followed, but neither without its end nor once it was reset.
    """
    path = tmp_path / "app.db"
    app = open_database(path)
    app.execute("PRAGMA journal_mode=WAL")
    app.execute("CREATE TABLE t(x)")
    follower = Follower(path, default_driver(), Limits())
    follower.open()
    follower.start()
    app.execute("INSERT INTO t VALUES (randomblob(9000))")
    assert len(follower.poll()) == 1
    position = follower.position
    assert log_has(path, position)
    assert log_has(path, replace(position, frame=0, checksum=(0, 0)))
    app.execute("INSERT INTO t VALUES (1)")
    assert log_has(path, position)
    assert not log_has(path, replace(position, checksum=(1, 2)))
    assert not log_has(path, replace(position, salts=bytes(8)))

    log = Path(f"{path}-wal")
    whole = log.read_bytes()
    page_size = app.execute("PRAGMA page_size").fetchone()[0]
    end = 32 + position.frame * (24 + page_size)
    (tmp_path / "cut.db-wal").write_bytes(whole[: end - page_size - 20])
    assert not log_has(tmp_path / "cut.db", position)
    assert not log_has(tmp_path / "none.db", position)

    follower.close()
    app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert not log_has(path, position)
    app.execute("INSERT INTO t VALUES (2)")
    assert not log_has(path, position)
    app.close()
