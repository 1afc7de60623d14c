"""What `check` says of streaming, in every case. It changes nothing: not the mode of the journal either."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from sidecar.bootstrap import open_services
from sidecar.cli.check.stream import stream
from sidecar.model import RestorePoint, Timestamp
from sidecar.settings.load import load
from tests.e2e.machine import write_note

pytestmark = pytest.mark.anyio


async def said(path: Path, newest: int | None = None, **settings: str) -> str:
    """`newest` is the size of the newest restore point."""
    flags = {"databases": (str(path),), "store": f"file://{path.parent}/store", **settings}
    point = None if newest is None else RestorePoint("k", "app.db", Timestamp("20261120T145503.123Z"), newest, "", {})
    async with open_services(load(flags, {"AWS_REGION": "us-east-1"})) as services:
        found = await stream(services, services.databases[0], point)
    return f"{found.kind}: {found.text}"


async def test_whether_a_database_would_be_streamed(tmp_path: Path) -> None:
    path = tmp_path / "app.db"
    assert await said(path, stream="off") == "ok: not streamed: stream=off"
    assert (await said(path, stream="auto", lease="off")).startswith("ok: not streamed: lease=off: ")
    assert (await said(path, stream="on")).startswith("warning: not streamed: there is no database at ")
    write_note(path, "one")
    assert await said(path, stream="on") == "ok: would be streamed, a segment every 1s at most"
    auto = await said(path, stream="auto")
    assert auto == "ok: would be streamed, a segment every 1s at most, once the app has used it in WAL mode for 10s"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    on = await said(path, stream="on")
    assert on.endswith("once the first backup has switched it from journal mode delete to WAL")
    auto = await said(path, stream="auto")
    assert auto.endswith(" to WAL, once the app has used it in WAL mode for 5m: sidecar chose that mode")
    kept = await said(path, stream="on", journal_mode="keep")
    assert kept.startswith("warning: not streamed: it is in journal mode delete, and journal_mode=keep")
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("delete",)


async def test_what_restore_points_by_need_would_save_is_said_where_it_is_more_than_a_dollar(tmp_path: Path) -> None:
    path, bucket = tmp_path / "app.db", "s3://bucket/app"
    write_note(path, "one")
    assert (await said(path, 10**9, store=bucket)).endswith(
        "restore_points=auto would save up to $6.07 a month of storage"
    )
    for quiet in (
        await said(path, 10**8, store=bucket),
        await said(path, None, store=bucket),
        await said(path, 10**9),
        await said(path, 10**9, store=bucket, restore_points="auto"),
        await said(path, 10**9, store=bucket, interval="1h"),
        await said(path, 10**9, store=bucket, stream="off"),
    ):
        assert "restore_points" not in quiet
