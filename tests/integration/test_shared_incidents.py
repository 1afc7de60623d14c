"""Two daemons that write one incident object, and people who acknowledge meanwhile: nothing is lost, nothing comes back."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from sidecar.errors import StoreUnavailable
from sidecar.host import SystemClock
from sidecar.monitoring.acknowledgement import KINDS, acknowledge_all
from sidecar.monitoring.incident_store import read_incidents
from sidecar.repository import Catalog
from sidecar.status import Kind
from tests.harness.environment import ROOT
from tests.harness.processes import Child
from tests.integration import reporting
from tests.integration.conftest import KINDS as STORES
from tests.integration.reporting import NAME
from tests.integration.wiring import store_of

pytestmark = pytest.mark.anyio

COUNT = 9  # of each daemon: together no more than are kept


def start(place: str, endpoint: str | None, name: str) -> Child:
    argv = [sys.executable, str(Path(reporting.__file__)), place, endpoint or "-", name, str(COUNT)]
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    return Child(argv, env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def line(child: Child) -> str:
    assert child.popen.stdout is not None
    return child.popen.stdout.readline().decode().strip()


def send(child: Child, text: bytes) -> None:
    assert child.popen.stdin is not None
    child.popen.stdin.write(text)
    child.popen.stdin.flush()


@pytest.mark.parametrize("kind", STORES)
async def test_two_daemons_and_somebody_who_acknowledges(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """
    1. Two processes without a lease report incidents as fast as they can; `sidecar ack` comes between them again and again.
    2. What was reported is open or acknowledged, never both; the pages show what is open.
    3. Nothing that was acknowledged is written back afterwards.
    """
    place, endpoint = str(tmp_path / "store"), None
    if kind == "s3":
        seaweed = request.getfixturevalue("seaweed")
        place, endpoint = request.getfixturevalue("bucket"), seaweed.endpoint
        for name, value in seaweed.environment().items():
            monkeypatch.setenv(name, value)
    acknowledged: set[str] = set()
    children = [start(place, endpoint, name) for name in ("one", "two")]
    try:
        assert [line(child) for child in children] == ["ready", "ready"]
        for child in children:
            send(child, b"go\n")
        async with store_of(place, endpoint) as store:
            catalog = Catalog(store)
            for number in range(COUNT):
                assert [line(child) for child in children] == [f"one {number}", f"two {number}"]
                if number % 3 == 1:
                    acknowledged |= await acknowledge(catalog)
            for child in children:
                assert child.popen.stdin is not None
                child.popen.stdin.close()
            pages = [set(line(child).split()[1:]) for child in children]
            stored = await read_incidents(store, NAME, SystemClock().now())
    finally:
        for child in children:
            child.kill()
    opened = {each.message for each in stored.incidents}
    assert opened | acknowledged == {f"{name} {number}" for name in ("one", "two") for number in range(COUNT)}
    assert opened & acknowledged == set()
    assert {each.message for each in stored.acknowledged} == acknowledged
    assert acknowledged
    assert set.union(*pages) <= {each.replace(" ", "-") for each in opened}


async def acknowledge(catalog: Catalog) -> set[str]:
    """As `sidecar ack --all` does; the command is given again when the object has changed at each attempt."""
    while True:
        try:
            done = await acknowledge_all(catalog, (NAME,), tuple(map(Kind, KINDS)), "seen", SystemClock().now())
        except StoreUnavailable:
            continue
        return {each.message for each in done.acknowledged}
