"""The line about what streaming may cost comes when a store is first streamed to, and not at each start."""

from datetime import timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from sidecar.daemon.stream_cost import log_stream_cost
from sidecar.lease.lease import Lease
from sidecar.lease.record import StreamRecord
from sidecar.model import AtRestorePoint, Database
from sidecar.status.model import Status
from tests.fakes import MemoryStore
from tests.leases import lease_of

pytestmark = pytest.mark.anyio


def status_of(lease: Lease, *, billable: bool = True, streamed: bool = True) -> Status:
    status = Status((Database("app.db", Path("/app.db")),), "s3://b", "1", lambda: lease.term.ends, billable=billable)
    status.lease = lease._status
    status.stream_interval = timedelta(seconds=1) if streamed else None
    return status


async def lines(status: Status) -> int:
    with capture_logs() as logs:
        await log_stream_cost(status)
    return sum(line["event"] == "stream cost" for line in logs)


async def test_it_is_logged_once_for_a_store() -> None:
    store = MemoryStore()
    first = lease_of(store, "a")
    await first.acquire(timedelta(0))
    assert await lines(status_of(first)) == 1
    await first.record_start({}, {"app.db": StreamRecord("s1", AtRestorePoint("k"))}, running=True)
    await first.term.release()
    second = lease_of(store, "b")
    await second.acquire(timedelta(0))
    assert await lines(status_of(second)) == 0


async def test_it_is_not_logged_where_nothing_is_paid_or_streamed() -> None:
    lease = lease_of(MemoryStore(), "a")
    await lease.acquire(timedelta(0))
    assert await lines(status_of(lease, billable=False)) == 0
    assert await lines(status_of(lease, streamed=False)) == 0
