"""A boot restores the newest restore point and its stream's tail: damage costs what follows it, and is told."""

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from sidecar.errors import DamagedRestorePoint, NoRoom, UnsupportedRestorePoint, UnsupportedSegment
from sidecar.host.files import kept_aside
from sidecar.lease.record import KEY, Record, StreamRecord
from sidecar.model import AtRestorePoint, Commit, IfAbsent, IfMatch, Position
from sidecar.policies import OnConflict, OnEmptyStore
from sidecar.repository.drill_tag import DRILL_TAG
from sidecar.repository.keys import StreamName
from sidecar.restore.preview import preview
from sidecar.restore.survey import Survey
from sidecar.status.problems import Kind
from sidecar.storage.base import ObjectStore
from tests.harness.recorded import Recorder, recorded
from tests.harness.streams import StreamMaker, fill
from tests.integration.streamed import Streamed, alone, comparable, instant, last
from tests.integration.wiring import NAME

pytestmark = pytest.mark.anyio


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Twelve commits."""
    with recorded(tmp_path / "live.db") as recorder:
        for number in range(12):
            recorder.run(f"INSERT INTO notes (content) VALUES (randomblob({number * 900}))")
        yield recorder


@pytest.fixture
async def scene(store: ObjectStore, recorder: Recorder, tmp_path: Path) -> Streamed:
    return Streamed(store, recorder, tmp_path / "machine")


def kinds(scene: Streamed) -> list[Kind]:
    return [each.kind for each in scene.machine.status.problems if each.kind is not Kind.NOTICE]


def messages(scene: Streamed) -> str:
    return "\n".join(each.message for each in scene.machine.status.problems)


async def test_a_boot_restores_the_newest_restore_point_and_the_tail(scene: Streamed) -> None:
    """Its own stream from its commit on, then the stream of a machine that went on from there."""
    point = await scene.point(0, 0.1)
    first, _ = await scene.stream(1, 8, AtRestorePoint(point.key))
    newest = await scene.point(4, 4.5, Position(first, 4))
    second, _ = await scene.stream(9, 12, Position(first, 8), epoch=2)
    booted = await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 12)
    assert booted.restored
    assert booted.restored.point.key == newest.key
    assert booted.reached
    assert (booted.reached.position, booted.reached.commits) == (Position(second, 4), 8)
    assert (booted.outcome, kinds(scene)) == ("restored", [])
    assert booted.publish, "what stat says of a restored file must not hide the tail from the next cycle"
    assert (await scene.machine.backup.cycle.run()) == "published", "the tail is in no restore point"
    assert (await scene.machine.backup.cycle.run()) == "unchanged"


async def test_a_boot_without_a_stream_is_as_before(scene: Streamed) -> None:
    await scene.point(12, 12.5)
    booted = await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 12)
    assert booted.outcome == "restored"
    assert (await scene.machine.backup.cycle.run()) == "unchanged"


async def test_a_damaged_segment_costs_what_follows_it_and_not_the_restore_point(scene: Streamed) -> None:
    await scene.point(0, 0.1)
    first, made = await scene.stream(1, 12, None)
    newest = await scene.point(4, 4.5, Position(first, 4))
    await scene.damage(made[7].key)
    booted = await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 7)
    assert booted.restored
    assert booted.restored.point.key == newest.key
    assert booted.at_once
    assert kinds(scene) == [Kind.DAMAGED]
    assert "commit 7" in messages(scene)
    assert made[7].key in messages(scene)


async def test_a_damaged_restore_point_costs_nothing_where_the_stream_reaches_further(scene: Streamed) -> None:
    first, _ = await scene.stream(1, 12, None)
    older = await scene.point(2, 2.5, Position(first, 2))
    newest = await scene.point(8, 8.5, Position(first, 8))
    await scene.damage(newest.key)
    booted = await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 12)
    assert booted.outcome == "fell_back"
    assert booted.restored
    assert booted.restored.point.key == older.key
    assert "nothing is missing" in messages(scene)


async def test_a_damaged_restore_point_is_not_replaced_by_one_that_the_main_line_left_behind(scene: Streamed) -> None:
    first, _ = await scene.stream(1, 10, None)
    older = await scene.point(4, 4.5, Position(first, 4))
    await scene.point(8, 8.5, Position(first, 8))  # of a machine that was fenced when the next one had gone on from 6
    second, _ = await scene.stream(7, 12, Position(first, 6), began=6.5, epoch=2)
    newest = await scene.point(9, 9.5, Position(second, 3))
    await scene.damage(newest.key)
    await scene.record_start(Position(second, 3), newest)
    booted = await scene.machine.boot()
    assert booted.restored
    assert booted.restored.point.key == older.key
    assert booted.reached
    assert booted.reached.position == Position(second, 3)


async def test_a_damaged_restore_point_whose_stream_ends_before_it_costs_something(scene: Streamed) -> None:
    first, _ = await scene.stream(1, 6, None)
    await scene.point(2, 2.5, Position(first, 2))
    second, _ = await scene.stream(9, 12, None, epoch=1)
    newest = await scene.point(8, 8.5, Position(second, 0))
    await scene.damage(newest.key)
    await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 6)
    assert "is missing from the database" in messages(scene)


async def test_a_tail_that_makes_no_walkable_database_is_kept_aside(scene: Streamed) -> None:
    """The app starts on the restore point alone, red, and what it was is under the database's directory."""

    def scrambled(commits: list[Commit]) -> list[list[Commit]]:
        broken = {page: b"\xee" * 4096 if page > 1 else image for page, image in commits[-1].images.items()}
        return alone([*commits[:-1], replace(commits[-1], images=broken)])

    first, _ = await scene.stream(1, 12, None, group=scrambled)
    newest = await scene.point(4, 4.5, Position(first, 4))
    booted = await scene.machine.boot()
    path = scene.machine.database.path
    assert comparable(path.read_bytes()) == comparable(scene.recorder.states[4])
    ((kept, _at),) = kept_aside(path, "diverged")
    assert kept.stat().st_size == len(scene.recorder.states[12])
    assert booted.at_once
    assert booted.reached
    assert booted.reached.position == Position(first, 4)
    assert kinds(scene) == [Kind.DAMAGED]
    assert str(kept) in "".join(each.hint for each in scene.machine.status.problems)
    assert booted.restored
    assert booted.restored.point.key == newest.key


