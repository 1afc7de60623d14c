"""`sidecar restore` of a database that was streamed: any instant, a stream's end, and what is said where that is lost."""

import json
import random
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import sidecar
from sidecar.cli.list import list_points, list_streams
from sidecar.cli.restore import restore
from sidecar.cli.verify import verify
from sidecar.errors import DamagedDatabase, DamagedRestorePoint, DamagedSegment, NothingToRestore, UsageError
from sidecar.lease.record import KEY, Record, StreamRecord
from sidecar.model import AtRestorePoint, Commit, Position
from sidecar.repository.format.folding import fold
from sidecar.restore.by_hand import RestoreResult
from sidecar.restore.reached import End
from sidecar.settings.given import configure
from sidecar.storage.base import ObjectStore
from sidecar.storage.file.store import FileStore
from tests.docs.json_fields import documented, fields
from tests.harness.recorded import Recorder, recorded
from tests.harness.streams import Made
from tests.integration.streamed import Streamed, alone, instant
from tests.integration.wiring import NAME

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _locks_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lock files are in the temporary directory."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    """Twenty commits of every kind."""
    with recorded(tmp_path / "live.db") as recorder:
        recorder.wander(random.Random(15), 20)
        yield recorder


@pytest.fixture
def scene(recorder: Recorder, tmp_path: Path) -> Streamed:
    store: ObjectStore = FileStore(tmp_path / "store")
    return Streamed(store, recorder, tmp_path / "machine")


@pytest.fixture
async def session(scene: Streamed, tmp_path: Path) -> AsyncIterator[sidecar.Sidecar]:
    async with sidecar.open(databases=[scene.machine.database.path], store=f"file://{tmp_path}/store") as session:
        yield session


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    return tmp_path / "copy.db"


async def at(session: sidecar.Sidecar, copy: Path, seconds: float) -> RestoreResult:
    return await session.restore(at=instant(seconds), output=copy, force=True)


async def line(scene: Streamed) -> tuple[str, str]:
    """Commits 1 to 10 by one machine, with restore points at 0 and 4, and 11 to 20 by another, with one at 14."""
    point = await scene.point(0, 0.1)
    first, _ = await scene.stream(1, 10, AtRestorePoint(point.key))
    await scene.point(4, 6.7, Position(first, 4))  # published when the snapshot was long over
    second, _ = await scene.stream(11, 20, Position(first, 10), epoch=2)
    await scene.point(14, 14.5, Position(second, 4))
    return first, second


async def test_every_instant_is_restored_exactly(scene: Streamed, session: sidecar.Sidecar, copy: Path) -> None:
    """At each commit, just before it and between two, whichever restore point is the nearest."""
    first, second = await line(scene)
    for commit in range(1, 21):
        for seconds in (commit, commit + 0.4, commit + 0.999):
            result = await at(session, copy, seconds)
            assert scene.holds(copy, commit), seconds
            number = Position(first, commit) if commit <= 10 else Position(second, commit - 10)
            assert result.reached.position == number
            assert result.reached.end is (End.INSTANT if commit < 20 else End.NEWEST)
            assert not result.reached.stopped


async def test_the_newest_state_is_restored_by_default(scene: Streamed, session: sidecar.Sidecar, copy: Path) -> None:
    _, second = await line(scene)
    result = await session.restore(output=copy)
    assert scene.holds(copy, 20)
    assert result.reached.position == Position(second, 10)
    own = await session.restore()
    assert scene.holds(own.path, 20)
    assert own.newer is None


async def test_a_key_is_that_restore_point_alone(scene: Streamed, session: sidecar.Sidecar, copy: Path) -> None:
    await line(scene)
    newest = (await scene.machine.points())[-1]
    result = await session.restore(key=newest.key, output=copy)
    assert scene.holds(copy, 14)
    assert result.reached.commits == 0


async def test_before_the_first_restore_point_the_nearest_is_named(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    await line(scene)
    with pytest.raises(NothingToRestore, match="the first one is app") as refused:
        await at(session, copy, 0)
    assert refused.value.exit_code == 66


async def test_an_instant_after_a_gap_is_refused_and_the_nearest_is_named(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    """Nothing is written in its place; before the gap, and after the next restore point, everything is as it was."""
    first, made = await scene.stream(1, 20, None)
    await scene.point(4, 4.5, Position(first, 4))
    await scene.point(14, 14.5, Position(first, 14))
    await scene.damage(made[8].key)
    with pytest.raises(NothingToRestore, match="the nearest earlier state is commit 8 of stream") as refused:
        await at(session, copy, 9)
    assert refused.value.exit_code == 66
    assert "--at 2026-11-18T12:00:08.000000Z" in refused.value.hint
    assert not copy.exists()
    await at(session, copy, 8.5)
    assert scene.holds(copy, 8)
    await at(session, copy, 16)
    assert scene.holds(copy, 16)
    assert list(copy.parent.glob(".copy*")) == []


async def expire(scene: Streamed, made: list[Made]) -> None:
    """Delete segments as a lifecycle rule does."""
    for each in made:
        (path,) = [file for file in scene_root(scene).rglob("*.zst") if file.name == each.key.rpartition("/")[2]]
        path.unlink()


async def test_an_instant_whose_segments_have_expired_is_refused(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    """Nothing is left of the stream after a restore point: the next one shows that there was more."""
    first, made = await scene.stream(1, 20, None)
    older = await scene.point(4, 4.5, Position(first, 4))
    await scene.point(14, 14.5, Position(first, 14))
    await scene.point(14, 14.7, Position(first, 14))
    await expire(scene, made)
    with pytest.raises(NothingToRestore, match=f"commits 5 to 14 of stream {first} are missing") as refused:
        await at(session, copy, 9)
    assert refused.value.exit_code == 66
    assert f"--key {older.key}" in refused.value.hint
    assert not copy.exists()
    await at(session, copy, 14.6)
    assert scene.holds(copy, 14)


async def test_a_tail_that_was_stored_once_and_has_expired_is_told(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    """The lease says how far the machine had got that was killed and not booted again."""
    first, made = await scene.stream(1, 20, None)
    newest = await scene.point(4, 4.5, Position(first, 4))
    streams = {NAME: StreamRecord(first, None, 20)}
    record = Record(1, "web", "boot", 60.0, latest={NAME: newest.key}, streams=streams)
    await scene.store.put(KEY, record.to_bytes(), metadata=record.to_metadata())
    assert not (await session.restore(output=copy)).reached.stopped
    await expire(scene, made)
    result = await session.restore(output=copy, force=True)
    assert scene.holds(copy, 4)
    assert result.reached.stopped == f"commits 5 to 20 of stream {first} are missing"
    with pytest.raises(NothingToRestore, match="commits 5 to 20"):
        await at(session, copy, 30)


async def test_a_stream_that_expired_is_not_skipped(scene: Streamed, session: sidecar.Sidecar, copy: Path) -> None:
    """The commits of the stream that continues it belong on another state than that of the restore point."""
    first, made = await scene.stream(1, 10, None)
    await scene.point(4, 4.5, Position(first, 4))
    await scene.stream(11, 20, Position(first, 10), epoch=2)
    await expire(scene, made)
    with pytest.raises(NothingToRestore, match=f"commits 5 to 10 of stream {first} are missing"):
        await at(session, copy, 16)
    await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 4)
    assert f"commits 5 to 10 of stream {first} are missing" in "\n".join(
        each.message for each in scene.machine.status.problems
    )


async def test_where_nothing_was_streamed_the_restore_point_before_is_restored(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    await scene.point(4, 4.5)
    await scene.point(8, 8.5)
    result = await at(session, copy, 8)
    assert scene.holds(copy, 4)
    assert result.reached.end is End.NEWEST


async def test_a_time_between_a_cut_and_the_next_restore_point_is_named(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    first, _ = await scene.stream(1, 6, None)
    await scene.point(2, 2.5, Position(first, 2))
    second, _ = await scene.stream(13, 20, None, epoch=1)
    following = await scene.point(12, 12.6, Position(second, 0))
    result = await at(session, copy, 9)
    assert scene.holds(copy, 6)
    assert "commits between 2026-11-18T12:00:06" in result.reached.unknown
    assert following.key in result.reached.unknown
    assert not (await at(session, copy, 5)).reached.unknown
    assert not (await at(session, copy, 20)).reached.unknown


async def test_a_damaged_restore_point_costs_nothing_where_the_stream_has_it(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    await line(scene)
    newest = (await scene.machine.points())[-1]
    await scene.damage(newest.key)
    await session.restore(output=copy)
    assert scene.holds(copy, 20)
    await at(session, copy, 17)
    assert scene.holds(copy, 17)


async def test_a_damaged_restore_point_without_its_stream_is_refused(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    first, _ = await scene.stream(1, 10, None)
    await scene.point(4, 4.5, Position(first, 4))
    newest = await scene.point(14, 14.5, Position(first, 14))
    await scene.damage(newest.key)
    with pytest.raises(DamagedRestorePoint, match=str(newest.timestamp)):
        await session.restore(output=copy)
    assert list(copy.parent.glob("*copy*")) == []


async def test_a_stream_is_restored_to_its_end(scene: Streamed, session: sidecar.Sidecar, copy: Path) -> None:
    """Also one that the main line left: it is entered through what it continues, or a restore point that names it."""
    point = await scene.point(0, 0.1)
    first, _ = await scene.stream(1, 10, AtRestorePoint(point.key))
    await scene.point(4, 4.5, Position(first, 4))
    second, _ = await scene.stream(7, 7, Position(first, 6), began=30.0, epoch=2)
    await scene.point(7, 40.0, Position(second, 1))
    await session.restore(stream=first, output=copy)
    assert scene.holds(copy, 10)
    await session.restore(stream=second, output=copy, force=True)
    assert scene.holds(copy, 7)
    found = {each.stream.name: each for each in (await session.streams())[NAME]}
    assert (found[first].main_line, found[first].left_at, found[first].commits) == (True, 6, 10)
    assert (found[second].main_line, found[second].left_at) == (True, None)


async def test_a_stream_of_a_fenced_machine_is_a_side_line(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    first, second = await line(scene)
    fenced, _ = await scene.stream(11, 12, Position(first, 10), began=10.2, epoch=1)
    found = {each.stream.name: each for each in (await session.streams())[NAME]}
    assert [found[each].main_line for each in (first, second, fenced)] == [True, True, False]
    await session.restore(stream=fenced, output=copy)
    assert scene.holds(copy, 12)


async def test_what_lies_beyond_a_recorded_end_is_a_fenced_machines(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    """Its commits and its restore point are left out of every restore but by key and by stream."""
    first, _ = await scene.stream(1, 10, None)
    newest = await scene.point(4, 4.5, Position(first, 4))
    fenced = await scene.point(8, 8.5, Position(first, 8))
    await scene.record_start(Position(first, 6), newest)
    await session.restore(output=copy)
    assert scene.holds(copy, 6)
    result = await at(session, copy, 9)
    assert scene.holds(copy, 6)
    assert not result.reached.stopped
    await session.restore(stream=first, output=copy, force=True)
    assert scene.holds(copy, 10)
    await session.restore(key=fenced.key, output=copy, force=True)
    assert scene.holds(copy, 8)


async def test_an_earlier_fenced_machines_restore_point_is_left_out_too(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    """The lease has only what the last boot continued: the streams show where the main line left the one before."""
    first, _ = await scene.stream(1, 10, None)
    await scene.point(4, 4.5, Position(first, 4))
    second, _ = await scene.stream(7, 14, Position(first, 6), began=6.5, epoch=2)
    newest = await scene.point(14, 14.5, Position(second, 8))
    await scene.stream(15, 20, Position(second, 8), epoch=3)
    await scene.point(10, 10.5, Position(first, 10))  # appears late
    await scene.record_start(Position(second, 8), newest)
    result = await at(session, copy, 12)
    assert result.reached.position == Position(second, 6)
    assert scene.holds(copy, 12)


async def test_a_late_restore_point_without_a_place_is_left_out_where_a_stream_went_past_it(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    """The fenced machine's stream had ended when it began to publish; the successor went on from the stream."""
    first, _ = await scene.stream(1, 10, None)
    await scene.point(4, 4.5, Position(first, 4))
    second, _ = await scene.stream(11, 20, Position(first, 10), began=10.9, epoch=2)
    fenced = await scene.point(15, 10.5)
    newest = await scene.point(14, 14.5, Position(second, 4), epoch=2)
    assert await sides(session) == [fenced.key]
    result = await at(session, copy, 13)
    assert result.reached.position == Position(second, 3)
    assert scene.holds(copy, 13)
    await scene.damage(newest.key)
    await scene.machine.boot()
    assert scene.holds(scene.machine.database.path, 20)


