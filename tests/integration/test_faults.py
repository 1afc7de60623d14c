"""Every fault at every request of a boot, of backup cycles, of a final backup, and of a renewal of the lease.

The requests are those of a clean run. Each fault befalls each of them once, and the operation must succeed all the same;
then each kind of request for as long as the operation lasts, and it must fail in good order. In any case:

1. Nothing is half published: a boot elsewhere finds the newest restore point good.
2. It holds what was acknowledged to be published, or something newer, and what comes next succeeds.
3. No fault ever costs the lease.
4. No upload stays open, unless the store did what it was asked and we never heard of its id.
"""

import shutil
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from sidecar.errors import ExitCode, FinalBackupFailed, SidecarError
from sidecar.storage.s3 import deadlines
from sidecar.storage.s3.client import S3Location
from sidecar.storage.s3.store import S3Store
from tests.harness.proxy import (
    SLOW_DOWN,
    Answer,
    DropReply,
    Fault,
    FaultProxy,
    Pass,
    Refuse,
    ResetMidBody,
    Rule,
    Seen,
    Stall,
    Throttle,
    TruncateReply,
)
from tests.harness.s3client import REGION
from tests.harness.seaweed import Seaweed
from tests.harness.writers import check_ledger, fill
from tests.integration.wiring import NAME, Machine, write

pytestmark = [pytest.mark.anyio, pytest.mark.s3]

LANES = 6
DEADLINE = 0.8
HEALS = 40.0
GIVES_UP = 0.5
HOLDER = "machine-1"

FAULTS: dict[str, Fault] = {
    "refuse": Refuse(),
    "stall": Stall(60),
    "stall reply": Stall(60, direction="reply"),
    "reset mid body": ResetMidBody(1),
    "reset reply": ResetMidBody(1, "reply"),
    "throttle": Throttle(200),
    "503": Answer(503),
    "slow down": SLOW_DOWN,
    "truncate reply": TruncateReply(1),
    "drop reply": DropReply(),
}

LASTING = ("refuse", "stall", "slow down", "drop reply")

# A kind of request, as the proxy may be told it.
KINDS: dict[str, dict[str, Any]] = {
    "GET lease": {"method": "GET", "path_contains": "lease.json"},
    "PUT lease": {"method": "PUT", "path_contains": "lease.json"},
    "LIST": {"method": "GET", "query_contains": "list-type"},
    "HEAD": {"method": "HEAD"},
    "GET point": {"method": "GET", "path_contains": NAME},
    "PUT point": {"method": "PUT", "path_contains": NAME},
    "POST uploads": {"method": "POST", "query_contains": "uploads"},
    "PUT part": {"method": "PUT", "query_contains": "partNumber"},
    "POST complete": {"method": "POST", "query_contains": "uploadId"},
}


class Lane:
    """A machine behind a proxy of its own, with a prefix of the bucket to itself; cases run in it one after the other."""

    def __init__(self, directory: Path, server: "Server", proxy: FaultProxy, through: S3Store, direct: S3Store) -> None:
        self.proxy = proxy
        self.acked = 0
        self._directory = directory
        self._server = server
        self._through, self._direct = through, direct
        self.lost_uploads = 0
        self.machine = self.elsewhere()

    def elsewhere(self) -> Machine:
        """The same machine, started anew with an empty disk."""
        return self._machine(self._through, HOLDER)

    async def start(self, megabytes: int) -> None:
        """Become the holder, and publish a first restore point."""
        fill(self.machine.database.path, megabytes)
        await hold(self.machine)
        await backup(self)

    def write(self) -> int:
        """Commit some more; returns the last number."""
        write(self.machine.database.path, 3)
        return self.written()

    def written(self) -> int:
        """The last number that the app has committed, or what it would find when there is no database yet."""
        path = self.machine.database.path
        return check_ledger(path) if path.exists() else self.acked

    async def require_sound(self) -> None:
        """The invariants, seen from outside."""
        fresh = self._machine(self._direct, None)
        assert (await fresh.boot()).outcome == "restored"
        assert self.acked <= check_ledger(fresh.database.path) <= self.written()
        shutil.rmtree(fresh.database.path.parent)
        assert self.machine.lease
        assert not self.machine.lease.lost.is_set()
        assert self._open_uploads() <= self.lost_uploads

    def _open_uploads(self) -> int:
        keys = self._server.seaweed.s3.open_uploads(self._server.bucket)
        return sum(key.startswith(f"{self._through._location.prefix}/") for key in keys)

    def _machine(self, store: S3Store, holder: str | None) -> Machine:
        path = self._directory / uuid.uuid4().hex / NAME
        path.parent.mkdir(parents=True)
        return Machine(store, path, staging=path.parent, holder=holder, patience=HEALS)


