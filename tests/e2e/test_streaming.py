"""Streaming, end to end: machines that are killed, cut off, suspended and replaced, with an hour between restore points.

So whatever survives a kill was in the stream. What must survive is learnt from the daemon, not from a clock: a segment that
was begun after a row had been acknowledged has that row, and the second one from now on was begun after now.
"""

import json
import os
import shutil
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import pytest

from tests.e2e.fleet import Fleet, Member, freeze, thaw
from tests.e2e.guestbook import Load, ask, entries, port_of, serve
from tests.e2e.machine import NAME, Machine
from tests.harness.eventually import eventually
from tests.harness.history import DAMAGED, history
from tests.harness.sidecar_process import SidecarProcess

if TYPE_CHECKING:
    from tests.harness.proxy import FaultProxy
    from tests.harness.seaweed import Seaweed

pytestmark = pytest.mark.s3

STREAM: dict[str, Any] = {"stream": "on", "interval": "1h", "stream_interval": "200ms"}


def status_of(process: SidecarProcess) -> dict[str, Any]:
    """What /status says of the stream of the one database."""
    status, text = process.http("/status")
    assert status == 200, text
    found: dict[str, Any] = json.loads(text)["databases"][0]["stream"]
    return found


def wait_streamed(process: SidecarProcess) -> None:
    """Under load: return when the store has whatever was committed before this call, where a restore reaches it."""
    eventually(lambda: status_of(process)["protects"], 30, "the stream protects")
    done = status_of(process)["segments"]
    eventually(lambda: status_of(process)["segments"] >= done + 2, 30, "two more segments")


def entries_under_load(port: int) -> dict[int, str]:
    """Every entry's id and message; while others are made, their count says nothing."""
    found: dict[int, str] = {}
    while True:
        status, answer = ask(port, "GET", f"/api/entries?limit=1000&after={max(found, default=0)}")
        assert status == 200, answer
        found |= {each["id"]: each["message"] for each in answer["entries"]}
        if len(answer["entries"]) < 1000:  # the last page, as of this answer
            return found


def streamed(member: Member, process: SidecarProcess) -> list[str]:
    """What the machine's app was told to be committed in all its lives, with some of this one, once the store has it."""
    process.wait_ready(60)
    member.wait_acked(5)
    acked = member.acked()
    wait_streamed(process)
    return acked


def on_disk(member: Member) -> list[str]:
    """The rows on the disk of a machine that is dead, from a copy: to open it would change the files."""
    copy = member.machine / "copied"
    shutil.rmtree(copy, ignore_errors=True)
    copy.mkdir()
    for path in member.machine.data.glob(f"{NAME}*"):
        if path.suffix in {".db", ".db-wal"}:
            shutil.copy(path, copy)
    return history(copy / NAME)


def begins(rows: list[str], beginning: list[str]) -> bool:
    """Whether `rows` has all of `beginning`, and in that order."""
    return rows[: len(beginning)] == beginning


def test_what_was_acknowledged_survives_the_machine(
    proxied: Machine, proxy: "FaultProxy", seaweed: "Seaweed", bucket: str
) -> None:
    """
    1. Four clients sign the guestbook; meanwhile the store is unreachable for a while. Everything is killed, the disk lost.
    2. The next machine goes on from the stream, and is lost in the same way, without a restore point of its own.
    3. The one after it is stopped by a signal, and every segment in the store is deleted.
    Result: each time all that was acknowledged before the last segments is there, as a gapless prefix; at last everything.
    """
    seen: dict[int, str] = {}
    for life in ("outage", "crash", "stop"):
        with serve(proxied, STREAM) as process, Load(port_of(process)) as load:
            load.wait_acked(20)
            if life == "outage":
                wait_streamed(process)
                proxy.down()
                load.wait_acked(200)
                proxy.up()
            before = dict(load.acked)
            wait_streamed(process)
            found = entries_under_load(port_of(process))
            assert (seen | before).items() <= found.items()
            assert list(found) == list(range(1, len(found) + 1))
            if life == "stop":
                assert process.terminate() == 0
                before = dict(load.acked)
            process.kill()
        seen |= before
        if life == "crash":
            assert len(seaweed.s3.restore_points(bucket, f"shop/{NAME}/")) == 1
        proxied.lose_disk()
    for key in seaweed.s3.keys(bucket, "shop/stream/"):
        seaweed.s3.delete(bucket, key)
    with serve(proxied, STREAM) as process:
        assert seen.items() <= entries(port_of(process)).items()


