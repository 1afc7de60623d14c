"""A machine whose term ends while it publishes: what it published then is no restore point of anybody's history."""

from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.backup.diverged import FencedState
from sidecar.errors import LeaseLost
from sidecar.model import Bytes, ObjectInfo
from tests.fakes import MemoryStore
from tests.integration.wiring import NAME, Machine, write

pytestmark = pytest.mark.anyio

TTL = timedelta(seconds=60)


class Suspended(MemoryStore):
    """A store, and a machine that is suspended for two terms in the middle of its next publish."""

    async def put(self, key: str, data: Bytes, **options: object) -> ObjectInfo:
        """See `base.ObjectStore`."""
        if key.startswith(NAME) and self.other:
            other, self.other = self.other, None
            self.time += 2 * TTL
            await hold(other)
        return await super().put(key, data, **options)  # type: ignore[arg-type]

    other: Machine | None = None


async def hold(machine: Machine) -> str:
    """What `run` does before the app starts."""
    assert machine.lease
    await machine.lease.acquire(timedelta(0))
    booted = await machine.boot()
    await machine.lease.record_start({NAME: booted.newest.key} if booted.newest else {})
    return booted.outcome


async def test_what_is_published_after_the_term_is_kept_under_diverged_too(tmp_path: Path) -> None:
    """Although the app wrote nothing more, and the store accepted the restore point: nobody will ever start with it."""
    store = Suspended()

    def machine(name: str) -> Machine:
        (tmp_path / name).mkdir()
        return Machine(store, tmp_path / name / NAME, staging=tmp_path, holder=name, ttl=TTL)

    one, other = machine("one"), machine("other")
    write(one.database.path, 3)
    await hold(one)
    assert await one.backup.cycle.run() == "published"
    first = await one.newest()
    write(one.database.path, 3)
    store.other = other
    with pytest.raises(LeaseLost):
        await one.backup.cycle.run()
    assert next(point.key for point in await other.points()) == (await other.newest()).key == first.key
    assert len(await other.points()) == 2
    assert one.backup.cycle.source.changed()
    assert await FencedState(one.backup.cycle, one.diverged_line, one.status).publish()
    assert [key for key in store.objects if key.startswith("diverged/")]
