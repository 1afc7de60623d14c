"""Opening services leaves the process that does it as it was: it may be somebody else's."""

import asyncio
import gc
import signal
from pathlib import Path

import pytest

from sidecar.bootstrap import open_services
from sidecar.host import memory
from sidecar.settings.load import load

pytestmark = pytest.mark.anyio


async def test_opening_services_changes_nothing_of_the_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the collector, nor the allocator, nor the event loop's executor, nor a signal handler."""
    touched: list[str] = []
    monkeypatch.setattr(memory, "_glibc", lambda: touched.append("allocator"))
    monkeypatch.setattr(
        asyncio.get_running_loop(), "set_default_executor", lambda _executor: touched.append("executor"), raising=False
    )
    stops = (signal.SIGTERM, signal.SIGINT)
    gc.unfreeze()  # what was frozen in this process would become less by itself
    before = (gc.isenabled(), gc.get_freeze_count(), [signal.getsignal(each) for each in stops])
    environment = {"SIDECAR_DATABASES": str(tmp_path / "app.db"), "SIDECAR_STORE": f"file://{tmp_path}/store"}
    async with open_services(load({}, environment)) as services:
        assert services.databases
    assert (gc.isenabled(), gc.get_freeze_count(), [signal.getsignal(each) for each in stops]) == before
    assert touched == []
