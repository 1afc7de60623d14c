"""Two and three machines on one store, whatever happens to them: one history, and what is not in it is in `diverged/`.

Their terms are of seconds (`fleet.TTL`), so that a takeover is quick. Each has a disk, a name and a network of its own,
and its app signs every row, so that afterwards every row is known by who wrote it.
"""

import shutil
import subprocess
from contextlib import ExitStack
from threading import Event
from typing import Any

import pytest

from tests.e2e.fleet import PREFIX, TTL, Fleet, freeze, ready, thaw
from tests.e2e.machine import NAME, complaint
from tests.harness.eventually import eventually
from tests.harness.proxy import Stall

pytestmark = pytest.mark.s3

OVERLAP_SECONDS = 15


def test_fifteen_seconds_of_two_writers(fleet: Fleet) -> None:
    """
    1. A runs, and goes on whatever happens to its lease. Its network fails; B takes over, and both apps write.
    2. In the middle of it A's network returns. Both still write, for 15 seconds in all.
    Result: the main line is A's history until the failure, then B's alone; all that A wrote after it is under `diverged/`.
    Takes longer than ten seconds, as its name says.
    """
    a, b = fleet.member("a"), fleet.member("b")
    with a.run(on_lease_lost="continue") as first, ExitStack() as stack:
        first.wait_metric("sidecar_backups_total", 2, outcome="published")
        second = stack.enter_context(b.run())
        a.proxy.down()
        second.wait_ready(60)
        rows = OVERLAP_SECONDS * 40
        a.wait_acked(rows // 3)
        a.proxy.up()
        first.wait_metric("sidecar_lease_renewals_total", 1, outcome="lost", timeout=60)
        b.wait_acked(rows - rows // 3)
        assert first.running
        assert ready(second)
        assert first.terminate() == 75
        assert second.terminate() == 0
    line = fleet.require_one_history()
    assert fleet.diverged()
    switch = next(number for number, row in enumerate(line) if row.startswith("b."))
    assert all(row.startswith("a.") for row in line[:switch])
    assert all(row.startswith("b.") for row in line[switch:])
    assert line[switch:] == b.acked()


@pytest.mark.parametrize("publishing", [False, True], ids=["idle", "in the middle of a publish"])
def test_machine_that_was_suspended_wakes_up_fenced(publishing: bool, fleet: Fleet) -> None:
    """
    1. A is suspended in the middle of all it does, for longer than its term; a restore point may be on its way as long.
    2. B takes over, restores, writes and publishes. A wakes up, its app before sidecar, and writes as if nothing had been.
    Result: A ends with 75 and has kept what it wrote under `diverged/`; what it published late is below B's and unused.
    """
    a, b = fleet.member("a"), fleet.member("b")
    released = Event()
    with a.run() as first, ExitStack() as stack:
        first.wait_metric("sidecar_backups_total", 2, outcome="published")
        if publishing:
            halfway = Stall(60, 1, "request", released)
            stalled = a.proxy.rule(halfway, method="PUT", path_contains=f"/{PREFIX}/{NAME}/", times=1)
            eventually(lambda: stalled.hits, 30, "a restore point is on its way")
        freeze(*first.family())
        second = stack.enter_context(b.run())
        second.wait_metric("sidecar_backups_total", 2, timeout=60, outcome="published")
        released.set()
        thaw(*(pid for pid in first.family() if pid != first.pid))
        a.wait_acked(3)
        thaw(*first.family())
        assert first.wait(60) == 75
        b.wait_acked(10)
        assert second.terminate() == 0
    assert fleet.diverged()
    line = fleet.require_one_history(late=int(publishing))
    assert line[-len(b.acked()) :] == b.acked()


def test_network_that_fails_for_longer_than_the_term(fleet: Fleet) -> None:
    """
    1. A's network fails for more than its term, with nobody else there: its app goes on, and the lease is still its own.
    2. It fails again, and B takes over. A's app goes on until the network is back and A learns of it.
    Result: A ends with 75; B's app never saw what A wrote in its absence; nothing of that is lost.
    """
    a, b = fleet.member("a"), fleet.member("b")
    with a.run() as first, ExitStack() as stack:
        first.wait_metric("sidecar_backups_total", 1, outcome="published")
        a.proxy.down()
        a.wait_acked(int(1.5 * TTL * 40))
        a.proxy.up()
        published = first.metric("sidecar_backups_total", outcome="published") or 0
        first.wait_metric("sidecar_backups_total", published + 1, outcome="published")
        assert first.metric("sidecar_lease_renewals_total", outcome="lost") in (0, None)
        a.proxy.down()
        second = stack.enter_context(b.run())
        second.wait_metric("sidecar_backups_total", 1, timeout=60, outcome="published")
        a.wait_acked(20)
        assert first.running
        a.proxy.up()
        assert first.wait(60) == 75
        assert second.terminate() == 0
    assert fleet.diverged()
    line = fleet.require_one_history()
    assert line[-len(b.acked()) :] == b.acked()


def test_handover_loses_no_write(fleet: Fleet) -> None:
    """
    1. A runs; B starts beside it and asks for the lease, as the new machine of a bluegreen deploy does.
    2. A's app ends, its last state is published, B restores it; A is idle, not ready, and not a writer any more.
    3. B ends, and C takes over from it at once, without asking. A still does nothing, until it is told to end.
    Result: one line: A's, then B's, then C's, and not a row is missing or diverged. A has asked for nothing.
    """
    a, b, c = fleet.member("a"), fleet.member("b"), fleet.member("c")
    settings: dict[str, Any] = {"lease_handoff": "request", "interval": "1h"}
    with a.run(**settings) as first, ExitStack() as stack:
        first.wait_ready()
        a.wait_acked(50)
        second = stack.enter_context(b.run(**settings))
        second.wait_ready(60)
        handed_over = a.acked()
        assert first.running
        assert not ready(first)
        b.wait_acked(50)
        assert second.terminate() == 0
        third = stack.enter_context(c.run(**settings))
        third.wait_ready()
        c.wait_acked(50)
        assert first.running
        assert not ready(first)
        assert first.terminate() == 0
        assert third.terminate() == 0
    assert a.acked() == handed_over
    assert fleet.require_one_history() == [*a.acked(), *b.acked(), *c.acked()]
    assert fleet.diverged() == []


def test_three_machines_take_turns(fleet: Fleet) -> None:
    """
    1. Three start at the same instant, on an empty store. One becomes ready, the others wait.
    2. It is lost: killed, its disk gone. One of the others takes over, and so on; the lost ones come back, and wait.
    Result: never two ready at once; one history, without what was written after the last restore point of a lost one.
    """
    members = [fleet.member(name) for name in "abc"]
    with ExitStack() as stack:
        running = {member.name: stack.enter_context(member.run()) for member in members}
        for turn in range(4):
            found = eventually(lambda: [each for each in members if ready(running[each.name])], 60, "one is ready")
            assert len(found) == 1, f"{found} at once"
            holder, process = found[0], running[found[0].name]
            holder.wait_acked(20)
            assert [ready(each) for each in running.values()].count(True) == 1
            if turn == 3:
                break
            process.kill()
            holder.machine.lose_disk()
            survived = {row for rows in fleet.main_line()[-1:] for row in rows}
            holder.acks.write_text("".join(f"{row}\n" for row in holder.acked() if row in survived))
            running[holder.name] = stack.enter_context(holder.run())
        for each in running.values():
            assert each.terminate() in (0, 143)
    fleet.require_one_history()
    assert fleet.diverged() == []


def test_wrong_clocks_decide_nothing(fleet: Fleet) -> None:
    """
    1. B's and C's clocks are wrong, as far as S3 tolerates. Each waits for the lease as long as any other does.
    2. A ends, and B takes over, and is followed by C.
    Result: one history, keys in the order of what happened.
    """
    a, b, c = fleet.member("a"), fleet.member("b"), fleet.member("c")
    with a.run() as first, ExitStack() as stack:
        first.wait_metric("sidecar_backups_total", 2, outcome="published")
        second = stack.enter_context(b.run(env=_clock("+10m")))
        second.wait_for_log("waiting for the lease")
        a.wait_acked(int(TTL * 30))
        assert not ready(second)
        assert first.terminate() == 0
        second.wait_metric("sidecar_backups_total", 2, outcome="published", timeout=60)
        third = stack.enter_context(c.run(env=_clock("-10m")))
        third.wait_for_log("waiting for the lease")
        b.wait_acked(int(TTL * 30))
        assert not ready(third)
        assert second.terminate() == 0
        third.wait_metric("sidecar_backups_total", 2, outcome="published", timeout=60)
        assert third.terminate() == 0
    assert fleet.require_one_history() == [*a.acked(), *b.acked(), *c.acked()]
    assert fleet.diverged() == []


def test_clocks_an_hour_off_are_refused_by_s3_and_cost_nothing(fleet: Fleet) -> None:
    """S3 refuses signatures that are more than 15 minutes off (RequestTimeTooSkewed): such a machine never starts its

    app and says why, and the holder does not notice. How the lease behaves with such clocks where a store lets them in
    is shown by its property tests.
    """
    a, b, c = fleet.member("a"), fleet.member("b"), fleet.member("c")
    with a.run() as first, b.run(env=_clock("+1h")) as second, c.run(env=_clock("-1h")) as third:
        first.wait_metric("sidecar_backups_total", 2, outcome="published")
        for process in (second, third):
            assert process.wait() == 77
            assert "clock" in complaint(process.stderr())
        assert b.acked() == c.acked() == []
        assert first.terminate() == 0
    assert fleet.require_one_history() == a.acked()


def _clock(offset: str) -> dict[str, str]:
    """The environment of a process whose clock is off; its monotonic clock is right."""
    faketime = shutil.which("faketime")
    if not faketime:
        pytest.skip("the program `faketime` is missing: apt-get install faketime")
    # Not `faketime COMMAND`: it forks, and a signal would reach itself.
    library = subprocess.run([faketime, "now", "printenv", "LD_PRELOAD"], capture_output=True, text=True, check=True)
    return {"LD_PRELOAD": library.stdout.strip(), "FAKETIME": offset, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}
