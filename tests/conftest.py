"""Fixtures for every test: a real S3 server, a bucket of one's own, a faulty network, and a clean environment."""

import gc
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.harness.environment import clean_environment, leaking_names

if TYPE_CHECKING:  # the S3 client takes a third of a second to import; unit tests do without it
    from tests.harness.proxy import FaultProxy
    from tests.harness.seaweed import Seaweed
    from tests.harness.token_service import TokenService

_S3_FIXTURES = {"seaweed", "bucket", "proxy", "env", "token_service", "short_sessions"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Whatever needs the S3 server carries the `s3` marker, so that `-m 'not s3'` runs without it."""
    for item in items:
        if isinstance(item, pytest.Function) and _S3_FIXTURES & set(item.fixturenames):
            item.add_marker(pytest.mark.s3)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: to look through it for garbage is a fifth of the time of fast tests."""
    gc.freeze()


@pytest.fixture
def anyio_backend() -> str:
    """Tests marked `anyio` run on asyncio."""
    return "asyncio"


@pytest.fixture(autouse=True, scope="session")
def _clean_session() -> Iterator[None]:
    """Session fixtures see nothing of the developer's credentials, proxies and certificates."""
    with pytest.MonkeyPatch.context() as patch:
        for name in leaking_names():
            patch.delenv(name)
        yield


@pytest.fixture(autouse=True)
def _clean_test(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test sees what an earlier one left in the environment."""
    for name in leaking_names():
        monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Seaweed"]:
    """The S3 server of this session. A test that stops or pauses it need not repair it if it uses `bucket`."""
    from tests.harness.seaweed import Seaweed

    with Seaweed(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def bucket(seaweed: "Seaweed") -> Iterator[str]:
    """The name of a fresh bucket, which goes with the test."""
    seaweed.ensure()
    name = f"test-{uuid.uuid4().hex[:12]}"
    seaweed.s3.make_bucket(name)
    yield name
    seaweed.ensure()
    seaweed.s3.drop_bucket(name)


@pytest.fixture
def proxy(seaweed: "Seaweed") -> Iterator["FaultProxy"]:
    """A proxy in front of the S3 server which passes everything, until the test scripts faults."""
    from tests.harness.proxy import FaultProxy

    with FaultProxy(seaweed.port) as started:
        yield started


@pytest.fixture
def env(seaweed: "Seaweed", tmp_path: Path) -> dict[str, str]:
    """The environment for a child that talks to the S3 server with every right."""
    return clean_environment(tmp_path) | seaweed.environment()


@pytest.fixture(scope="session")
def token_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator["TokenService"]:
    """An S3 server that gives out roles for tokens; its bucket is shared, so tests use prefixes of their own."""
    from tests.harness.token_service import TokenService

    with TokenService(tmp_path_factory.mktemp("roles")) as started:
        yield started


@pytest.fixture(scope="session")
def short_sessions(tmp_path_factory: pytest.TempPathFactory) -> Iterator["TokenService"]:
    """The same, whose sessions end after `SHORT` seconds."""
    from tests.harness.token_service import SHORT, TokenService

    with TokenService(tmp_path_factory.mktemp("short"), longest_session=f"{SHORT}s") as started:
        yield started
