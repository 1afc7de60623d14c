"""Machines whose lease is in another store than their restore points, each of which may fail alone."""

import json
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from tests.e2e.fleet import PREFIX, TTL, Fleet, Member, freeze, ready, thaw
from tests.e2e.machine import CALM_APP, Machine, complaint
from tests.harness import imitations
from tests.harness.environment import clean_environment
from tests.harness.proxy import FaultProxy
from tests.harness.seaweed import Seaweed

pytestmark = pytest.mark.s3


class Leases:
    """A bucket for the lease of a fleet. Each machine has a network of its own to it."""

    def __init__(self, seaweed: Seaweed, fleet: Fleet, stack: ExitStack) -> None:
        self.seaweed = seaweed
        self.bucket = f"leases-{uuid.uuid4().hex[:12]}"
        self.proxies: dict[str, FaultProxy] = {}
        self._fleet = fleet
        self._stack = stack
        seaweed.s3.make_bucket(self.bucket)

    def member(self, name: str) -> Member:
        """One more machine."""
        made = self._fleet.member(name)
        self.proxies[name] = proxy = self._stack.enter_context(FaultProxy(self.seaweed.port))
        machine = made.machine.with_env(
            SIDECAR_LEASE_STORE=f"s3://{self.bucket}/{PREFIX}", **lease_variables(self.seaweed, proxy.endpoint)
        )
        self._fleet.members[-1] = member = replace(made, machine=machine)
        return member


def lease_variables(seaweed: Seaweed, endpoint: str | None = None) -> dict[str, str]:
    """The variables for a lease's store that is not where the restore points are."""
    return {f"SIDECAR_LEASE_{name}": value for name, value in seaweed.environment(endpoint=endpoint).items()}


@pytest.fixture
def leases(seaweed: Seaweed, fleet: Fleet) -> Iterator[Leases]:
    with ExitStack() as stack:
        made = Leases(seaweed, fleet, stack)
        yield made
        seaweed.s3.drop_bucket(made.bucket)


def test_machine_that_was_suspended_wakes_up_fenced(leases: Leases, fleet: Fleet, bucket: str) -> None:
    """
    The restore points are in a store without conditional writes and tags.
    1. A is suspended for longer than its term. B takes over, restores, writes and publishes. A wakes up and writes on.
    Result: A ends with 75, and its late writes are under `diverged/`. The bucket of the lease has the lease and notices;
    the one with the restore points says where the lease is, so that a machine without the setting does not start.
    """
    a, b = leases.member("a"), leases.member("b")
    for each in (a, b):
        each.proxy.imitation = imitations.b2()
    without = {name: value for name, value in a.machine.env.items() if not name.startswith("SIDECAR_LEASE_")}
    with replace(a, machine=replace(a.machine, env=without)).run() as refused:
        assert refused.wait(30) == 78
        assert "set lease_store to a store with conditional writes" in complaint(refused.stderr())
    with a.run() as first, ExitStack() as stack:
        first.wait_metric("sidecar_backups_total", 2, outcome="published")
        freeze(*first.family())
        second = stack.enter_context(b.run())
        second.wait_metric("sidecar_backups_total", 2, timeout=60, outcome="published")
        thaw(*(pid for pid in first.family() if pid != first.pid))
        a.wait_acked(3)
        thaw(*first.family())
        assert first.wait(60) == 75
        b.wait_acked(10)
        assert second.terminate() == 0
    assert fleet.diverged()
    line = fleet.require_one_history()
    assert line[-len(b.acked()) :] == b.acked()
    s3 = leases.seaweed.s3
    keys = [key.removeprefix(f"{PREFIX}/") for key in s3.keys(leases.bucket, "")]
    assert [key for key in keys if not key.startswith((".sidecar/notices/", ".sidecar/probe/"))] == ["lease.json"]
    moved = json.loads(s3.get(bucket, f"{PREFIX}/lease.json"))
    assert moved["lease_store"] == f"s3://{leases.bucket}/{PREFIX}"


def test_each_store_is_down_for_a_while(leases: Leases, fleet: Fleet) -> None:
    """
    1. A runs. The lease's store fails for longer than A's term, while the app writes: nothing is published after it.
       B starts meanwhile, cannot read the lease, and gives up with 75 without having started its app.
    2. It is back: the lease is still A's, and A publishes.
    3. The restore points' store fails: A keeps the lease, and B, which reaches both, waits for it.
    Result: one history, A's.
    """
    a, b = leases.member("a"), leases.member("b")
    with a.run() as first, ExitStack() as stack:
        first.wait_metric("sidecar_backups_total", 2, outcome="published")
        for name in "ab":
            leases.proxies[name].down()
        refused = stack.enter_context(b.run(restore_timeout="1s"))
        assert refused.wait(30) == 75
        assert b.acked() == []
        first.wait_metric("sidecar_backups_total", 1, outcome="failed", timeout=60)
        a.wait_acked(int(TTL * 20))
        for name in "ab":
            leases.proxies[name].up()
        published = first.metric("sidecar_backups_total", outcome="published") or 0
        first.wait_metric("sidecar_backups_total", published + 1, outcome="published", timeout=60)
        assert first.metric("sidecar_lease_renewals_total", outcome="lost") in (0, None)
        a.proxy.down()
        second = stack.enter_context(b.run())
        second.wait_for_log("waiting for the lease")
        renewed = first.metric("sidecar_lease_renewals_total", outcome="ok") or 0
        first.wait_metric("sidecar_lease_renewals_total", renewed + 4, outcome="ok", timeout=60)
        assert not ready(second)
        a.proxy.up()
        assert first.terminate() == 0
        b.wait_acked(5)
        assert second.terminate() == 0
    line = fleet.require_one_history()
    assert line == [*a.acked(), *b.acked()]
    assert fleet.diverged() == []


def test_restore_points_in_a_directory_and_the_lease_in_a_bucket(tmp_path: Path, seaweed: Seaweed, bucket: str) -> None:
    """The lease's store has the only credentials. `check` tries that store, too."""
    machine = Machine.make(tmp_path, f"file://{tmp_path}/store", clean_environment(tmp_path)).with_env(
        SIDECAR_LEASE_STORE=f"s3://{bucket}/app", **lease_variables(seaweed)
    )
    with machine.run(*CALM_APP) as first:
        first.wait_ready()
        checked = machine.cli("check")
        assert f"s3://{bucket}/app obeys If-None-Match and If-Match" in checked.stdout
        assert first.terminate() == 0
    assert "app/lease.json" in seaweed.s3.keys(bucket, "")
    refused = replace(machine, store=f"file://{tmp_path}/other").cli("list")
    assert refused.returncode == 78
    assert "is the lease of" in complaint(refused.stderr)
