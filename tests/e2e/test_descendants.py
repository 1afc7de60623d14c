"""What an app leaves behind outside its process group ends before the final backup, which has its last rows."""

import os
import signal
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.machine import CALM_APP, NAMESPACE, Machine, calm_app, inside, may_unshare
from tests.harness.eventually import eventually
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.writer_process import WriterProcess, last_ack

PLACES = [
    pytest.param((), id="plain"),
    pytest.param(
        NAMESPACE,
        id="pid-1",
        marks=pytest.mark.skipif(not may_unshare(*NAMESPACE[1:4]), reason="no new PID namespaces here"),
    ),
]

# Commits a row every few milliseconds, and then writes its number to a file. On SIGTERM it goes on for some seconds and
# ends with 7; never, with -1. `stops` stops itself first, `forks` forks at each SIGTERM, `once` ends by itself
# after ten rows and a second, in which it is seen to have the database open.
WRITER = """
import os, signal, sqlite3, sys, time
database, acks, linger, habit = sys.argv[1], sys.argv[2], float(sys.argv[3]), sys.argv[4]
until = float("inf")
def on_signal(*_):
    global until
    if habit == "forks" and os.fork() == 0:
        os.setsid()
        while True:
            signal.pause()
    until = time.monotonic() + linger if linger >= 0 else until
signal.signal(signal.SIGTERM, on_signal)
signal.signal(signal.SIGHUP, lambda *_: print("got HUP", flush=True))
connection = sqlite3.connect(database, isolation_level=None, timeout=20)
connection.execute("PRAGMA journal_mode=wal")
connection.execute("CREATE TABLE IF NOT EXISTS rows (number INTEGER PRIMARY KEY)")
with open(acks, "ab", buffering=0) as file:
    while time.monotonic() < until:
        [(number,)] = connection.execute("INSERT INTO rows DEFAULT VALUES RETURNING number").fetchall()
        file.write(b"%d\\n" % number)
        if habit == "stops" and number == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        if habit == "once" and number == 10:
            time.sleep(1)
            break
        time.sleep(0.005)
sys.exit(7)
"""

# Keeps the given command running in a session of its own. It takes a while to learn of SIGTERM: then it waits for the end.
SUPERVISOR = """
import signal, subprocess, sys, threading
stopping = threading.Event()
signal.signal(signal.SIGTERM, lambda *_: threading.Timer(0.2, stopping.set).start())
while not stopping.is_set():
    child = subprocess.Popen(sys.argv[1:], start_new_session=True)
    print("supervisor started a child", flush=True)
    child.wait()
    stopping.wait(0.02)
"""

# Runs the given command in a session of its own, passes SIGTERM on to the first process of it alone, and ends with that one.
WRAPPER = """
import os, signal, subprocess, sys
child = subprocess.Popen(sys.argv[1:], start_new_session=True)
signal.signal(signal.SIGTERM, lambda number, _: os.kill(child.pid, number))
sys.exit(child.wait() % 256)
"""


