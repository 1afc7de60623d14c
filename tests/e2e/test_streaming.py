"""Streaming, end to end: machines that are killed, cut off, suspended and replaced, with an hour between restore points."""

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.e2e.fleet import Fleet, freeze, thaw
from tests.e2e.guestbook import Load, ask, entries, port_of, serve
from tests.e2e.machine import NAME, Machine
from tests.e2e.streaming import STREAM, begins, on_disk, status_of, streamed, wait_streamed

if TYPE_CHECKING:
    from tests.harness.proxy import FaultProxy
    from tests.harness.seaweed import Seaweed

pytestmark = pytest.mark.s3


def entries_under_load(port: int) -> dict[int, str]:
    """Every entry's id and message; while others are made, their count says nothing."""
    found: dict[int, str] = {}
    while True:
        status, answer = ask(port, "GET", f"/api/entries?limit=1000&after={max(found, default=0)}")
        assert status == 200, answer
        found |= {each["id"]: each["message"] for each in answer["entries"]}
        if len(answer["entries"]) < 1000:  # the last page, as of this answer
            return found


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
            if life == "crash":  # comparing the database in place disturbs neither the app nor the stream
                assert proxied.cli("diff", "--summary").returncode in {0, 1}
                assert status_of(process)["cuts"] == {}
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
    2. B is killed and loses its disk. It goes on from its stream.
    Result: one history: A's until it was suspended, then B's alone. A has published nothing more, but for a request that was
    under way; what it wrote later is under `diverged/` alone.
    """
    a, b = fleet.member("a"), fleet.member("b")
    with a.run(**STREAM) as first, ExitStack() as stack:
        before = streamed(a, first)
        freeze(*first.family())
        second = stack.enter_context(b.run(**STREAM))
        second.wait_ready(60)
        published = set(fleet.segments(holder="a"))
        thaw(*(pid for pid in first.family() if pid != first.pid))
        a.wait_acked(10)
        thaw(*first.family())
        assert first.wait(60) == 75
        assert len(set(fleet.segments(holder="a")) - published) <= 1
        ours = streamed(b, second)
        second.kill()
        b.machine.lose_disk()
        third = stack.enter_context(b.run(**STREAM))
        streamed(b, third)
        assert third.terminate() == 0
    line, kept = fleet.restored(), {row for rows in fleet.diverged() for row in rows}
    assert begins(line, before)
    theirs = [row for row in line if row.startswith("b.")]
    assert line[-len(theirs) :] == theirs
    assert begins(theirs, ours)
    assert theirs[-1] == b.acked()[-1]
    beside = [row for row in a.acked() if row not in line]
    assert beside
    assert set(beside) <= kept


def test_a_disk_that_survives(fleet: Fleet) -> None:
    """
    1. A is killed, and starts on the same disk: it keeps what it has, and goes on.
    2. It is killed, and its kernel crashes: database and log have less than was streamed. A starts with what the stream
       has, not silently with less.
    3. It is killed again; B restores its stream, goes on and is killed before it has a restore point. A comes back on its
       disk, whose marker names the newest restore point: it gives way to B's stream, and its own tail is kept aside.
    Takes over ten seconds: five lives of machines, and two terms have to end.
    """
    a, b = fleet.member("a"), fleet.member("b")
    with a.run(**STREAM) as first:
        streamed(a, first)
        first.kill()
    had, files = on_disk(a), [a.machine.database, Path(f"{a.machine.database}-wal")]
    synced = [path.read_bytes() for path in files]
    with a.run(**STREAM) as first:
        ours = streamed(a, first)
        assert '"kept_local"' in first.output()
        assert "conflict" not in first.output()
        first.kill()
    assert begins(on_disk(a), had)
    marker = a.machine.data / f"{NAME}.sidecar.json"
    marker.write_text(json.dumps({**json.loads(marker.read_text()), "kernel": "the one before"}))
    for path, content in zip(files, synced, strict=True):
        path.write_bytes(content)
    assert on_disk(a) == had
    with a.run(**STREAM) as first:
        streamed(a, first)
        assert "conflict: the local database gave way" in first.output()
        first.kill()
    had = on_disk(a)
    assert [row for row in had if row in set(ours)] == ours  # and maybe one that was not acknowledged before a kill
    with b.run(**STREAM) as second:
        theirs = streamed(b, second)
        second.kill()
    assert "b" not in fleet.publishers()
    with a.run(**STREAM) as third:
        streamed(a, third)
        assert "conflict: the local database gave way" in third.output()
        assert third.terminate() == 0
    assert begins([row for row in fleet.restored() if row.startswith("b.")], theirs)
    assert set(had) <= {row for rows in fleet.diverged() for row in rows}