async def test_a_tail_that_there_is_no_room_to_keep_does_not_end_the_boot(
    scene: Streamed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store still has the segments."""

    def scrambled(commits: list[Commit]) -> list[list[Commit]]:
        broken = {page: b"\xee" * 4096 if page > 1 else image for page, image in commits[-1].images.items()}
        return alone([*commits[:-1], replace(commits[-1], images=broken)])

    path = scene.machine.database.path

    def room_for_one(_target: Path, _size: int) -> None:
        if kept_aside(path, "diverged"):
            raise NoRoom("the disk is full")

    monkeypatch.setattr("sidecar.repository.reader.require_room", room_for_one)
    first, _ = await scene.stream(1, 12, None, group=scrambled)
    await scene.point(4, 4.5, Position(first, 4))
    await scene.machine.boot()
    assert scene.holds(path, 4)
    assert (kept_aside(path, "diverged"), kinds(scene)) == ([], [Kind.DAMAGED])


async def test_a_kept_database_whose_stream_is_damaged_in_the_store_is_told(scene: Streamed) -> None:
    first, _ = await scene.stream(1, 8, None)
    await scene.point(4, 4.5, Position(first, 4))
    await scene.machine.boot()
    assert kinds(scene) == []
    without_9 = StreamMaker(StreamName.of(first), NAME, None, scene.recorder.page_size, commits=9, prev="?")
    await fill(scene.store, iter([without_9.segment()]))
    booted = await scene.machine.boot()
    assert (booted.outcome, kinds(scene)) == ("kept_local", [Kind.DAMAGED])
    assert "commits 9 to 9" in messages(scene)
    assert booted.publish


async def test_a_first_page_of_another_size_is_kept_aside_too(scene: Streamed) -> None:
    def grown(commits: list[Commit]) -> list[list[Commit]]:
        return alone([*commits[:-1], replace(commits[-1], pages=commits[-1].pages + 1)])

    first, _ = await scene.stream(1, 12, None, group=grown)
    await scene.point(4, 4.5, Position(first, 4))
    await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 4)
    assert len(kept_aside(scene.machine.database.path, "diverged")) == 1
    assert kinds(scene) == [Kind.DAMAGED]


async def test_a_segment_of_a_newer_version_stops_the_boot(scene: Streamed) -> None:
    """78, and nothing in the database's place: a newer version went on from there."""
    first, made = await scene.stream(1, 6, None)
    await scene.point(4, 4.5, Position(first, 4))
    await scene.store.put(last(made).replace(".zst", ".zst2"), b"x", condition=IfAbsent())
    with pytest.raises(UnsupportedSegment) as refused:
        await scene.machine.boot()
    assert refused.value.exit_code == 78
    assert list(scene.machine.database.path.parent.iterdir()) == []


async def test_a_restore_point_of_a_newer_version_stops_the_boot(scene: Streamed) -> None:
    """78: it is not damaged, so no older one takes its place, whatever the stream would bring."""
    first, _ = await scene.stream(1, 6, None)
    await scene.point(2, 2.5, Position(first, 2))
    newest = await scene.point(4, 4.5, Position(first, 4))
    blob = await scene.store.get(newest.key)
    data = of_format_9(bytes(blob.data))
    await scene.store.put(newest.key, data, condition=IfMatch(blob.info.etag), metadata=blob.info.metadata)
    with pytest.raises(UnsupportedRestorePoint, match="format version 9") as refused:
        await scene.machine.boot()
    assert refused.value.exit_code == 78
    assert list(scene.machine.database.path.parent.iterdir()) == []


def of_format_9(data: bytes) -> bytes:
    """A restore point as a later version may write it: its index says so, under a checksum that is right."""
    changed = data.replace(b'"format":1', b'"format":9')
    start = changed.rindex(b"{", 0, changed.index(b'"format":9'))
    end = start + int.from_bytes(changed[start - 4 : start], "little") - 32
    return changed[:end] + hashlib.sha256(changed[start:end]).digest() + changed[end + 32 :]


async def test_a_side_line_is_told_and_not_restored(scene: Streamed) -> None:
    first, _ = await scene.stream(1, 8, None)
    await scene.point(4, 4.5, Position(first, 4))
    second, _ = await scene.stream(7, 7, Position(first, 6), began=20.0, epoch=2)
    booted = await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 7)
    assert booted.reached
    assert booted.reached.position == Position(second, 1)
    assert kinds(scene) == [Kind.DIVERGENCE]
    assert f"--stream {first}" in "".join(each.hint for each in scene.machine.status.problems)


