"""Signals that end a run, that pass through it, and that cannot take it away from its app; as PID 1 and not."""

import os
import signal
import sys
from pathlib import Path

import pytest

from sidecar.host.signals import PASSED_ON, format_signal
from tests.e2e.machine import CALM_APP, NAMESPACE, Machine, inside, may_unshare, notes, python_app
from tests.harness.environment import ROOT
from tests.harness.processes import Child
from tests.harness.sidecar_process import SidecarProcess

PLACES = [
    pytest.param((), id="plain"),
    pytest.param(
        NAMESPACE,
        id="pid-1",
        marks=pytest.mark.skipif(not may_unshare(*NAMESPACE[1:4]), reason="no new PID namespaces here"),
    ),
]

# Writes a row, and another one with the number of the signal that ends it; then it dies of that signal.
WRITER = """
import os, resource, signal, sqlite3, sys
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("PRAGMA journal_mode=wal")
connection.execute("CREATE TABLE notes (text TEXT NOT NULL)")
def write(text):
    connection.execute("INSERT INTO notes VALUES (?)", (text,))
def on_signal(number, _):
    write(f"ended by {number}")
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
for number in map(int, sys.argv[2:]):
    signal.signal(number, on_signal)
write("started")
print("app started", flush=True)
while True:
    signal.pause()
"""

# Prints the number of each signal that it gets; ends with 5 on SIGTERM.
LISTENER = """
import signal, sys
def tell(number, _):
    print("got", number, "end", flush=True)
for number in map(int, sys.argv[1:]):
    signal.signal(number, tell)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
print("app started", flush=True)
while True:
    signal.pause()
"""

# Runs the command line to its end, and prints what is not ignored then of the signals that it handled.
AFTERWARDS = """
import signal, sys
from sidecar.cli.main import run_command_line
from sidecar.host.signals import STOPPING, passed_on
handled = (*STOPPING, *passed_on())
code = run_command_line(sys.argv[1:])
print(code, [number for number in handled if signal.getsignal(number) is not signal.SIG_IGN])
"""


def send(process: SidecarProcess, number: int, place: tuple[str, ...] = ()) -> None:
    """To sidecar itself, wherever it runs."""
    os.kill(inside(process) if place else process.pid, number)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGRTMIN + 3], ids=format_signal)
def test_stop_signal_of_an_image_is_relayed_and_ends_in_a_final_backup(
    place: tuple[str, ...], number: int, local: Machine
) -> None:
    """
    1. The signal reaches sidecar: nginx and php-fpm are stopped with SIGQUIT, systemd with SIGRTMIN+3.
    2. The app gets that very signal, writes a row and dies of it.
    Result: 128+n, the row is in the store, and nobody is left.
    """
    with local.run(*python_app(WRITER, str(local.database), str(number)), prefix=place) as process:
        process.wait_for_log("app started")
        process.wait_ready()
        send(process, number, place)
        assert process.wait() == 128 + number
        assert f'"signal": "{format_signal(number)}"' in process.stderr()
        assert process.family() == []
    assert notes(local.restore_copy()) == ["started", f"ended by {number}"]


def test_every_stop_signal_ends_a_run_and_a_second_one_hurries_it(local: Machine) -> None:
    """Without a command there is nobody to relay it to: the first one begins the drain, any other one ends it."""
    for first, second in ((signal.SIGPWR, signal.SIGRTMIN + 15), (signal.SIGRTMIN + 4, signal.SIGXCPU)):
        with local.run(drain="20s") as process:
            process.wait_ready()
            send(process, first)
            process.wait_for_log("stop requested")
            send(process, second)
            assert process.wait(10) == 0


@pytest.mark.parametrize("place", PLACES)
def test_all_other_signals_pass_through(place: tuple[str, ...], local: Machine) -> None:
    """Each reaches the app as it came, real-time ones too; none ends sidecar, whose readiness stays."""
    with local.run(*python_app(LISTENER, *map(str, PASSED_ON)), prefix=place) as process:
        process.wait_for_log("app started")
        process.wait_ready()
        for number in PASSED_ON:
            send(process, number, place)
            process.wait_for_log(f"got {number} end", 5)
        assert process.http("/readyz")[0] == 200
        send(process, signal.SIGTERM, place)
        assert process.wait() == 5


def test_signal_that_ends_only_the_app_ends_the_run_with_a_final_backup(local: Machine) -> None:
    """
    haproxy is stopped with SIGUSR1 and Apache with SIGWINCH. They pass through; the app ends because of them.
    Result: its status, and its last row in the store.
    """
    number = int(signal.SIGUSR1)
    with local.run(*python_app(WRITER, str(local.database), str(number))) as process:
        process.wait_for_log("app started")
        send(process, number)
        assert process.wait() == 128 + number
    assert notes(local.restore_copy()) == ["started", f"ended by {number}"]


def test_stop_signal_before_the_app_ends_with_its_number(local: Machine) -> None:
    """The store is held up by another machine's lease: SIGRTMIN+3 ends the wait, and the app is never started."""
    with local.run(*CALM_APP) as holder:
        holder.wait_ready()
        other = Machine(local.root, local.store, {**local.env, "FLY_MACHINE_ID": "other", "TMPDIR": str(local.data)})
        with other.run("touch", str(local / "marker"), databases=local / "elsewhere" / "app.db") as waiting:
            waiting.wait_for_log("waiting for the lease|lease is held|holds the lease")
            send(waiting, signal.SIGRTMIN + 3)
            assert waiting.wait(10) == 128 + signal.SIGRTMIN + 3
        assert not (local / "marker").exists()
        assert holder.terminate() == 0


def test_no_signal_changes_the_status_once_it_is_decided(local: Machine) -> None:
    """All that were handled are ignored at the end, not only SIGTERM."""
    environment = {**local._environment({"listen": "off"}), "PYTHONPATH": str(ROOT)}
    said = local / "said"
    with said.open("wb") as output:
        child = Child([sys.executable, "-c", AFTERWARDS, "run", "--", "sh", "-c", "exit 3"], environment, stdout=output)
    try:
        assert child.popen.wait(30) == 0
    finally:
        child.kill()
    assert Path(said).read_text() == "3 []\n"
