"""What tests of streaming share: settings under which only streams protect, and waiting for what they protect.

What must survive is learnt from the daemon, not from a clock: a segment that was begun after a row had been acknowledged has
that row, and the second one from now on was begun after now.
"""

import json
import shutil
from typing import Any

from tests.e2e.fleet import Member
from tests.e2e.machine import NAME
from tests.harness.eventually import eventually
from tests.harness.history import history
from tests.harness.sidecar_process import SidecarProcess

# An hour between restore points: whatever survives a kill was in the stream.
STREAM: dict[str, Any] = {"stream": "on", "interval": "1h", "stream_interval": "200ms"}

# Keeps the database open in WAL mode, as apps do: it is followed for as long.
HOLDING = """
import signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA journal_mode=WAL")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.pause()
"""


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