class App:
    """The files of one machine's writer, and shell words that start it."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.acks = machine / "acks"
        for name, text in (("writer", WRITER), ("supervisor", SUPERVISOR), ("wrapper", WRAPPER)):
            (machine / f"{name}.py").write_text(text)

    def script(self, name: str, *arguments: object) -> str:
        """Shell words for one of the scripts."""
        return " ".join(map(str, (sys.executable, self.machine / f"{name}.py", *arguments)))

    def writer(self, linger: float = 0.5, habit: str = "-") -> str:
        """Shell words for a writer."""
        return self.script("writer", self.machine.database, self.acks, linger, habit)

    def after_rows(self, number: int, then: str) -> str:
        """Shell words: wait until so many rows are committed, then do something."""
        return f'while [ "$(tail -n 1 {self.acks} 2>/dev/null || echo 0)" -lt {number} ]; do sleep 0.02; done; {then}'

    def wait_rows(self, more: int = 20) -> None:
        """Until so many more rows are committed."""
        least = last_ack(self.acks) + more
        eventually(lambda: last_ack(self.acks) >= least, 20, "rows are committed")

    def require_all_kept(self, process: SidecarProcess) -> int:
        """Nobody is left, and every row that was acknowledged is in the newest restore point. Returns how many."""
        assert process.family() == []
        acked = last_ack(self.acks)
        with closing(sqlite3.connect(self.machine.restore_copy())) as connection:
            [(kept,)] = connection.execute("SELECT count(*) FROM rows").fetchall()
        assert kept >= acked > 0
        return acked


@pytest.fixture
def app(local: Machine) -> App:
    """An app on a machine whose store is a directory."""
    return App(local)


def send(process: SidecarProcess, number: int, place: tuple[str, ...]) -> None:
    """To sidecar itself, wherever it runs."""
    os.kill(inside(process) if place else process.pid, number)


@pytest.mark.parametrize("place", PLACES)
def test_run_goes_on_with_the_daemon_of_a_launcher(place: tuple[str, ...], app: App) -> None:
    """
    1. The command is a launcher: it ends with 0 at once; its daemon opens the database a moment later.
    2. The run goes on; SIGHUP passes through to the daemon. SIGTERM is relayed; the daemon writes on for half a second.
    Result: the status of the daemon, and all its rows.
    """
    with app.machine.run("setsid", "--fork", "sh", "-c", f"exec {app.writer()}", prefix=place) as process:
        process.wait_for_log("command ended, the run continues")
        app.wait_rows()
        assert process.http("/readyz")[0] == 200
        send(process, signal.SIGHUP, place)
        process.wait_for_log("got HUP")
        before = last_ack(app.acks)
        send(process, signal.SIGTERM, place)
        assert process.wait() == 7
        assert app.require_all_kept(process) > before + 10


def test_run_ends_with_the_daemon_of_a_launcher(app: App) -> None:
    """The daemon ends by itself: its status, and its rows."""
    with app.machine.run("setsid", "--fork", "sh", "-c", f"{app.writer(habit='once')}; exit 9") as process:
        assert process.wait() == 9
        assert app.require_all_kept(process) == 10


def test_launcher_whose_daemon_has_no_database_ends_the_run(app: App) -> None:
    """It had the grace to open one; then it is asked to end."""
    with app.machine.run("setsid", "--fork", "sleep", "60", shutdown_grace="1s") as process:
        assert process.wait(15) == 0
        assert process.family() == []
        assert "processes left by the command asked to end" in process.stderr()


def test_app_in_a_session_of_its_own_ends_before_the_final_backup(app: App) -> None:
    """
    1. A wrapper starts a shell in another session, and passes SIGTERM on to that one alone, as `dumb-init --single-child`.
    2. SIGTERM: the shell dies, the wrapper too, and the shell's child writes on.
    Result: it is asked as well; the status is the wrapper's; all rows are kept.
    """
    command = app.script("wrapper", "sh", "-c", f"'{app.writer()}; exit 3'")
    with app.machine.run("sh", "-c", f"exec {command}") as process:
        app.wait_rows()
        before = last_ack(app.acks)
        assert process.terminate() == (-signal.SIGTERM) % 256
        assert app.require_all_kept(process) > before + 10


@pytest.mark.parametrize("place", PLACES)
def test_supervisor_that_is_left_behind_restarts_nothing(place: tuple[str, ...], app: App) -> None:
    """
    1. The app crashes, and leaves a supervisor with a child, each in a session of its own.
    Result: both are ended, the supervisor first; it does not start another child. The status is the app's.
    """
    supervisor = f"setsid {app.script('supervisor', app.writer(linger=0.1))} &"
    with app.machine.run("sh", "-c", f"{supervisor} {app.after_rows(5, 'exit 4')}", prefix=place) as process:
        assert process.wait() == 4
        assert process.stdout().count("supervisor started a child") == 1
        app.require_all_kept(process)


def test_helper_of_a_crashed_app_does_not_keep_the_run_going(app: App) -> None:
    """Though it has the database open: a restart by the platform is what the app needs."""
    with app.machine.run("sh", "-c", f"setsid {app.writer()} & {app.after_rows(5, 'kill -SEGV $$')}") as process:
        assert process.wait() == 128 + signal.SIGSEGV
        assert "the run continues" not in process.stderr()
        app.require_all_kept(process)


@pytest.mark.parametrize(("habit", "linger"), [("-", -1), ("forks", -1)], ids=["ignores", "forks"])
@pytest.mark.parametrize("place", PLACES)
def test_descendant_that_does_not_end_is_killed(place: tuple[str, ...], habit: str, linger: float, app: App) -> None:
    """It ignores SIGTERM, or starts another process whenever it gets one: nobody outlives the grace."""
    command = f"setsid {app.writer(linger, habit)} & {app.after_rows(5, 'exit 4')}"
    with app.machine.run("sh", "-c", command, prefix=place, shutdown_grace="1s") as process:
        assert process.wait() == 4
        assert "processes left by the command killed" in process.stderr()
        app.require_all_kept(process)


def test_second_signal_ends_the_grace_of_descendants(app: App) -> None:
    """A minute is left; the daemon ignores the first signal."""
    with app.machine.run("setsid", "--fork", "sh", "-c", f"exec {app.writer(-1)}", shutdown_grace="60s") as process:
        process.wait_for_log("command ended, the run continues")
        app.wait_rows(1)
        process.signal(signal.SIGTERM)
        process.wait_for_log("asked to end")
        process.signal(signal.SIGTERM)
        assert process.wait(15) == 128 + signal.SIGKILL
        app.require_all_kept(process)


def test_stopped_descendant_is_continued_to_end_by_itself(app: App) -> None:
    """SIGSTOP had it in its hands: SIGTERM alone would wait until it is killed."""
    command = f"setsid {app.writer(0.3, 'stops')} & {app.after_rows(1, 'sleep 0.2; exit 4')}"
    with app.machine.run("sh", "-c", command, shutdown_grace="20s") as process:
        assert process.wait(15) == 4
        assert app.require_all_kept(process) > 1


@pytest.mark.parametrize("status", [0, 3])
def test_what_is_written_after_the_final_backup_is_reported(status: int, app: App) -> None:
    """
    1. A process that is not ours, as those of `docker exec`, goes on writing while the app stops.
    Result: 74, unless the app's own status is a failure; the log says that its last rows are only on this disk.
    """
    local = app.machine
    with (
        WriterProcess(local.database, env=local.env, directory=local.root) as other,
        local.run(*calm_app(status)) as run,
    ):
        run.wait_ready()
        other.wait_acked(50)
        assert run.terminate() == (status or 74)
        assert "a process wrote after the final backup" in run.stderr()
        assert '"protected": false' in run.stderr()
        other.wait_acked(other.acked() + 5)  # it was not touched


def test_without_following_only_the_process_group_ends(app: App) -> None:
    """follow_descendants=off: a launcher ends the run, and its daemon lives on."""
    launcher = "import subprocess; subprocess.Popen(['sleep', '60'], start_new_session=True)"  # returns after exec(3)
    with app.machine.run(sys.executable, "-c", launcher, follow_descendants="off") as process:
        assert process.wait() == 0
        eventually(lambda: len(process.family()) == 1, 5, "the daemon lives")


def test_command_of_a_release_machine_is_not_given_our_orphans(local: Machine) -> None:
    """The subreaper's attribute would survive exec(3): it is set only by a run (prctl(2), PR_GET_CHILD_SUBREAPER)."""
    look = "import ctypes; n = ctypes.c_int(); ctypes.CDLL(None).prctl(37, ctypes.byref(n), 0, 0, 0); print(n.value)"
    for variables in ({"RELEASE_COMMAND": "1"}, {"FLY_TEST_COMMAND": "1"}, {}):
        done = local.cli("run", "--", sys.executable, "-c", look, env=variables)
        assert (done.returncode, done.stdout) == (0, "0\n")


def test_app_that_ends_alone_ends_the_run_at_once(local: Machine) -> None:
    """Without descendants nothing is waited for."""
    with local.run(*CALM_APP, shutdown_grace="60s") as process:
        process.wait_ready()
        assert process.terminate(10) == 0
        assert "processes left" not in process.stderr()
    assert Path(local.store.removeprefix("file://")).is_dir()
