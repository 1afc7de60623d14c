"""What `check` finds in stores that are not as they should be, which no real server here is."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sidecar.bootstrap import Services, open_services
from sidecar.cli.check.finding import Finding
from sidecar.cli.check.store import StoreTrial
from sidecar.errors import AccessDenied, ConfigurationError, SidecarError
from sidecar.model import Blob, Bytes, Condition, IfAbsent, IfMatch, ObjectInfo, Span
from sidecar.repository.rights import KEY
from sidecar.settings.load import load
from sidecar.storage.open import parse_location
from tests.fakes import MEMORY, MemoryStore

pytestmark = pytest.mark.anyio

POINT = "app.db/20261120T145503.123Z.sqlite3.zst"


class Forgetful(MemoryStore):
    """Ignores one kind of condition, as some stores do, or returns other bytes than it was given."""

    def __init__(self, ignored: type[IfAbsent | IfMatch] | None = None, *, garbled: bool = False) -> None:
        super().__init__(traits=replace(MEMORY, minimum_part=5 << 20), time=datetime.now(UTC))
        self._ignored = ignored
        self._garbled = garbled

    def write(self, key: str, data: Bytes, condition: Condition, metadata: dict[str, str]) -> ObjectInfo:
        """See `MemoryStore.write`."""
        obeyed = None if self._ignored and isinstance(condition, self._ignored) else condition
        return super().write(key, data, obeyed, metadata)

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """See `base.ObjectStore`."""
        blob = await super().get(key, span=span, if_match=if_match, into=into)
        return replace(blob, data=bytes(reversed(blob.data))) if self._garbled else blob


class Deletes:
    """Implements `base.Probe`."""

    def __init__(self, *, denied: bool) -> None:
        self._denied = denied
        self.done: list[str] = []

    async def delete(self, key: str) -> None:
        """See `base.Probe`."""
        if self._denied:
            raise AccessDenied("no")
        self.done.append(key)


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    settings = {"databases": (str(tmp_path / "app.db"),), "store": f"file://{tmp_path}/store", "interval": "1s"}
    async with open_services(load(settings, {})) as made:
        yield made


async def found(
    services: Services, store: MemoryStore, probe: Deletes | None = None
) -> dict[str, Finding | SidecarError]:
    """How each step ended."""
    outcomes: dict[str, Finding | SidecarError] = {}
    location = parse_location("s3://bucket") if probe else services.location
    for title, attempt in StoreTrial(
        replace(services, store=store, location=location, probe=probe, file_backed=None)
    ).steps():
        try:
            outcomes[title] = await attempt()
        except SidecarError as error:
            outcomes[title] = error
    return outcomes


@pytest.mark.parametrize(("ignored", "name"), [(IfAbsent, "If-None-Match"), (IfMatch, "If-Match")])
@pytest.mark.parametrize("existing", [False, True])
async def test_a_store_that_ignores_conditions_is_refused(
    ignored: type[IfAbsent | IfMatch], name: str, existing: bool, services: Services
) -> None:
    """Two writers would overwrite each other there. Seen at the first check and at every later one."""
    store = Forgetful(ignored)
    if existing:
        store.add(KEY)
    outcome = (await found(services, store))["conditional write"]
    assert isinstance(outcome, ConfigurationError)
    assert name in outcome.message


async def test_a_store_that_returns_other_bytes_is_refused(services: Services) -> None:
    assert isinstance((await found(services, Forgetful(garbled=True)))["read"], ConfigurationError)


async def test_the_copied_part_is_not_kept(services: Services) -> None:
    """From a restore point that is large enough, into an upload that is aborted; nothing else is written."""
    store = Forgetful()
    store.add(POINT, bytes((5 << 20) + 1))
    outcome = (await found(services, store))["part copy"]
    assert isinstance(outcome, Finding)
    assert (outcome.kind, store.open_uploads) == ("ok", [])
    assert store.count("copy_part") == 1
    assert set(store.objects) == {POINT, KEY}


async def test_a_restore_point_that_is_too_small_is_not_copied_from(services: Services) -> None:
    store = Forgetful()
    store.add(POINT, bytes(5 << 20))
    outcome = (await found(services, store))["part copy"]
    assert isinstance(outcome, Finding)
    assert (outcome.kind, store.count("copy_part")) == ("skipped", 0)


@pytest.mark.parametrize(
    ("minutes", "kind"), [(0, "ok"), (2, "warning"), (-2, "warning"), (20, "AccessDenied"), (-20, "AccessDenied")]
)
async def test_a_wrong_clock_is_noticed(minutes: int, kind: str, services: Services) -> None:
    """S3 refuses requests beyond 15 minutes."""
    store = Forgetful()
    store.time += timedelta(minutes=minutes)
    outcome = (await found(services, store, Deletes(denied=True)))["clock"]
    assert (outcome.kind if isinstance(outcome, Finding) else type(outcome).__name__) == kind
    if minutes:
        assert ("behind" if minutes > 0 else "ahead of") in str(outcome)


async def test_deletes_should_be_refused(services: Services) -> None:
    """Allowed, that is a warning; and only what check wrote itself is tried."""
    outcomes = await found(services, Forgetful(), Deletes(denied=True))
    assert outcomes["no deletes"] == Finding("refused, as it should be")
    outcomes = await found(services, Forgetful(), probe := Deletes(denied=False))
    deleting = outcomes["no deletes"]
    assert isinstance(deleting, Finding)
    assert (deleting.kind, probe.done) == ("warning", [KEY])


async def test_a_tag_that_is_denied_fails(services: Services) -> None:
    """Without it nothing would ever expire."""
    store = Forgetful()
    store.fail("tag", AccessDenied("no"))
    assert isinstance((await found(services, store))["tag"], AccessDenied)