def test_a_suspended_machine_wakes_up_beside_its_successor(fleet: Fleet) -> None:
    """
    1. A streams, and is suspended. B takes over and streams. A wakes up, its app first, and commits.
    2. B is killed, and C goes on from its stream.
    Result: one history: A's until it was suspended, B's, C's. What A wrote later is under `diverged/` alone.
    Takes over ten seconds: two terms have to end.
    """
    a, b, c = fleet.member("a"), fleet.member("b"), fleet.member("c")
    with a.run(**STREAM) as first, ExitStack() as stack:
        before = streamed(a, first)
        freeze(*first.family())
        second = stack.enter_context(b.run(**STREAM))
        second.wait_ready(60)
        thaw(*(pid for pid in first.family() if pid != first.pid))
        a.wait_acked(10)
        thaw(*first.family())
        assert first.wait(60) == 75
        ours = streamed(b, second)
        second.kill()
        third = stack.enter_context(c.run(**STREAM))
        streamed(c, third)
        assert third.terminate() == 0
    line, kept = fleet.restored(), {row for rows in fleet.diverged() for row in rows}
    assert begins(line, before)
    assert begins([row for row in line if row.startswith("b.")], ours)
    assert line[-len(c.acked()) :] == c.acked()
    assert [row.split(".")[0] for row in line] == sorted(row.split(".")[0] for row in line)
    beside = [row for row in a.acked() if row not in line]
    assert beside
    assert set(beside) <= kept


def test_a_disk_that_survives_is_kept_until_another_machine_has_gone_on(fleet: Fleet) -> None:
    """
    1. A is killed, and starts on the same disk: it keeps what it has, and goes on.
    2. It is killed again; B restores its stream, goes on and is killed. A comes back on its disk.
    Result: A gives way to B's stream although its marker names the newest restore point; its own tail is kept aside.
    """
    a, b = fleet.member("a"), fleet.member("b")
    with a.run(**STREAM) as first:
        streamed(a, first)
        first.kill()
    had = on_disk(a)
    with a.run(**STREAM) as first:
        streamed(a, first)
        assert '"kept_local"' in first.output()
        assert "conflict" not in first.output()
        first.kill()
    assert begins(on_disk(a), had)
    had = on_disk(a)
    with b.run(**STREAM) as second:
        theirs = streamed(b, second)
        second.kill()
    with a.run(**STREAM) as third:
        streamed(a, third)
        assert "conflict: the local database gave way" in third.output()
        assert third.terminate() == 0
    assert begins([row for row in fleet.restored() if row.startswith("b.")], theirs)
    assert set(had) <= {row for rows in fleet.diverged() for row in rows}


def test_a_disk_that_lost_its_tail_in_a_crash_of_the_kernel_gives_way(fleet: Fleet) -> None:
    """The log lost frames that were streamed: the machine starts with what the stream has, and not silently with less."""
    a = fleet.member("a")
    with a.run(**STREAM) as first:
        streamed(a, first)
        rows = streamed(a, first)
        first.kill()
    marker = a.machine.data / f"{NAME}.sidecar.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "kernel": "the one before"}))
    os.truncate(f"{a.machine.database}-wal", 0)
    with suppress(DAMAGED):  # as it may be when the log is gone in the middle of a checkpoint
        assert not begins(on_disk(a), rows)
    with a.run(**STREAM) as first:
        streamed(a, first)
        assert "conflict: the local database gave way" in first.output()
        assert first.terminate() == 0
    assert begins(fleet.restored(), rows)