@dataclass(frozen=True, slots=True)
class Server:
    """Where the lanes lead to."""

    seaweed: Seaweed
    bucket: str


@dataclass(frozen=True, slots=True)
class Case:
    """A fault, and the requests that it befalls: one, by its place in the operation, or all of a kind."""

    kind: str
    fault: str
    place: int | None = None

    def arm(self, proxy: FaultProxy) -> Rule:
        """Have the proxy do it."""
        if self.place is None:
            return proxy.rule(FAULTS[self.fault], **KINDS[self.kind])
        return proxy.rule(FAULTS[self.fault], times=1, skip=self.place)

    def __str__(self) -> str:
        return f"{self.fault} at {'every' if self.place is None else f'request {self.place},'} {self.kind}"


async def hold(machine: Machine) -> None:
    """What `run` does before the app starts."""
    assert machine.lease
    await machine.lease.acquire(timedelta(seconds=30))
    booted = await machine.boot()
    await machine.lease.record_start({NAME: booted.newest.key} if booted.newest else {})


async def boot(lane: Lane) -> None:
    """The machine has lost its disk; its new life takes the lease over from the old one."""
    machine = lane.elsewhere()
    machine.reader.part_size = 1 << 20  # several ranges
    lane.machine.retrying._policy, machine.retrying._policy = machine.retrying._policy, lane.machine.retrying._policy
    lane.machine, before = machine, lane.machine
    await hold(machine)
    shutil.rmtree(before.database.path.parent)


async def backup(lane: Lane) -> None:
    """One cycle, after a change."""
    written = lane.write()
    assert await lane.machine.backup.cycle.run() == "published"
    lane.acked = written


async def end(lane: Lane) -> None:
    """A final backup within its time, and the release of the lease."""
    assert lane.machine.lease
    written, protected = lane.write(), False
    with anyio.move_on_after(lane.machine.retrying._policy.give_up_after * 2):
        protected = await lane.machine.backup.final()
    if not protected:
        raise FinalBackupFailed("not in time")
    lane.acked = written
    await lane.machine.lease.term.release()


async def renew(lane: Lane) -> None:
    """One renewal."""
    assert lane.machine.lease
    await lane.machine.lease.term.renew()


@dataclass(frozen=True, slots=True)
class Operation:
    """What is done under faults, and with a database of how many MiB."""

    run: Callable[[Lane], Awaitable[None]]
    megabytes: int
    kinds: tuple[str, ...]


OPERATIONS = {
    "boot": Operation(boot, 3, ("LIST", "GET lease", "PUT lease", "GET point")),
    "backup in one piece": Operation(backup, 0, ("PUT point",)),
    "backup in parts": Operation(backup, 8, ("POST uploads", "PUT part", "POST complete")),
    "final backup": Operation(end, 0, ("PUT point", "PUT lease")),
    "renewal": Operation(renew, 0, ("PUT lease",)),
}


