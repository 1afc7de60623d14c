"""The main job: whatever ends the app, every row it acknowledged survives the loss of the machine."""

import signal
from dataclasses import dataclass

import pytest

from tests.e2e.guestbook import Load, ask, entries, port_of, serve
from tests.e2e.machine import Machine
from tests.harness.seaweed import Seaweed


@dataclass(frozen=True)
class End:
    """How the app ends, and the exit status that must come of it."""

    name: str
    status: int
    signal: int | None = None
    exits_with: int = 0
    app: tuple[tuple[str, str], ...] = ()


ENDS = (
    End("sigterm", 0, signal=signal.SIGTERM),
    End("sigint, exits 143", 143, signal=signal.SIGINT, app=(("exit_status", "143"),)),
    End("sigterm ignored", 137, signal=signal.SIGTERM, app=(("ignore_sigterm", "1"),)),
    End("exits by itself with 0", 0, exits_with=0),
    End("exits by itself with 3", 3, exits_with=3),
    End("dies by SIGKILL", 137, exits_with=-9),
)


@pytest.mark.parametrize("end", ENDS, ids=lambda end: end.name.replace(" ", "-"))
def test_every_acknowledged_row_survives_the_machine(end: End, machine: Machine, seaweed: Seaweed, bucket: str) -> None:
    """
    1. The guestbook runs on an empty store; four clients sign it while restore points are published every half second.
    2. It ends in one of many ways, under load. The exit status is the app's own.
    3. The data directory is deleted; a boot elsewhere restores it before the app starts.
    Result: every entry that was acknowledged is there, and nothing else was left behind anywhere.
    """
    settings = {"interval": "500ms", "shutdown_grace": "2s"}
    with serve(machine, settings, allow_exit="1", **dict(end.app)) as process:
        with Load(port_of(process)) as load:
            load.wait_acked(30)
            process.wait_metric("sidecar_backups_total", 1, outcome="published")
            load.wait_acked(20)
            if end.signal:
                process.signal(end.signal)
            else:
                assert ask(load._port, "POST", "/api/exit", {"status": end.exits_with})[0] == 202
            assert process.wait() == end.status
        assert process.family() == []
    assert machine.leftovers() == []
    assert seaweed.s3.open_uploads(bucket) == []
    assert load.acked

    machine.lose_disk()
    with serve(machine, settings) as process:
        found = entries(port_of(process))
        process.wait_ready()
        assert load.acked.items() <= found.items()
        assert process.metric("sidecar_restores_total", outcome="restored") == 1
        assert process.terminate() == 0
