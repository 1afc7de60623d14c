"""Where the boot table is asked: the facts it gets, what is passed over, and what may be published above the newest."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from sidecar.database.lineage import Lineage
from sidecar.database.snapshot import SqliteSnapshotter
from sidecar.database.staging import Staging
from sidecar.errors import ConfigurationError, DamagedRestorePoint, NothingToRestore, SidecarError, StoreUnavailable
from sidecar.model import Database, RestorePoint, Timestamp
from sidecar.policies import OnConflict, OnEmptyStore
from sidecar.repository.catalog import Catalog
from sidecar.repository.keys import key_of
from sidecar.restore.decision import Decision
from sidecar.restore.survey import Situation, Survey, require_descent
from tests.fakes import MemoryStore

pytestmark = pytest.mark.anyio

NAME = "app.db"


class Scene:
    """A store, and a disk with or without a database and its marker."""

    def __init__(self, directory: Path) -> None:
        self.store = MemoryStore()
        self.database = Database(NAME, directory / NAME)
        self.lineage = Lineage(self.database.path, self.store.url, durable=False)
        self.keys: list[str] = []

    def survey(
        self, on_conflict: OnConflict = OnConflict.REMOTE, on_empty: OnEmptyStore = OnEmptyStore.START
    ) -> Survey:
        snapshotter = SqliteSnapshotter(Staging(self.database.path.parent))
        return Survey(Catalog(self.store), snapshotter, on_empty, on_conflict)

    def publish(self, number: int) -> None:
        key = key_of(NAME, Timestamp(f"20261120T12{number:02d}00.000Z"))
        self.store.add(key, b"content")
        self.keys.append(key)

    def write(self, parent: str | None = None, *, by_hand: bool = False) -> None:
        self.database.path.write_bytes(b"SQLite format 3\0")
        if parent:
            self.lineage.descends(parent, "root", by_hand=by_hand)

    async def look(self, on_conflict: OnConflict = OnConflict.REMOTE) -> Situation:
        return await self.survey(on_conflict).look(self.database, self.lineage)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


async def test_the_table_is_asked_with_what_is_there(scene: Scene) -> None:
    assert (await scene.look()).decision is Decision.START_EMPTY
    scene.write()
    assert (await scene.look()).decision is Decision.PUBLISH_LOCAL
    scene.publish(1)
    assert (await scene.look()).decision is Decision.CONFLICT_REMOTE
    scene.write(scene.keys[0])
    assert (await scene.look()).decision is Decision.KEEP_LOCAL
    scene.database.path.write_bytes(b"")
    found = await scene.look()
    assert (found.decision, found.local, found.marker) == (Decision.RESTORE, False, None)


async def test_a_store_that_does_not_answer_is_not_an_empty_one(scene: Scene) -> None:
    scene.store.fail("list", StoreUnavailable("down"), times=100)
    with pytest.raises(StoreUnavailable):
        await scene.look()


@pytest.mark.parametrize(
    ("on_empty", "on_conflict", "published", "error"),
    [
        (OnEmptyStore.FAIL, OnConflict.REMOTE, False, NothingToRestore),
        (OnEmptyStore.START, OnConflict.FAIL, True, ConfigurationError),
        (OnEmptyStore.START, OnConflict.REMOTE, True, None),
    ],
)
async def test_what_the_policies_refuse_does_not_start(
    on_empty: OnEmptyStore, on_conflict: OnConflict, published: bool, error: type[SidecarError] | None, scene: Scene
) -> None:
    if published:
        scene.publish(1)
        scene.write()
    found = await scene.survey(on_conflict, on_empty).look(scene.database, scene.lineage)
    if error is None:
        found.require_start()
        return
    with pytest.raises(error):
        found.require_start()


async def walk(scene: Scene, damaged: Sequence[int]) -> tuple[RestorePoint, bool, list[str]]:
    """The restore point that is found, whether it was tried, and what was said of those above it."""
    survey, said = scene.survey(), list[str]()

    async def attempt(point: RestorePoint) -> str:
        if scene.keys.index(point.key) in damaged:
            raise DamagedRestorePoint(point.key)
        return "good"

    good = await survey.newest_good(
        await survey.look(scene.database, scene.lineage), attempt, lambda damage: said.append(damage.message)
    )
    return good.point, good.value is not None, said


async def test_damage_is_passed_over_down_to_a_good_one(scene: Scene) -> None:
    for number in range(4):
        scene.publish(number)
    point, tried, said = await walk(scene, damaged=[3, 2])
    assert (point.key, tried, said) == (scene.keys[1], True, [scene.keys[3], scene.keys[2]])
    with pytest.raises(DamagedRestorePoint, match=f"the newest: {scene.keys[3]}"):
        await walk(scene, damaged=[3, 2, 1, 0])


async def test_nothing_older_replaces_a_database_that_descends_from_it(scene: Scene) -> None:
    """The local database is newer than the restore point that would be restored."""
    for number in range(3):
        scene.publish(number)
    scene.write(scene.keys[1])
    point, tried, said = await walk(scene, damaged=[2, 1])
    assert (point.key, tried, said) == (scene.keys[1], False, [scene.keys[2]])


@pytest.mark.parametrize(
    ("parent", "by_hand", "on_conflict", "refused"),
    [
        (1, False, OnConflict.REMOTE, False),
        (0, False, OnConflict.REMOTE, True),
        (0, False, OnConflict.FAIL, True),
        (0, False, OnConflict.LOCAL, False),
        (0, True, OnConflict.REMOTE, False),
        (None, False, OnConflict.REMOTE, True),
    ],
)
async def test_only_a_descendant_or_a_choice_goes_above_the_newest(
    parent: int | None, by_hand: bool, on_conflict: OnConflict, refused: bool, scene: Scene
) -> None:
    for number in range(2):
        scene.publish(number)
    scene.write(None if parent is None else scene.keys[parent], by_hand=by_hand)
    found = await scene.look(on_conflict=on_conflict)
    if refused:
        with pytest.raises(ConfigurationError, match="not published above it"):
            require_descent(found)
    else:
        require_descent(found)