@pytest.fixture
async def lanes(
    seaweed: Seaweed, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[list[Lane]]:
    """Several, so that one waits for its stall while others work."""
    for name, value in seaweed.environment().items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(deadlines, "DEADLINE", DEADLINE)
    monkeypatch.setattr(deadlines, "SLOWEST", 1 << 40)
    async with AsyncExitStack() as stack:
        opened = []
        for number in range(LANES):
            proxy = stack.enter_context(FaultProxy(seaweed.port))
            through, direct = [
                await stack.enter_async_context(S3Store(S3Location(bucket, f"lane {number}", endpoint, REGION)))
                for endpoint in (proxy.endpoint, seaweed.endpoint)
            ]
            directory = tmp_path / str(number)
            opened.append(Lane(directory, Server(seaweed, bucket), proxy, through, direct))
        yield opened


@pytest.mark.parametrize("name", OPERATIONS)
async def test_every_fault_at_every_request(name: str, lanes: list[Lane]) -> None:
    """A fault that passes is healed; one that lasts is a clean failure, after which everything continues.

    Takes longer than ten seconds: up to a hundred cases, each followed by a restore on another machine.
    """
    operation = OPERATIONS[name]
    for lane in lanes:
        await lane.start(operation.megabytes)
        lane.proxy.clear()
        await operation.run(lane)
        seen = lane.proxy.seen()
        await ready_again(lane)
    requests = [kind_of(each) for each in seen]
    assert {*operation.kinds} <= {*requests}, requests
    cases = [
        *(Case(kind, fault, place) for place, kind in chosen(requests) for fault in FAULTS),
        *(Case(kind, fault) for kind in operation.kinds for fault in LASTING),
    ]
    waiting = iter(cases)

    async def work(lane: Lane) -> None:
        for case in waiting:
            try:
                await run(case, operation, lane)
            except Exception as error:
                raise AssertionError(f"{name}: {case}: {error!r}") from error

    async with anyio.create_task_group() as group:
        for lane in lanes:
            group.start_soon(work, lane)


async def run(case: Case, operation: Operation, lane: Lane) -> None:
    """The operation with a fault, what it leaves behind, and what comes after."""
    for patience in (GIVES_UP, 4 * GIVES_UP, 16 * GIVES_UP):
        hits, failure = await under_fault(case, operation, lane, patience)
        if hits or (failure and case.place is not None):
            break
        # It gave up before it came that far, on a busy machine; or it had fewer requests to make: the case before it has left
        # a restore point that nothing is reused from, and the next one is made of this one's.
        await ready_again(lane)
    assert hits, failure
    if failure:
        assert case.place is None, f"a single fault is not healed: {failure}"
        assert failure.exit_code is not ExitCode.BUG
        assert "\n" not in str(failure)
    await lane.require_sound()
    if failure:
        await ready_again(lane)
        await operation.run(lane)
        await lane.require_sound()
    await ready_again(lane)


async def under_fault(case: Case, operation: Operation, lane: Lane, gives_up: float) -> tuple[int, SidecarError | None]:
    """The operation with a fault: how often that befell it, and how it failed. One that lasts is endured for so long."""
    patience = lane.machine.retrying._policy
    if case.place is None:
        lane.machine.retrying._policy = replace(patience, give_up_after=gives_up)
    lane.proxy.clear()
    rule = case.arm(lane.proxy)
    failure: SidecarError | None = None
    try:
        await operation.run(lane)
    except SidecarError as error:
        failure = error
    lane.lost_uploads += sum(seen.fault != Pass() for seen in lane.proxy.seen("POST", "", "uploads"))
    hits = rule.hits
    lane.proxy.clear()
    lane.machine.retrying._policy = patience
    return hits, failure


async def ready_again(lane: Lane) -> None:
    """The machine as it is while it runs: booted, with the lease."""
    assert lane.machine.lease
    if not lane.machine.lease.epoch or not lane.machine.lease.term.held or not lane.machine.database.path.exists():
        await hold(lane.machine)


def chosen(requests: list[str]) -> list[tuple[int, str]]:
    """Of each kind the first and the last."""
    places = {kind: [place for place, each in enumerate(requests) if each == kind] for kind in requests}
    return sorted({(place, kind) for kind, all_of in places.items() for place in (all_of[0], all_of[-1])})


def kind_of(seen: Seen) -> str:
    """What a request is for."""
    what = "lease" if seen.path.endswith("lease.json") else "point"
    if "list-type" in seen.query:
        return "LIST"
    if "partNumber" in seen.query:
        return "PUT copy" if "x-amz-copy-source" in seen.headers else "PUT part"
    if seen.method == "POST":
        return "POST complete" if "uploadId" in seen.query else "POST uploads"
    return f"{seen.method} {what}"
