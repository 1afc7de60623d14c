"""The stores under contract: each kind is opened once per module, each test has a folder of keys to itself."""

import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from sidecar.host.clock import SystemClock
from sidecar.status.model import Status
from sidecar.storage.base import ObjectStore
from sidecar.storage.file.root import PRIVATE
from sidecar.storage.file.store import FileStore
from sidecar.storage.metering import Metered
from sidecar.storage.retry import Retrying, RetryPolicy
from sidecar.storage.s3.client import S3Location
from sidecar.storage.s3.store import S3Store
from tests.contract.requests import DATA, KEY, use
from tests.fakes import MemoryStore
from tests.harness.proxy import FaultProxy
from tests.harness.s3client import REGION
from tests.harness.seaweed import ADMIN, Seaweed

PREFIX = "some prefix/déjà+vu"
_S3 = pytest.mark.s3
KINDS = [
    pytest.param("memory"),
    pytest.param("file"),
    pytest.param("s3", marks=_S3),
    pytest.param("s3-prefix", marks=_S3),
    pytest.param("s3-decorated", marks=_S3),
]


@dataclass(frozen=True, slots=True)
class Subject:
    """A store, and what lies in it half done: temporary files or open multipart uploads."""

    store: ObjectStore
    unfinished: Callable[[], list[str]]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    """One event loop for a module, because its stores live as long."""
    return "asyncio"


@pytest.fixture(scope="module", params=KINDS)
async def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    """Every kind of store, one after the other."""
    kind: str = request.param
    async with AsyncExitStack() as stack:
        if kind == "memory":
            memory = MemoryStore(time=datetime.now(UTC))
            yield Subject(memory, lambda: memory.open_uploads)
        elif kind == "file":
            root = tmp_path_factory.mktemp("store")
            yield Subject(FileStore(root), lambda: sorted(map(str, (root / PRIVATE / "incoming").glob("*"))))
        else:
            yield await _s3(kind, request.getfixturevalue("seaweed"), stack)


@pytest.fixture
def store(subject: Subject) -> ObjectStore:
    """The store under test."""
    return subject.store


@pytest.fixture
def folder() -> str:
    """The prefix of this test's keys, with its slash."""
    return f"{uuid.uuid4().hex[:12]}/"


async def _s3(kind: str, seaweed: Seaweed, stack: AsyncExitStack) -> Subject:
    bucket = f"contract-{uuid.uuid4().hex[:12]}"
    seaweed.ensure()
    seaweed.s3.make_bucket(bucket)
    stack.callback(lambda: seaweed.s3.drop_bucket(bucket))
    location = S3Location(bucket, PREFIX if kind == "s3-prefix" else "", seaweed.endpoint, REGION)
    store: ObjectStore = await open_s3(location, seaweed.environment(), stack)
    if kind == "s3-decorated":
        clock = SystemClock()
        status = Status((), store.url, "0", clock.now)
        store = Retrying(Metered(store, clock, status), clock, RetryPolicy(give_up_after=10.0, first=0.05))
    return Subject(store, lambda: seaweed.s3.open_uploads(bucket))


async def open_s3(location: S3Location, environment: dict[str, str], stack: AsyncExitStack) -> S3Store:
    """An S3 store whose client is made now, with the credentials of this environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        store = await stack.enter_async_context(S3Store(location, connections=30))
        await store.now()
    return store


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    """Closes what a test opened."""
    async with AsyncExitStack() as opened:
        yield opened


@pytest.fixture
async def through(proxy: FaultProxy, bucket: str, stack: AsyncExitStack, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store behind the proxy, its connection open."""
    use(monkeypatch, ADMIN)
    store = await stack.enter_async_context(S3Store(S3Location(bucket, "", proxy.endpoint, REGION)))
    await store.put(KEY, DATA)
    return store
