"""Waiting until what was committed is stored, end to end: by HTTP, by the command and by the library."""

import asyncio
import http.client
import json
import os
import pwd
import random
import shutil
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import sidecar
from sidecar.daemon.sockets import listen_privately
from tests.docs import DOCS
from tests.docs.markdown import Page
from tests.e2e.fleet import Fleet, freeze, thaw
from tests.e2e.guestbook import ask, port_of, serve
from tests.e2e.machine import CALM_APP, Machine, complaint, write_note
from tests.e2e.streaming import STREAM, status_of, streamed
from tests.harness.eventually import eventually
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.writers import open_database
from tests.stress.waiting import Waiting

if TYPE_CHECKING:
    from tests.harness.proxy import FaultProxy
    from tests.harness.seaweed import Seaweed

pytestmark = pytest.mark.s3

EXAMPLES = {
    fence.language: fence.text for fence in Page(DOCS / "wait.md").fences if "127.0.0.1:9180/wait" in fence.text
}
RUNS = {
    "python": (sys.executable, "stored.py"),
    "js": ("node", "stored.js"),
    "go": ("go", "run", "stored.go"),
    "sh": ("sh", "stored.sh"),
}


def wait(process: SidecarProcess, query: str = "") -> tuple[int, dict[str, Any], str | None]:
    """Status, answer and `Retry-After`."""
    connection = http.client.HTTPConnection(LOOPBACK, process.port, timeout=60)
    with closing(connection):
        connection.request("POST", f"/wait{query}")
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read()), answer.headers.get("Retry-After")


def protects(process: SidecarProcess) -> None:
    process.wait_ready()
    eventually(lambda: status_of(process)["protects"], 30, "the stream protects")


def test_what_was_answered_is_there(tmp_path: Path, seaweed: "Seaweed", bucket: str) -> None:
    """
    Eight clients sign a guestbook that answers only for what is stored. Right after an answer everything is killed, and the
    disk is lost. Another machine boots, and the same happens to it.
    Result: every entry that was answered is there each time. Over ten seconds on a busy machine: three boots, two takeovers.
    """
    waiting = Waiting(tmp_path, seaweed, random.Random(1), 8, bucket, longest=0.5)
    for _ in range(2):
        waiting.round()
    waiting.round(writes=False)
    assert waiting.lost == []
    assert waiting.acked


def test_a_machine_that_was_replaced_while_somebody_waited_never_says_yes(fleet: Fleet) -> None:
    """
    1. A streams. Its store does not answer; somebody waits for a commit, and A is suspended. B takes over.
    2. A wakes up, with its store.
    Result: whoever waited is not told that it is stored, nor is anybody who asks later.
    """
    a, b = fleet.member("a"), fleet.member("b")
    answers: list[int] = []

    def ask_for_ever(process: SidecarProcess) -> None:
        try:
            while process.running:
                answers.append(wait(process, "?timeout=1m")[0])
        except (OSError, http.client.HTTPException):
            answers.append(0)  # it has ended

    with a.run(**STREAM) as first, ExitStack() as stack:
        streamed(a, first)
        assert wait(first)[0] == 200
        a.proxy.down()
        a.wait_acked(3)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        waiting = pool.submit(ask_for_ever, first)
        eventually(lambda: first.metric("sidecar_wait_waiters") == 1, 30, "somebody waits")
        freeze(*first.family())
        second = stack.enter_context(b.run(**STREAM))
        second.wait_ready(60)
        a.proxy.up()
        thaw(*first.family())
        assert first.wait(60) == 75
        waiting.result(60)
        assert answers
        assert 200 not in answers
        second.kill()


def test_answers(proxied: Machine, proxy: "FaultProxy") -> None:
    """Before there is a database; while the store answers and while it does not; for nonsense; and at the end."""
    with proxied.run(*CALM_APP, **STREAM) as process, ExitStack() as stack:
        process.wait_ready()
        status, answer, again = wait(process)
        assert (status, answer["stored"], again) == (503, False, "1")
        assert "nothing is streamed now" in answer["error"]
        app = stack.enter_context(closing(open_database(proxied.database)))  # open: nobody else would have it open
        app.execute("PRAGMA journal_mode=wal")
        app.execute("CREATE TABLE notes (text)")
        protects(process)
        status, answer, _ = wait(process, "?database=app.db&timeout=20s")
        assert (status, answer["databases"]["app.db"]["stream"]) == (200, status_of(process)["name"])
        for query, expected in (
            ("?timeout=0", 400),
            ("?timeout=-1s", 400),
            ("?timeout=365d", 400),
            ("?database=other.db", 404),
        ):
            status, answer, again = wait(process, query)
            assert (status, answer["stored"], again) == (expected, False, None)
            assert answer["hint"]
        assert proxied.cli("wait").stdout.startswith("app.db: stored up to commit")
        done = proxied.cli("wait", "--timeout=0")
        assert done.returncode == 64
        assert "timeout: 0s is not between 10ms and 10m" in complaint(done.stderr)
        proxy.down()
        app.execute("INSERT INTO notes VALUES ('one')")
        status, answer, again = wait(process, "?timeout=300ms")
        assert (status, answer["stored"], again) == (503, False, "1")
        done = proxied.cli("wait", "--timeout=300ms")
        assert done.returncode == 75
        assert "not stored within 0.3 s: the store has not taken the segment yet" in complaint(done.stderr)
        proxy.up()
        assert wait(process, "?timeout=30s")[0] == 200
        assert (process.metric("sidecar_wait_failures_total"), process.metric("sidecar_wait_waiters")) == (3, 0)
        assert process.metric("sidecar_wait_seconds_count") == 3
        assert "3 stored, on average after" in proxied.cli("status").stdout
        assert process.terminate() == 0
    done = proxied.cli("wait")
    assert done.returncode == 75
    assert "no sidecar runs" in complaint(done.stderr)


