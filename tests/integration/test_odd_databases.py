"""Databases that their apps are content with, whatever our SQLite says: published, restored, drilled and verified.

None is lost, and none is replaced by an older one; what SQLite's check complains about is told.
"""

from pathlib import Path

import pytest

from sidecar.progress import no_progress
from sidecar.repository.drill_tag import DrillOutcome
from sidecar.restore.verification import Verification
from sidecar.storage.file.store import FileStore
from tests.harness.odd_databases import ODD, Odd
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