async def test_a_late_restore_point_is_left_out_where_a_stream_continues_an_older_one(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    """Nothing was streamed before."""
    await scene.point(2, 1.5)
    before = await scene.point(4, 4.5)
    fenced = await scene.point(7, 7.5)
    await scene.stream(5, 10, AtRestorePoint(before.key), began=8, epoch=2)
    assert await sides(session) == [fenced.key]
    await at(session, copy, 9)
    assert scene.holds(copy, 9)


async def test_above_what_the_last_boot_started_from_an_older_epoch_is_left_out(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    """Without any stream, and before that boot has published anything."""
    before = await scene.point(4, 4.5)
    fenced = await scene.point(7, 7.5)
    await scene.record_start(None, before)
    assert await sides(session) == [fenced.key]
    await at(session, copy, 9)
    assert scene.holds(copy, 4)


async def test_a_restore_point_that_could_not_be_located_is_of_the_main_line(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    """A later one of the same stream shows that the successor had it; nothing went past the one that a stream continues."""
    first, _ = await scene.stream(1, 10, None)
    await scene.point(4, 4.5)
    await scene.point(8, 8.5, Position(first, 8))
    await scene.stream(11, 12, Position(first, 10), epoch=2)
    second = await scene.point(12, 12.5, epoch=2)
    await scene.stream(13, 20, AtRestorePoint(second.key), began=12.6, epoch=3)
    assert await sides(session) == []
    await at(session, copy, 15)
    assert scene.holds(copy, 15)


async def test_a_stream_of_the_same_term_goes_past_no_restore_point(scene: Streamed, session: sidecar.Sidecar) -> None:
    first, _ = await scene.stream(1, 10, None)
    await scene.point(9, 9.5)
    await scene.stream(11, 12, Position(first, 10), began=10.7)
    assert await sides(session) == []


async def test_the_line_of_a_restore_point_is_shown(
    scene: Streamed, session: sidecar.Sidecar, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = await scene.point(4, 4.5)
    fenced = await scene.point(7, 7.5)
    await scene.stream(5, 10, AtRestorePoint(before.key), began=8, epoch=2)
    chosen = configure({"databases": str(scene.machine.database.path), "store": f"file://{tmp_path}/store"})
    assert await list_points(chosen, as_json=False, diverged=False) == 0
    shown = {row[-1]: row[-2] for row in map(str.split, capsys.readouterr().out.splitlines()[1:])}
    assert shown == {before.key: "main", fenced.key: "side"}
    await list_points(chosen, as_json=True, diverged=False)
    (found,) = json.loads(capsys.readouterr().out)["databases"]
    assert [each["main_line"] for each in found["restore_points"]] == [True, False]


async def sides(session: sidecar.Sidecar) -> list[str]:
    """The restore points that `list` shows beside the main line."""
    return [each.point.key for each in (await session.list()).restore_points if not each.main_line]


async def test_an_unknown_stream_and_one_that_nothing_leads_into(
    scene: Streamed, session: sidecar.Sidecar, copy: Path
) -> None:
    name, _ = await scene.stream(1, 3, None)
    with pytest.raises(NothingToRestore, match="has no stream nothing"):
        await session.restore(stream="nothing", output=copy)
    with pytest.raises(NothingToRestore, match="no remaining restore point or stream leads to"):
        await session.restore(stream=name, output=copy)
    with pytest.raises(UsageError):
        await session.restore(stream=name, at=instant(1), output=copy)


async def test_a_result_that_is_not_walkable_is_refused(scene: Streamed, session: sidecar.Sidecar, copy: Path) -> None:
    def scrambled(commits: list[Commit]) -> list[list[Commit]]:
        whole = fold(commits)
        broken = {page: b"\xee" * 4096 if page > 1 else image for page, image in whole.images.items()}
        return alone([*commits[:-1], replace(commits[-1], images=broken)])

    first, _ = await scene.stream(1, 10, None, group=scrambled)
    point = await scene.point(4, 4.5, Position(first, 4))
    with pytest.raises(DamagedDatabase, match="not walkable") as refused:
        await session.restore(output=copy)
    assert f"--key {point.key}" in refused.value.hint
    assert list(copy.parent.glob("*copy*")) == []
    await session.restore(key=point.key, output=copy)
    assert scene.holds(copy, 4)


async def test_verification_names_what_is_damaged_or_missing(scene: Streamed, session: sidecar.Sidecar) -> None:
    first, made = await scene.stream(1, 10, None)
    second, others = await scene.stream(11, 20, Position(first, 10), epoch=2)
    await scene.point(4, 4.5, Position(first, 4))
    await scene.point(14, 14.5, Position(second, 4))
    report = await session.verify(all=True)
    assert report.good
    assert [(each.name, each.segments) for each in report.streams] == [(first, 10), (second, 10)]
    await scene.damage(made[2].key)
    (path,) = [each for each in scene_root(scene).rglob("*.zst") if each.name == others[6].key.rpartition("/")[2]]
    path.unlink()
    report = await session.verify(all=True)
    assert all(each.good for each in report.results)
    damaged, holed = report.streams
    assert len(damaged.problems) == 1
    assert made[2].key in damaged.problems[0]
    assert holed.problems == (f"commits 7 to 7 of stream {second} are missing",)
    with pytest.raises(DamagedSegment, match="2 of 2 streams"):
        report.require_good()
    newest = await session.verify()
    assert not newest.good
    assert "only up to commit 6" in newest.results[0].problem


def scene_root(scene: Streamed) -> Path:
    return Path(scene.store.url.removeprefix("file://"))


async def test_the_commands_say_how_far_they_got(
    scene: Streamed, copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = await line(scene)
    configuration = configure({"databases": [scene.machine.database.path], "store": f"file://{tmp_path}/store"})
    nothing = {"key": None, "stream": None, "force": True}
    assert await restore(configuration, at="2026-11-18T12:00:12.5Z", output=str(copy), **nothing) == 0  # type: ignore[arg-type]
    assert (
        f"up to commit 2 of stream {second} (2026-11-18T12:00:12.000000Z), restored to {copy}"
        in capsys.readouterr().out
    )
    assert await restore(configuration, at="2027-01-01T00:00:00Z", output=str(copy), **nothing) == 0  # type: ignore[arg-type]
    assert "newest state" in capsys.readouterr().out
    assert await list_streams(configuration, as_json=False) == 0
    table = capsys.readouterr().out
    assert first in table
    assert "main" in table
    assert await list_streams(configuration, as_json=True) == 0
    (shown,) = json.loads(capsys.readouterr().out)["databases"]
    assert fields(shown["streams"]) - {"key", "stream", "commit"} == documented("list --streams")
    assert [each["name"] for each in shown["streams"]] == [first, second]
    assert shown["streams"][1]["after"] == {"stream": first, "commit": 10}
    assert await verify(configuration, every=True) == 0
    assert f"stream {first} of app.db, 10 segments: good" in capsys.readouterr().out


async def test_the_list_shows_what_is_left_of_a_stream(
    scene: Streamed, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The segments of commits 1 to 5 have expired: not the stream's start is shown, but the first commit that is left."""
    _, made = await scene.stream(1, 20, None)
    await scene.point(10, 10.5)
    configuration = configure({"databases": [scene.machine.database.path], "store": f"file://{tmp_path}/store"})
    assert await list_streams(configuration, as_json=False) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1:5:3] == ["2026-11-18T12:00:00Z", "20"]
    await expire(scene, made[:5])
    assert await list_streams(configuration, as_json=False) == 0
    assert capsys.readouterr().out.splitlines()[1].split()[1:5:3] == ["2026-11-18T12:00:06Z", "6-20"]
    assert await list_streams(configuration, as_json=True) == 0
    ((stream,),) = [each["streams"] for each in json.loads(capsys.readouterr().out)["databases"]]
    assert (stream["start"], stream["first"]) == ("2026-11-18T12:00:00.500000+00:00", 6)
    assert stream["first_at"] == "2026-11-18T12:00:06+00:00"
