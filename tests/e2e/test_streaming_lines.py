"""One history of several machines that stream: handed over, without a lease, and of segments that are gone."""

import json
import shutil
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import pytest

from tests.e2e.fleet import Fleet, ready
from tests.e2e.machine import CALM_APP, Machine, complaint, notes, python_app, write_note
from tests.e2e.streaming import HOLDING, STREAM, begins, status_of, streamed
from tests.harness.eventually import eventually
from tests.harness.faults import s3_error
from tests.harness.proxy import RefuseTags


@pytest.mark.s3
def test_a_handover_loses_no_commit(fleet: Fleet) -> None:
    """
    1. A streams; B starts beside it and asks for the lease, as the new machine of a bluegreen deploy does.
    2. A's app ends, and B goes on from all that it wrote. B is killed before it has a restore point of its own.
    3. B comes back without its disk, and goes on from its stream.
    Result: one line, of all that A wrote and of what B streamed; nothing is diverged.
    """
    a, b = fleet.member("a"), fleet.member("b")
    settings: dict[str, Any] = {**STREAM, "lease_handoff": "request"}
    with a.run(**settings) as first, ExitStack() as stack:
        streamed(a, first)
        second = stack.enter_context(b.run(**settings))
        ours = streamed(b, second)
        assert not ready(first)
        assert first.running
        second.kill()
        assert set(fleet.publishers()) == {"a"}
        b.machine.lose_disk()
        third = stack.enter_context(b.run(**settings))
        streamed(b, third)
        assert first.terminate() == 0
        assert third.terminate() == 0
    line, written = fleet.restored(), a.acked()
    assert line[: len(written)] == written
    assert begins(line[len(written) :], ours)
    assert line[-1] == b.acked()[-1]
    assert all(row.startswith("b.") for row in line[len(written) :])
    assert fleet.diverged() == []


@pytest.mark.s3
def test_three_machines_without_a_lease_on_a_store_without_tags(fleet: Fleet) -> None:
    """
    1. One after the other streams, and is killed with its disk. There is no lease, and the store refuses tags.
    Result: each goes on from all that the one before had streamed, and a restore has it all, as one line.
    """
    members = [fleet.member(name) for name in "abc"]
    protected: list[str] = []
    for member in members:
        member.proxy.rule(RefuseTags(s3_error(501, "NotImplemented")))
        with member.run(lease="off", **STREAM) as process:
            protected += streamed(member, process)
            process.kill()
    line = fleet.restored()
    assert [row[0] for row in line] == sorted(row[0] for row in line)
    for member in members:
        mine = [row for row in protected if row.startswith(f"{member.name}.")]
        assert begins([row for row in line if row.startswith(f"{member.name}.")], mine)
    assert fleet.tags(fleet.segments()[-1]) == {}


def test_segments_that_have_expired(local: Machine) -> None:
    """
    1. A machine is killed, and not booted again before every segment has expired.
    Result: `--at` an instant whose state is lost exits 66 and names the nearest one; a boot starts from the restore point, and
    says what is missing.
    """
    lease, segments = local / "store" / "lease.json", local / "store" / "stream"

    def recorded() -> bool:
        record = json.loads(lease.read_text())["streams"].get("app.db")
        return bool(record and record["commit"] >= 2)

    write_note(local.database, "in the restore point")
    with local.run(*python_app(HOLDING, str(local.database)), lease_ttl="3s", **STREAM) as process:
        process.wait_ready()
        eventually(lambda: status_of(process)["protects"], 20, "a restore point names the stream")
        write_note(local.database, "streamed")
        write_note(local.database, "streamed too")
        eventually(recorded, 20, "the lease says how far the stream has got")
        process.kill()
    shutil.rmtree(segments)
    copy = local / "copy.db"
    done = local.cli("restore", "--at", datetime.now(UTC).isoformat(), "--output", str(copy))
    assert done.returncode == 66
    said = complaint(done.stderr)
    (point,) = local.points()
    assert "is lost: commits " in said
    assert f"`sidecar restore --key app.db/{point.name}` restores that one" in said
    assert not copy.exists()
    local.lose_disk()
    with local.run(*CALM_APP, **STREAM) as process:
        process.wait_ready()
        assert notes(local.database) == ["in the restore point"]
        assert "once had commit 2 of stream" in process.output()
