"""What changed from one restore point to the next, and the life of one row in all of them."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.api import open_session
from sidecar.bootstrap import Services, open_services
from sidecar.compare.counts import Counts, CountsCache, TableCounts
from sidecar.compare.life import Step
from sidecar.errors import UsageError
from sidecar.repository.reader import TAIL
from sidecar.settings.given import configure
from sidecar.states import LIVE
from sidecar.states.timeline import Timeline
from tests.harness.sql_process import SqlProcess

pytestmark = pytest.mark.anyio

MIB = 1 << 20
STATES = (
    ("CREATE TABLE t(id INTEGER PRIMARY KEY, x)", "INSERT INTO t VALUES (1, 'one'), (2, 'two')", "CREATE TABLE big(x)"),
    ("UPDATE t SET x = 'ONE' WHERE id = 1",),
    ("DELETE FROM t WHERE id = 1",),
    ("INSERT INTO t VALUES (1, 'one')", "ALTER TABLE t ADD COLUMN y DEFAULT 5"),
    ("DELETE FROM big WHERE rowid < 3",),
    ("UPDATE t SET y = 6 WHERE id = 1",),  # live
)


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    """Five restore points of 4 MiB that cannot be compressed, and a live database."""
    path, store = tmp_path / "app.db", f"file://{tmp_path}/store"
    with SqlProcess(path) as app:
        async with open_session(databases=[path], store=store, lease="off") as session:
            for number, statements in enumerate(STATES):
                app.script(*statements)
                if not number:
                    app.script(*["INSERT INTO big VALUES (randomblob(1000000))"] * 4)
                if number < len(STATES) - 1:
                    await session.backup()
        async with open_services(configure({"databases": [path], "store": store})) as services:
            yield services


async def life(timeline: Timeline, table: str, key: str) -> list[Step]:
    points = await timeline.points()
    return [step async for step in timeline.versions(table, key, points)]


async def test_counts_are_learned_once_and_kept_without_any_data(services: Services, tmp_path: Path) -> None:
    """The second time no chunk is fetched: the indexes say which states they are."""
    kept = tmp_path / "cache"
    expected = [
        Counts((TableCounts("t", changed=1),)),
        Counts((TableCounts("big", removed=2),)),
        Counts((TableCounts("t", added=1),), schema_changes=1),
        Counts((TableCounts("t", removed=1),)),
        Counts((TableCounts("t", changed=1),)),
    ]
    for again in (False, True):
        timeline = Timeline(services, services.databases[0], CountsCache(kept))
        keys = [LIVE, *(each.key for each in await timeline.points())]
        pairs = list(zip(keys[1:], keys, strict=False))
        assert [await timeline.counts(*pair) for pair in pairs[again:]] == expected[again:]
        if again:
            assert timeline.cost[1] <= 5 * TAIL
    assert len(list(kept.iterdir())) == 4, "the live database is another one each time"
    assert not any(b"one" in each.read_bytes().lower() for each in kept.iterdir())
    assert kept.stat().st_mode & 0o077 == 0
    assert all(each.stat().st_mode & 0o077 == 0 for each in kept.iterdir())


async def test_the_versions_of_a_row_and_what_they_cost(services: Services, tmp_path: Path) -> None:
    """
    The row is in the first MiB. It was changed, deleted, inserted again, and changed; what happened elsewhere is not part of
    its life. Of each restore point only the index is read, and the first MiB, which SQLite changes each time.
    """
    timeline = Timeline(services, services.databases[0], CountsCache(None))
    *steps, last = await life(timeline, "t", "1")
    kinds = [each.version and each.version.kind for each in steps]
    assert kinds == [None, "changed", None, "added", "removed", "changed"]
    changed = steps[1].version
    assert changed is not None
    assert [(each.column, each.before, each.after) for each in changed.values] == [("y", 5, 6)]
    assert last.oldest is not None
    assert last.oldest.row == (1, "one")
    requests, received = timeline.cost
    assert requests <= 2 * 5
    assert received <= 5 * (TAIL + MIB + 4096), "the database has 4 MiB"

    with pytest.raises(UsageError, match="no primary key"):
        await life(timeline, "big", "4")
    with pytest.raises(UsageError, match="no state has a table nothing"):
        await life(timeline, "nothing", "4")

    # One restore point is damaged: it is left out and named, and what happened around it is seen as one change.
    points = sorted((tmp_path / "store").rglob("*.sqlite3.zst"))
    points[2].write_bytes(points[2].read_bytes()[:-100])
    timeline = Timeline(services, services.databases[0], CountsCache(None))
    *steps, last = await life(timeline, "t", "1")
    assert [each.problem.partition(":")[0] for each in steps if each.problem]
    assert [each.version and each.version.kind for each in steps] == [None, "changed", None, None, "changed", "changed"]
