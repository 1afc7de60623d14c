"""A store that lists late, or answers with the body of another object: it is noticed, and what is good is found."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.backup.diverged import Diverged
from sidecar.errors import StoreUnavailable
from sidecar.model import Blob, Bytes, Condition, ObjectInfo, Page, Span, Timestamp
from sidecar.status.health import Level, overall
from sidecar.storage.base import ObjectStore
from sidecar.storage.decorator import Decorated
from tests.harness.writers import check_ledger, fill, open_database
from tests.integration.wiring import NAME, Machine, write

pytestmark = pytest.mark.anyio


class Liar(Decorated):
    """Passes everything to a real store, but for the keys in `unlisted` and `swapped`."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.unlisted: set[str] = set()
        self.swapped: dict[str, str] = {}
        self.ranges_too = True
        self.keeps = 1.0

    async def put(
        self,
        key: str,
        data: Bytes,
        *,
        condition: Condition = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Of a restore point only as much as it `keeps`, and the answer of one who has all of it."""
        if not key.endswith(".zst") or self.keeps == 1.0:
            return await self._inner.put(key, data, condition=condition, metadata=metadata, tags=tags)
        if self.keeps:
            part = bytes(data)[: int(len(data) * self.keeps)]
            await self._inner.put(key, part, condition=condition, metadata=metadata, tags=tags)
        return ObjectInfo(key, len(data), '"said"', await self._inner.now(), dict(metadata or {}))

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """Without what is `unlisted`."""
        page = await self._inner.list(prefix, start_after=start_after, limit=limit)
        return replace(page, objects=tuple(each for each in page.objects if each.key not in self.unlisted))

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """The bytes of another object, in the name of this one."""
        other = self.swapped.get(key)
        tail = span is None or span.start < 0
        if other is None or (tail and not self.ranges_too):
            return await self._inner.get(key, span=span, if_match=if_match, into=into)
        right = await self._inner.head(key)
        wrong = await self._inner.get(other, span=span)
        return Blob(wrong.data, replace(right, size=wrong.info.size))

    async def around(self, _operation: str, attempt):  # type: ignore[no-untyped-def]
        return await attempt()


@pytest.fixture
async def liar(store: ObjectStore) -> Liar:
    """A store of each kind that lies when told to."""
    return Liar(store)


def machine_on(store: ObjectStore, directory: Path) -> Machine:
    """A machine with an empty disk."""
    directory.mkdir()
    return Machine(store, directory / NAME, staging=directory, holder="machine")


async def published(machine: Machine) -> list[str]:
    """The keys of two restore points, of 3 and of 6 rows; the lease is given back after them."""
    assert machine.lease
    await machine.lease.acquire(timedelta(0))
    await machine.boot()
    for _ in range(2):
        write(machine.database.path, 3)
        with closing(open_database(machine.database.path)) as connection:  # all is different in the second
            connection.execute("CREATE TABLE IF NOT EXISTS filler (noise BLOB)")
            connection.execute("UPDATE filler SET noise = randomblob(length(noise))")
        assert await machine.backup.cycle.run() == "published"
    await machine.lease.term.release()
    return [point.key for point in await machine.points()]


async def test_restore_point_that_is_not_listed_yet_is_found_by_the_lease(liar: Liar, tmp_path: Path) -> None:
    """The lease object names it: no boot goes back to the one before it, and nothing is stamped below it."""
    _, second = await published(machine_on(liar, tmp_path / "one"))
    liar.unlisted.add(second)
    fresh = machine_on(liar, tmp_path / "fresh")
    newest = (await fresh.boot()).newest
    assert newest is not None
    assert newest.key == second
    assert check_ledger(fresh.database.path) == 6
    assert fresh.lease
    await fresh.lease.acquire(timedelta(0))
    write(fresh.database.path, 3)
    assert await fresh.backup.cycle.run() == "published"
    assert (await fresh.newest()).key > second


@pytest.mark.parametrize("everything", [True, False], ids=["the whole object", "all but the index"])
async def test_body_of_another_object_is_noticed(everything: bool, liar: Liar, tmp_path: Path) -> None:
    """The newest restore point is damaged then, and the boot falls back to the one before it, and says so."""
    machine = machine_on(liar, tmp_path / "one")
    fill(machine.database.path, 4)
    first, second = await published(machine)
    liar.swapped[second], liar.ranges_too = first, everything
    fresh = machine_on(liar, tmp_path / "fresh")
    fresh.reader.part_size = 1 << 20  # several ranges
    assert (await fresh.boot()).outcome == "fell_back"
    assert check_ledger(fresh.database.path) == 3
    assert fresh.status.restores["damaged"] == 1
    assert str((await machine.points())[-1].timestamp) in fresh.status.problems[0].message
    fresh.status.enter("running", ready=True)
    verdict = overall(fresh.status)
    assert (verdict.level, verdict.title) == (Level.ATTENTION, "Protected, but changes were lost")
    assert verdict.reason.startswith(f"restored from {first} of ")
    assert f"because {second} of " in verdict.reason


@pytest.mark.parametrize(("keeps", "words"), [(0.0, "does not have it"), (0.5, "of the")], ids=["nothing", "half"])
async def test_what_the_store_says_it_took_must_be_there(liar: Liar, tmp_path: Path, keeps: float, words: str) -> None:
    """The cycle fails, the database stays unprotected, and the next one publishes the whole of it."""
    machine = machine_on(liar, tmp_path / "machine")
    assert machine.lease
    await machine.lease.acquire(timedelta(0))
    fill(machine.database.path, 0.1)
    liar.keeps = keeps
    with pytest.raises(StoreUnavailable, match=words):
        await machine.backup.cycle.run()
    machine.backup.cycle.source.observe()
    assert machine.status.databases[NAME].unprotected_since is not None
    assert machine.status.databases[NAME].restore_point is None
    liar.keeps = 1.0
    assert await machine.backup.cycle.run() == "published"
    assert (await machine.newest()).size > 0


async def test_half_of_a_diverged_database_is_not_taken_for_all_of_it(liar: Liar, tmp_path: Path) -> None:
    """The first try leaves a part under its key; the next one sees that, and takes another key."""
    machine = machine_on(liar, tmp_path / "machine")
    assert machine.lease
    await machine.lease.acquire(timedelta(0))
    kept = tmp_path / "machine" / f"{NAME}.diverged-20261120T145503.123Z"
    fill(kept, 0.1)
    diverged = Diverged(
        machine.database, kept, Timestamp("20261120T145503.123Z"), machine.diverged_line, machine.status
    )
    liar.keeps = 0.5
    assert not await diverged.publish()
    liar.keeps = 1.0
    assert await diverged.publish()
    points = [point async for point in machine.catalog.points(NAME, diverged=True)]
    assert len(points) == 2
    await machine.reader.contents(points[-1])
    again = Diverged(machine.database, kept, Timestamp("20261120T145503.124Z"), machine.diverged_line, machine.status)
    assert await again.publish(), "a whole one is left as it is"
    assert len([point async for point in machine.catalog.points(NAME, diverged=True)]) == 2
