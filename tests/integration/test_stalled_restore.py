"""A connection that stalls in the middle of a restore is replaced, not waited for."""

from pathlib import Path

import anyio
import pytest

from tests.harness.faults import Stall
from tests.harness.proxy import FaultProxy
from tests.harness.seaweed import Seaweed
from tests.harness.writers import fill
from tests.integration.wiring import Machine, store_of

pytestmark = [pytest.mark.anyio, pytest.mark.s3]


async def test_a_restore_ends_long_before_a_stalled_range_would(
    seaweed: Seaweed, proxy: FaultProxy, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One range stalls for ten minutes; it is asked for a second time, before any timeout of the SDK."""
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    async with store_of(bucket, proxy.endpoint) as store:
        machine = Machine(store, tmp_path / "app.db", staging=tmp_path)
        fill(machine.database.path, 60)
        await machine.backup.cycle.run()
        proxy.rule(
            Stall(600, after_bytes=1 << 20, direction="reply"), method="GET", path_contains=".zst", times=1, skip=2
        )
        with anyio.fail_after(18):  # the SDK itself would give the stalled connection up after 20 s
            await machine.reader.download(await machine.newest(), tmp_path / "restored.db")
    ranges = [seen.headers.get("range") for seen in proxy.seen("GET", ".zst")]
    assert len(ranges) == len(set(ranges)) + 1, "exactly one range was asked for twice"