async def test_streams_of_two_machines_without_a_lease_are_never_merged(scene: Streamed) -> None:
    """Both went on from one restore point. The later start is the history, the other one is told, and stays restorable."""
    point = await scene.point(2, 2.5)
    one, _ = await scene.stream(3, 6, AtRestorePoint(point.key), began=3.0)
    other, _ = await scene.stream(3, 9, AtRestorePoint(point.key), began=3.2)
    booted = await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 9)
    assert booted.reached
    assert booted.reached.position == Position(other, 7)
    assert kinds(scene) == [Kind.DIVERGENCE]
    assert f"--stream {one}" in "".join(each.hint for each in scene.machine.status.problems)


async def test_a_restore_point_of_one_machine_does_not_lead_into_the_stream_of_another(scene: Streamed) -> None:
    """Without a lease, again: the newest restore point names one stream, and the later one continues an older one."""
    point = await scene.point(2, 2.5)
    one, _ = await scene.stream(3, 6, AtRestorePoint(point.key), began=3.0)
    other, _ = await scene.stream(3, 9, AtRestorePoint(point.key), began=3.2)
    await scene.point(4, 4.5, Position(one, 2))
    booted = await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 6)
    assert booted.reached
    assert booted.reached.position == Position(one, 4)
    assert f"--stream {other}" in "".join(each.hint for each in scene.machine.status.problems)