async def durable(machine: Machine) -> dict[str, int]:
    async with sidecar.open(databases=[machine.database], store=machine.store) as session:
        with pytest.raises(sidecar.errors.UsageError):
            await session.durable("other.db")
        for timeout in (0.0, -1.0, 31e6, float("nan"), float("inf")):
            with pytest.raises(sidecar.errors.UsageError):
                await session.durable(timeout=timeout)
        return dict((await session.durable()).commits)


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"stream": "off"}, "app.db is not streamed"), ({"stream": "on", "journal_mode": "keep"}, "is not in WAL mode")],
)
def test_what_is_not_streamed_is_never_confirmed(local: Machine, settings: dict[str, Any], why: str) -> None:
    with closing(open_database(local.database)) as connection:
        connection.execute("CREATE TABLE t (a)")
    with local.run(*CALM_APP, **settings) as process:
        process.wait_ready()
        status, answer, again = wait(process)
    assert (status, answer["stored"], again) == (503, False, None if settings["stream"] == "off" else "1")
    assert why in answer["error"]


def test_without_a_lease_and_with_the_library_it_waits_as_well(local: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", local.env["TMPDIR"])  # where the locks are that lead to the daemon
    write_note(local.database, "one")
    with local.run(*CALM_APP, lease="off", **STREAM) as process, closing(open_database(local.database)) as app:
        protects(process)
        app.execute("INSERT INTO notes VALUES ('two')")
        assert wait(process, "?timeout=30s")[0] == 200
        assert asyncio.run(durable(local)) == {"app.db": status_of(process)["commits"]}


def test_the_guestbook_says_what_is_not_confirmed(proxied: Machine, proxy: "FaultProxy") -> None:
    """503 with the entry's id: it is committed, and nobody has taken it back."""
    listen = free_port()
    url = f"http://{LOOPBACK}:{listen}/wait?timeout=500ms"
    with serve(proxied, STREAM | {"listen": f"{LOOPBACK}:{listen}"}, wait_url=url) as process:
        port = port_of(process)
        protects(process)
        assert ask(port, "POST", "/api/entries", {"name": "a", "message": "one"})[0] == 201
        proxy.down()
        status, answer = ask(port, "POST", "/api/entries", {"name": "a", "message": "two"})
        assert (status, answer["id"]) == (503, 2)
        assert answer["error"].startswith(
            "entry 2 is written here, and not confirmed to be stored: not stored within 0.5 s"
        )
        assert ask(port, "GET", "/api/entries")[1]["count"] == 2
        proxy.up()
        assert process.terminate() == 0


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be another user")
def test_another_user_does_not_reach_the_control_socket(tmp_path: Path) -> None:
    path = tmp_path / "private" / "control.sock"
    with closing(listen_privately(path)):
        tmp_path.chmod(0o755)
        assert _connects(path, 0)
        assert not _connects(path, pwd.getpwnam("nobody").pw_uid)
        path.parent.chmod(0o755)  # its own mode refuses, too
        assert not _connects(path, pwd.getpwnam("nobody").pw_uid)


def _connects(path: Path, user: int) -> bool:
    """Whether a process of this user can connect; in a child, which does nothing else."""
    directory = os.open(path.parent, os.O_PATH)
    child = os.fork()
    if not child:
        try:
            if user:
                os.fchdir(directory) if os.access(path.parent, os.X_OK) else None
                os.setuid(user)
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(str(path))
            os._exit(0)
        except OSError:
            os._exit(1)
    os.close(directory)
    return os.waitpid(child, 0)[1] == 0


def run_example(language: str, machine: Machine, port: int, timeout: str) -> str:
    """What the example of the documentation prints, run as it stands there but for the port and the timeout."""
    program = RUNS[language]
    if not shutil.which(program[0]):
        pytest.skip(f"no {program[0]} here")
    text = EXAMPLES[language].replace("127.0.0.1:9180", f"{LOOPBACK}:{port}").replace("5s", timeout)
    Path(machine.root, program[-1]).write_text(text)
    done = subprocess.run(
        program,
        cwd=machine.root,
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "GO111MODULE": "off", "CGO_ENABLED": "0"},
        check=False,
    )
    assert not done.stderr, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("language", RUNS)
def test_the_examples_of_the_documentation(machine: Machine, seaweed: "Seaweed", language: str) -> None:
    """Each is told what is stored, and what is not while the store hangs. Go compiles its HTTP client first, which takes up to a minute, once."""
    write_note(machine.database, "one")
    with machine.run(*CALM_APP, **STREAM) as process:
        protects(process)
        assert run_example(language, machine, process.port, "20s") == "stored"
        seaweed.pause()
        try:
            write_note(machine.database, "two")
            assert run_example(language, machine, process.port, "300ms") == "not confirmed"
        finally:
            seaweed.resume()
        assert process.terminate() == 0
