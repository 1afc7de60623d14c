"""The app as a child: what it inherits, what it is told, what becomes of its relatives."""

import os
import signal

import pytest

from tests.e2e.machine import CALM_APP, NAMESPACE, Machine, complaint, inside, may_unshare, notes, python_app

# Prints the signals it gets, and ends with 5 on SIGTERM.
LISTENER = python_app(
    "import signal, sys\n"
    "say = lambda number, _: print('got', signal.Signals(number).name, flush=True)\n"
    "for number in (1, 10, 12, 28): signal.signal(number, say)\n"
    "signal.signal(15, lambda *_: sys.exit(5))\n"
    "print('app started', flush=True)\n"
    "while True: signal.pause()"
)

# Ends with 0 at once; a process of its group stays, and writes one row when it is told to end.
LEAVES_A_WRITER = """
import os, signal, sqlite3, sys, time
database = sys.argv[1]
def write(text):
    connection = sqlite3.connect(database, isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE IF NOT EXISTS notes (text TEXT NOT NULL)")
    connection.execute("INSERT INTO notes VALUES (?)", (text,))
    connection.close()
def last_words(*_):
    write("last words")
    time.sleep(0.3)
    write("very last words")
    os._exit(0)
ready, told = os.pipe()
if os.fork() == 0:
    signal.signal(signal.SIGTERM, last_words)
    os.write(told, b"x")
    while True:
        signal.pause()
os.read(ready, 1)
write("first words")
"""

# Makes orphans that end at once, and one that lives; ends with 9 once no zombie is left, else with 1.
MAKES_ORPHANS = """
import os, sys, time
from pathlib import Path
def orphan(seconds):
    if os.fork() == 0:
        if os.fork() == 0:
            time.sleep(seconds)
        os._exit(0)
    os.wait()
for number in range(20):
    orphan(0.01)
orphan(60)
def zombies():
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] == "Z":
            found.append(path.parent.name)
    return found
deadline = time.monotonic() + 10
time.sleep(0.1)
while zombies() and time.monotonic() < deadline:
    time.sleep(0.05)
print("parent", os.getppid(), "zombies", zombies(), flush=True)
sys.exit(1 if zombies() else 9)
"""

needs_namespace = pytest.mark.skipif(
    not may_unshare(*NAMESPACE[1:4]), reason="making a PID namespace is not permitted here"
)


def test_stdin_stdout_stderr_and_environment_are_inherited(local: Machine) -> None:
    """Bytes pass as they are; the app sees the environment; nothing of ours is mixed into its stdout."""
    app = ("sh", "-c", 'cat; echo "$GREETING" >&2; exit 4')
    done = local.cli("run", "--", *app, stdin="grüße\n".encode(), env={"GREETING": "hello from the app"})
    assert done.returncode == 4
    assert done.stdout == "grüße\n"
    assert "hello from the app\n" in done.stderr


def test_other_signals_pass_through_and_only_sigterm_stops(local: Machine) -> None:
    """HUP, USR1, USR2 and WINCH reach the app; SIGTERM does too, once, and the status is the app's."""
    with local.run(*LISTENER) as process:
        process.wait_for_log("app started")
        for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "SIGWINCH"):
            process.signal(signal.Signals[name])
            process.wait_for_log(f"got {name}", 5)
        assert process.http("/readyz")[0] == 200
        assert process.terminate() == 5


def test_leftover_processes_end_before_the_final_backup_which_has_their_last_writes(local: Machine) -> None:
    """
    1. The app ends with 0; a process of its group lives on.
    2. It gets SIGTERM, and writes twice before it ends.
    Result: both rows are in the restore point, and no process is left.
    """
    with local.run(*python_app(LEAVES_A_WRITER, str(local.database)), shutdown_grace="2s") as process:
        assert process.wait() == 0
        assert process.family() == []
    assert notes(local.restore_copy()) == ["first words", "last words", "very last words"]


def test_leftover_that_ignores_sigterm_is_killed_after_the_grace(local: Machine) -> None:
    """The exit status stays the app's own."""
    app = ("sh", "-c", "(trap '' TERM; echo stays; while :; do sleep 0.05; done) & sleep 0.2; exit 6")
    with local.run(*app, shutdown_grace="500ms") as process:
        assert process.wait() == 6
        assert process.family() == []


@pytest.mark.parametrize("variable", ["RELEASE_COMMAND", "FLY_TEST_COMMAND"])
def test_release_command_replaces_the_process_and_touches_nothing(variable: str, local: Machine) -> None:
    """Same process id, the command's exit status, and not a look at settings: nonsense in them goes unnoticed."""
    nonsense = {"SIDECAR_NONSENSE": "1", "SIDECAR_STORE": "ftp://nowhere", "SIDECAR_INTERVAL": "-5", variable: "1"}
    with local.run("sh", "-c", "echo pid $$; exit 11", env=nonsense) as process:
        assert process.wait() == 11
        assert process.stdout() == f"pid {process.pid}\n"
        assert process.stderr() == ""
    assert local.files() == []
    assert not (local / "store").exists()


@pytest.mark.parametrize(
    ("command", "status", "env"),
    [
        ("no-such-command", 127, {}),
        ("/etc/passwd", 126, {}),
        ("/", 126, {}),
        ("no-such-command", 127, {"RELEASE_COMMAND": "1"}),
    ],
)
def test_command_that_cannot_start_is_one_line(command: str, status: int, env: dict[str, str], local: Machine) -> None:
    """127 for one that does not exist, 126 for one that is not executable; the store is not touched."""
    done = local.cli("run", "--", command, env=env)
    assert done.returncode == status
    assert command in complaint(done.stderr)
    assert local.files() == []
    assert not (local / "store").exists()


def test_script_without_an_interpreter_is_126(local: Machine) -> None:
    """The mode is right and the kernel refuses it nevertheless: known only after the boot."""
    script = local / "script"
    script.write_bytes(b"\x00\x01garbage")
    script.chmod(0o755)
    done = local.cli("run", "--", str(script))
    assert done.returncode == 126
    assert "script" in complaint(done.stderr)


def test_second_sidecar_on_the_same_database_is_refused(local: Machine) -> None:
    """75 and one line that names the first one; the first one goes on, and its database is not touched."""
    with local.run(*CALM_APP) as first:
        first.wait_ready()
        with local.run("touch", str(local / "marker")) as second:
            assert second.wait() == 75
            assert str(first.pid) in complaint(second.stderr())
        assert not (local / "marker").exists()
        assert first.http("/readyz")[0] == 200
        assert first.terminate() == 0
    with local.run(*CALM_APP) as third:
        third.wait_ready()
        assert third.terminate() == 0


@needs_namespace
def test_pid_1_reaps_orphans_and_keeps_the_status_of_the_app(local: Machine) -> None:
    """Twenty orphans die: no zombie is left; one outlives the app: it does not change the status."""
    with local.run(*python_app(MAKES_ORPHANS), prefix=NAMESPACE, shutdown_grace="1s") as process:
        assert process.wait() == 9, process.report()
        assert "parent 1 zombies []" in process.stdout()


@needs_namespace
def test_pid_1_obeys_sigterm(local: Machine) -> None:
    """As in a container: the signal goes to PID 1, which has no default action for it."""
    with local.run(*LISTENER, prefix=NAMESPACE) as process:
        process.wait_for_log("app started")
        os.kill(inside(process), signal.SIGTERM)
        assert process.wait() == 5
