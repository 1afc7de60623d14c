"""Nobody reads the output that sidecar and its app share: backups, HTTP, the lease and the shutdown go on."""

import os
import signal
import sqlite3
from contextlib import closing

import pytest

from tests.e2e.machine import Machine, python_app
from tests.harness.eventually import eventually
from tests.harness.processes import Child, shell_status
from tests.harness.sidecar_process import SIDECAR

# It fills the pipe, or the terminal, within milliseconds: from then on every write(2) to it would block.
CHATTY = """
import os, sqlite3, sys, threading, time
database = sqlite3.connect(sys.argv[1], isolation_level=None)
database.execute("create table t(n integer primary key)")
def fill():
    while True:
        os.write(1, b"the app has much to say\\n" * 100)
threading.Thread(target=fill, daemon=True).start()
while True:
    database.execute("insert into t default values")
    time.sleep(0.02)
"""


@pytest.mark.parametrize("kind", ["pipe", "terminal"])
def test_a_log_that_nobody_reads_stops_nothing(local: Machine, kind: str) -> None:
    """Restore points are published all the time, and SIGTERM ends in a final one that has every row."""
    reading, writing = os.pipe() if kind == "pipe" else os.openpty()
    env = local._environment({"interval": "200ms", "listen": "off", "log_level": "debug"})
    command = [*SIDECAR, "run", "--", *python_app(CHATTY, str(local.database))]
    child = Child(command, env, cwd=local.root, stdout=writing, stderr=writing)
    try:
        eventually(lambda: len(local.points()) >= 8, timeout=30)
        child.popen.send_signal(signal.SIGTERM)
        assert shell_status(child.popen.wait(30)) == 128 + signal.SIGTERM
    finally:
        child.kill()
        os.close(reading)
        os.close(writing)
    with closing(sqlite3.connect(local.database)) as lived, closing(sqlite3.connect(local.restore_copy())) as restored:
        count = "SELECT count(*) FROM t"
        assert restored.execute(count).fetchone() == lived.execute(count).fetchone()


def test_a_closed_standard_error_stops_nothing(local: Machine) -> None:
    """As some supervisors start their children: `2>&-`."""
    script = 'exec "$@" 2>&-'
    done = local.cli("run", "--", "true", prefix=("sh", "-c", script, "sh"))
    assert done.returncode == 0
