"""A store of each kind."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from sidecar.storage.base import ObjectStore
from tests.harness.seaweed import Seaweed
from tests.integration.wiring import store_of

KINDS = [pytest.param("file"), pytest.param("s3", marks=pytest.mark.s3)]


@pytest.fixture(params=KINDS)
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[ObjectStore]:
    """An empty store of each kind."""
    endpoint, place = None, str(tmp_path / "store")
    if request.param == "s3":
        seaweed: Seaweed = request.getfixturevalue("seaweed")
        endpoint, place = seaweed.endpoint, request.getfixturevalue("bucket")
        for name, value in seaweed.environment().items():
            monkeypatch.setenv(name, value)
    async with store_of(place, endpoint) as opened:
        yield opened