async def test_the_preview_of_a_boot_tells_how_far_the_stream_reaches(scene: Streamed) -> None:
    first, _ = await scene.stream(1, 12, None)
    newest = await scene.point(4, 4.5, Position(first, 4))
    machine = scene.machine
    survey = Survey(machine.catalog, machine.snapshotter, OnEmptyStore.START, OnConflict.REMOTE)
    told = await preview(survey, machine.reader, machine.forward(), machine.database, machine.lineage)
    assert f"{newest.key} of" in told.text
    assert f"commit 12 of {first}" in told.text
    assert not told.warning


async def test_a_drill_proves_the_tail(scene: Streamed) -> None:
    """What is damaged in the stream is told, and a restore point is published; the restore point itself stays good."""
    first, made = await scene.stream(1, 12, None)
    newest = await scene.point(4, 4.5, Position(first, 4))
    await scene.machine.boot()
    assert await scene.machine.drill().drill() == "good"
    await scene.damage(made[9].key)
    assert await scene.machine.drill().drill() == "damaged"
    tags = await scene.store.tags(newest.key)
    assert tags[DRILL_TAG].startswith("good@")
    assert len(await scene.machine.points()) == 2


async def test_no_restore_point_is_good_without_one_although_the_stream_is(scene: Streamed) -> None:
    first, _ = await scene.stream(1, 12, None)
    newest = await scene.point(4, 4.5, Position(first, 4))
    await scene.damage(newest.key)
    with pytest.raises(DamagedRestorePoint):
        await scene.machine.boot()
    assert not scene.machine.database.path.exists()


@pytest.mark.parametrize(("recorded", "told"), [(12, False), (15, True)])
async def test_a_tail_that_was_stored_once_and_is_gone_is_told(scene: Streamed, recorded: int, told: bool) -> None:
    """The lease remembers the last commit that was stored: a boot that finds less says so."""
    first, _ = await scene.stream(1, 12, None)
    await scene.point(4, 4.5, Position(first, 4))
    at = round(instant(recorded).timestamp() * 1e6)
    record = Record(1, "gone", "boot", 60.0, released=True, streams={NAME: StreamRecord(first, None, recorded, at)})
    await scene.store.put(KEY, record.to_bytes(), metadata=record.to_metadata())
    await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 12)
    assert kinds(scene) == ([Kind.DAMAGED] if told else [])
    assert ("the store once had commit 15" in messages(scene)) is told


async def test_a_local_database_gives_way_to_a_stream_that_another_machine_went_on_with(scene: Streamed) -> None:
    """It descends from the newest restore point, which is good: what the other machine streamed is the main line."""
    machine, path = scene.machine, scene.machine.database.path
    point = await scene.point(4, 4.5)
    path.write_bytes(scene.recorder.states[4])
    machine.lineage.descends(point.key, "root")
    await scene.stream(5, 12, AtRestorePoint(point.key), epoch=2)
    booted = await machine.boot()
    assert booted.outcome == "restored"
    assert scene.holds(path, 12)
    ((kept, _at),) = kept_aside(path, "diverged")
    assert scene.holds(kept, 4)
    assert kinds(scene) == [Kind.DIVERGENCE]


async def test_it_gives_way_also_when_the_newest_restore_point_is_damaged(scene: Streamed) -> None:
    """An older one and its stream reach as far, so nothing of the other machine's is missing."""
    machine, path = scene.machine, scene.machine.database.path
    older = await scene.point(2, 2.5)
    first, _ = await scene.stream(3, 8, AtRestorePoint(older.key), began=2.6)
    newest = await scene.point(6, 6.5, Position(first, 4))
    path.write_bytes(scene.recorder.states[6])
    machine.lineage.descends(newest.key, "root")
    await scene.stream(9, 12, Position(first, 6), epoch=2)
    await scene.damage(newest.key)
    booted = await machine.boot()
    assert booted.outcome == "fell_back"
    assert scene.holds(path, 12)
    assert len(kept_aside(path, "diverged")) == 1
