"""A drill also proves the stream between the last two restore points: what it lacks is found although nothing is damaged."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import anyio
import pytest

from sidecar.database.wal import CutCause
from sidecar.model import AtRestorePoint, Commit, Position
from sidecar.repository.drill_tag import DrillOutcome, drilled_of
from sidecar.repository.format.folding import fold
from sidecar.restore import proof
from sidecar.restore.stream_proof import leading_to
from sidecar.status.problems import Kind
from sidecar.storage.base import ObjectStore
from sidecar.storage.file.layout import path_of
from tests.fakes import MemoryStore
from tests.harness.recorded import Recorder, recorded
from tests.harness.sql_process import SqlProcess
from tests.integration.streamed import Streamed, alone
from tests.integration.streaming import Streaming
from tests.unit.test_point_in_time import FIRST, POINT, SECOND, Bucket, leg, line

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _at_full_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "DISK_RATE", 1 << 30)
    monkeypatch.setattr(proof, "MEMORY_RATE", 1 << 30)


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Recorder]:
    """Twelve commits, and a database of more than a chunk."""
    with recorded(tmp_path_factory.mktemp("recorded") / "live.db") as recorder:
        for number in range(12):
            recorder.run(f"INSERT INTO notes (content) VALUES (randomblob({number * 60000}))")
        yield recorder


@pytest.fixture
async def scene(store: ObjectStore, recorder: Recorder, tmp_path: Path) -> Streamed:
    return Streamed(store, recorder, tmp_path / "machine")


async def drilled(scene: Streamed) -> DrillOutcome | None:
    """A drill on a machine that has booted, whose database is what the store has."""
    await scene.machine.boot()
    return await scene.machine.drill().drill()


def told(scene: Streamed) -> str:
    return "\n".join(each.message for each in scene.machine.status.problems if each.kind is Kind.DRILL)


async def test_a_stream_that_leads_from_one_to_the_next_is_good(scene: Streamed) -> None:
    """Also where it goes over to another machine's stream in between, and a restore point is within a segment."""
    point = await scene.point(0, 0.1)
    first, _ = await scene.stream(1, 8, AtRestorePoint(point.key))
    await scene.point(4, 4.5, Position(first, 4))
    second, _ = await scene.stream(9, 12, Position(first, 8), epoch=2, group=lambda commits: [commits])
    await scene.point(10, 10.5, Position(second, 2))
    assert await drilled(scene) is DrillOutcome.GOOD
    assert told(scene) == ""


async def test_a_commit_that_nobody_captured_is_found(scene: Streamed) -> None:
    """Every segment is whole and follows the one before it; a page of one commit is an older one. The restore point is good.

    It is told, another restore point is published at once, and the next drill has nothing to complain about.
    """

    def lossy(commits: list[Commit]) -> list[list[Commit]]:
        images = {page: image for page, image in commits[5].images.items() if page != max(commits[5].images)}
        return alone([*commits[:5], replace(commits[5], images=images), *commits[6:]])

    first, _ = await scene.stream(1, 12, None, group=lossy)
    await scene.point(4, 4.5, Position(first, 4))
    newest = await scene.point(8, 8.5, Position(first, 8))
    assert await drilled(scene) is DrillOutcome.DAMAGED
    assert "does not lead from" in told(scene)
    assert "differs between byte" in told(scene)
    points = await scene.machine.points()
    assert [each.key for each in points][-2] == newest.key
    assert len(points) == 3, "another one at once"
    assert drilled_of(await scene.store.tags(newest.key)) is None, "the restore point itself is good"
    assert await scene.machine.drill().drill() is DrillOutcome.GOOD


async def test_a_gap_between_two_restore_points_is_found(scene: Streamed) -> None:
    """A boot does not need what is before the newest restore point, so nobody else would notice."""
    first, made = await scene.stream(1, 12, None)
    await scene.point(4, 4.5, Position(first, 4))
    await scene.point(8, 8.5, Position(first, 8))
    await scene.damage(made[5].key)
    assert await drilled(scene) is DrillOutcome.DAMAGED
    assert made[5].key in told(scene)


async def test_streams_of_two_histories_are_not_compared(scene: Streamed) -> None:
    """After a cut the next stream is entered through its restore point, and nothing leads there."""
    first, _ = await scene.stream(1, 6, None)
    await scene.point(4, 4.5, Position(first, 4))
    second, _ = await scene.stream(8, 12, None, epoch=1)
    await scene.point(9, 9.5, Position(second, 2))
    assert await drilled(scene) is DrillOutcome.GOOD


async def test_a_restore_point_within_folded_commits_is_not_compared(scene: Streamed) -> None:
    first, _ = await scene.stream(
        1, 12, None, group=lambda commits: alone([*commits[:5], fold(commits[5:10]), *commits[10:]])
    )
    await scene.point(4, 4.5, Position(first, 4))
    await scene.point(8, 8.5, Position(first, 8))
    assert await drilled(scene) is DrillOutcome.GOOD


@pytest.mark.parametrize("store", ["file"], indirect=True)
async def test_segments_that_may_have_expired_are_not_missed(
    scene: Streamed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    first, made = await scene.stream(1, 12, None)
    await scene.point(4, 4.5, Position(first, 4))
    await scene.point(8, 8.5, Position(first, 8))
    monkeypatch.setattr("sidecar.restore.stream_proof.EARLY", timedelta(days=36500))
    for each in made[4:6]:
        (tmp_path / "store" / path_of(each.key)).unlink()
    assert await drilled(scene) is DrillOutcome.GOOD
    monkeypatch.setattr("sidecar.restore.stream_proof.EARLY", timedelta(days=1))
    assert await scene.machine.drill().drill() is DrillOutcome.DAMAGED
    assert "commits 5 to 6" in told(scene)


async def test_a_distrusted_stream_is_cut(tmp_path: Path) -> None:
    """And what it has counts for nothing from that moment on."""
    path = tmp_path / "app.db"
    with SqlProcess(path) as app:
        app.run("CREATE TABLE t(a)")
        streaming = Streaming(MemoryStore(), path)
        stream, status = streaming.stream, streaming.status
        async with streaming.capture.running(), anyio.create_task_group() as group:
            group.start_soon(stream.run, lambda _reason: None, lambda _at: None)
            await until(lambda: status.active)
            app.run("INSERT INTO t VALUES (1)")
            await until(lambda: status.segments > 0)
            stream.entered(Position(str(status.name), 0))
            protected = [status.protects]
            stream.distrust("a page is missing")
            assert [*protected, status.protects] == [True, False]
            await until(lambda: not status.active)
            assert status.cuts == {CutCause.DAMAGED: 1}
            group.cancel_scope.cancel()


async def until(reached: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not reached():
            await anyio.sleep(0.01)


def test_a_history_is_followed_up_to_a_position() -> None:
    bucket = Bucket()
    commits = [Commit(number, number, 1, {1: bytes(512)}) for number in range(1, 9)]
    first = bucket.stream(FIRST, alone(commits), 512)
    second = bucket.stream(SECOND, alone(commits[:4]), 512, Position(FIRST, 6))
    history = line(leg(first, 2, 6), leg(second))
    part = leading_to(history, Position(FIRST, 5))
    assert part
    assert (part.end, [each.last for each in part.segments]) == (Position(FIRST, 5), [3, 4, 5])
    part = leading_to(history, Position(SECOND, 0))
    assert part
    assert part.end == Position(FIRST, 6)
    assert leading_to(history, Position(FIRST, 7)) is None
    assert leading_to(history, Position("another", 1)) is None
    assert history.start == POINT
