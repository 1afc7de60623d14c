"""The one-shot commands, with and without a daemon beside them."""

import hashlib
import json
import os
import pty
import re
import signal
import socket
import sqlite3
import subprocess
from contextlib import closing, suppress

import pytest

from tests.e2e.machine import CALM_APP, Machine, complaint, notes, write_note
from tests.harness.eventually import eventually
from tests.harness.proxy import FaultProxy, Stall, Throttle, s3_error
from tests.harness.sidecar_process import SIDECAR
from tests.harness.writer_process import WriterProcess

KEY = re.compile(r"app\.db/\d{8}T\d{6}\.\d{3}Z\.sqlite3\.zst")


def keys(machine: Machine) -> list[str]:
    """Every key, oldest first, by `sidecar list --json`."""
    done = machine.cli("list", "--json")
    assert done.returncode == 0, done.stderr
    return [point["key"] for point in json.loads(done.stdout)["databases"][0]["restore_points"]]


def test_backup_and_status_through_the_daemon(local: Machine) -> None:
    """
    1. A daemon with an interval of an hour runs; a row is written.
    2. `backup` has the daemon publish: a new restore point, by the daemon's own counters. Again: unchanged.
    3. `status` shows the daemon's view; `restore` onto the database is refused and changes nothing.
    """
    with local.run(*CALM_APP) as process:
        process.wait_ready()
        write_note(local.database, "asked for")
        done = local.cli("backup")
        assert done.returncode == 0, done.stderr
        key = KEY.search(done.stdout)
        assert key, done.stdout
        assert [path.name for path in local.points()] == [key[0].partition("/")[2]]
        assert process.metric("sidecar_backups_total", outcome="published") == 1
        assert "unchanged" in local.cli("backup").stdout
        assert len(local.points()) == 1
        shown = local.cli("status").stdout
        assert "running" in shown
        assert "verdict   Protected since " in shown
        holder = json.loads(process.http("/status")[1])["lease"]["holder"]
        assert f"holder    {holder}\n" in shown
        assert key[0] in shown
        status = json.loads(local.cli("status", "--json").stdout)
        assert status["phase"] == "running"
        assert status["databases"][0]["restore_point"] == key[0]
        before = local.disk()
        for arguments in (["restore"], ["restore", "--force"]):
            refused = local.cli(*arguments)
            assert refused.returncode in {64, 75}
            assert str(local.database) in complaint(refused.stderr)
        assert local.disk() == before
        assert process.terminate() == 0
    assert notes(local.restore_copy()) == ["asked for"]


def test_backup_through_the_daemon_shows_how_far_it_is(proxied: Machine, proxy: FaultProxy) -> None:
    """On a terminal: a bar with bytes and rate, from the daemon that does the work."""
    write_much(proxied)
    with proxied.run(*CALM_APP, concurrency=1, part_size="5MiB") as process:
        process.wait_ready()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        write_much(proxied)
        proxy.rule(Throttle(4 << 20))
        done, terminal = in_terminal(proxied, "backup")
        assert done == 0, terminal
        assert "published" in terminal
        assert re.search(r"[1-9][0-9.]*[kM]/[0-9.]+M", terminal), terminal
        assert "MB/s" in terminal
        proxy.clear()
        assert process.terminate() == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP], ids=["vanishes", "never reads"])
def test_whoever_asked_for_a_backup_does_not_disturb_it(
    proxied: Machine, proxy: FaultProxy, number: signal.Signals
) -> None:
    """1. An upload is under way, for a client. 2. That is killed, or stopped. 3. It is published, and so is the next."""
    write_much(proxied)
    with proxied.run(*CALM_APP) as process:
        process.wait_ready()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        write_much(proxied)
        proxy.clear()
        slow = proxy.rule(Throttle(4 << 20))
        with proxied.start("backup") as client:
            proxy.wait_seen("PUT", ".zst", timeout=30)
            os.kill(client.pid, number)
            process.wait_metric("sidecar_backups_total", 2, outcome="published")
            proxy.remove(slow)
            write_note(proxied.database, "next")
            assert proxied.cli("backup").returncode == 0
            assert process.metric("sidecar_backups_total", outcome="published") == 3
            assert process.metric("sidecar_backups_total", outcome="failed") == 0
            os.kill(client.pid, signal.SIGKILL)
        assert process.terminate() == 0
        assert "Traceback" not in process.stderr()


def test_status_does_not_wait_for_a_daemon_that_is_frozen(local: Machine) -> None:
    """It says so and is 75; thawed, the daemon answers again."""
    write_note(local.database, "one")
    with local.run(*CALM_APP) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        os.kill(process.pid, signal.SIGSTOP)
        try:
            frozen = local.cli("status", timeout=100)
        finally:
            os.kill(process.pid, signal.SIGCONT)
        assert frozen.returncode == 75
        # Or the store does not, within the second that is left: the daemon may have its lock, or the machine is busy.
        assert re.search("does not answer|/store did not answer within", complaint(frozen.stderr))
        eventually(lambda: "daemon    running" in local.cli("status").stdout, 60, "the daemon answers again")
        assert process.terminate() == 0


def test_key_may_be_written_as_other_tools_do(local: Machine) -> None:
    """With the store's URL before it, as in `aws s3 cp`."""
    write_note(local.database, "one")
    assert local.publish() == "published"
    key = f"{local.store}/app.db/{local.points()[0].name}"
    done = local.cli("restore", "--key", key, "--output", str(local / "copy.db"))
    assert done.returncode == 0, done.stderr
    assert notes(local / "copy.db") == ["one"]


def test_backup_of_two_databases_of_which_one_is_not_there_yet(local: Machine) -> None:
    """The one is published; of the other that is said. Nothing at all to back up is a mistake."""
    write_note(local.database, "one")
    both = f"{local.database},{local.data}/later.db"
    with local.run(*CALM_APP, databases=both) as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        write_note(local.database, "two")
        done = local.cli("backup", databases=both)
        assert done.returncode == 0
        assert "later.db: nothing to back up: it does not exist yet" in done.stdout
        verdict = json.loads(process.http("/status")[1])["verdict"]
        assert (verdict["level"], verdict["title"]) == ("wait", "Nothing to protect yet: later.db")
        assert process.terminate() == 0


def test_status_without_a_control_socket_is_what_the_store_says(local: Machine) -> None:
    """Of a daemon without one, or beside another command: it is not taken for nobody, nor waited for."""
    write_note(local.database, "one")
    with local.run(*CALM_APP, control_socket="off") as process:
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        shown = local.cli("status")
        assert shown.returncode == 0
        assert f"a sidecar (pid {process.pid}) runs here, without a control socket" in shown.stdout
        assert f"newest restore point  app.db/{local.points()[-1].name}" in shown.stdout
        assert process.terminate() == 0


def write_much(machine: Machine) -> None:
    """24 MB that nothing compresses."""
    with closing(sqlite3.connect(machine.database)) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS much (data)")
        connection.executemany("INSERT INTO much VALUES (randomblob(1000000))", [()] * 24)
        connection.commit()


def in_terminal(machine: Machine, *arguments: str) -> tuple[int, str]:
    """The exit status of a command whose output goes to a terminal, and what that showed."""
    ours, theirs = pty.openpty()
    environment = {**machine._environment({}), "TERM": "xterm", "COLUMNS": "120", "SIDECAR_LISTEN": "off"}
    with subprocess.Popen(
        [*SIDECAR, *arguments], env=environment, cwd=machine.root, stdout=theirs, stderr=theirs
    ) as child:
        os.close(theirs)
        shown = b""
        with suppress(OSError):  # Linux' word for the end of a terminal
            while some := os.read(ours, 65536):
                shown += some
        os.close(ours)
    return child.returncode, re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown.decode())


def test_backup_through_the_daemon_reports_its_failure(local: Machine) -> None:
    """The daemon's cycle fails: `backup` says why on one line, with that error's code; the daemon goes on."""
    with local.run(*CALM_APP) as process:
        process.wait_ready()
        write_note(local.database, "row")
        assert local.cli("backup").returncode == 0
        for path in local.data.glob("app.db*"):
            path.unlink()
        done = local.cli("backup")
        assert done.returncode == 65
        assert f"{local.database} is gone" in complaint(done.stderr)
        assert process.http("/readyz")[0] == 200
        assert process.terminate() == 74
    assert notes(local.restore_copy()) == ["row"]


def test_backup_while_the_daemon_has_no_control_socket_is_refused(local: Machine) -> None:
    """Never a second writer: 75, and nothing is published."""
    with local.run(*CALM_APP, control_socket="off") as process:
        process.wait_ready()
        write_note(local.database, "row")
        done = local.cli("backup", control_socket="off")
        assert done.returncode == 75
        assert str(process.pid) in complaint(done.stderr)
        assert local.points() == []


def test_history_by_hand(local: Machine) -> None:
    """
    `backup` twice without a daemon, then: list, status, verify, and every way to restore; an existing file is only
    replaced with --force, and kept.
    """
    write_note(local.database, "first")
    assert local.cli("backup").returncode == 0
    write_note(local.database, "second")
    assert local.cli("backup").returncode == 0
    assert "unchanged" in local.cli("backup").stdout
    first, second = keys(local)
    assert first < second

    table = local.cli("list").stdout.splitlines()
    assert [line.split()[-1] for line in table] == ["KEY", first, second]
    shown = local.cli("status").stdout
    assert second in shown
    assert re.search(r"^holder    none; \S+ was the last one$", shown, re.MULTILINE), shown
    assert re.search(r"^  restore points +2$", shown, re.MULTILINE), shown
    assert re.search(rf"^  oldest restore point +{re.escape(first)}$", shown, re.MULTILINE), shown
    status = json.loads(local.cli("status", "--json").stdout)
    assert (status["source"], status["databases"][0]["restore_point"]) == ("store", second)
    listing = status["databases"][0]["listing"]
    assert (listing["count"], listing["oldest"]["key"], listing["newest"][0]["key"]) == (2, first, second)
    assert (status["lease"]["held"], status["lease"]["epoch"]) == (False, 3)
    assert local.cli("verify").stdout == f"{second}: good\n"
    rows = [line.split() for line in local.cli("verify", "--all").stdout.splitlines()]
    assert [(row[0], row[-1]) for row in rows] == [("KEY", "RESULT"), (first, "good"), (second, "good")]

    copy = local / "elsewhere.db"
    assert local.cli("restore", "--key", first, "--output", str(copy)).returncode == 0
    assert notes(copy) == ["first"]
    exists = local.cli("restore", "--output", str(copy))
    assert exists.returncode == 64
    assert "`sidecar restore --force` replaces it" in complaint(exists.stderr)
    assert notes(copy) == ["first"]
    at = first.partition("/")[2].partition(".sqlite3")[0]
    assert local.cli("restore", "--at", at, "--output", str(copy), "--force").returncode == 0
    assert notes(copy) == ["first"]
    assert local.cli("restore", "--output", str(copy), "--force").returncode == 0
    assert notes(copy) == ["first", "second"]
    assert len(list(local.root.glob("elsewhere.db.replaced-*"))) == 2

    write_note(local.database, "never published")
    back = local.cli("restore", "--key", first, "--force")
    assert back.returncode == 0
    assert "not the newest" in back.stdout
    assert notes(local.database) == ["first"]
    kept = list(local.data.glob("app.db.replaced-*Z"))
    assert [notes(path) for path in kept] == [["first", "second", "never published"]]
    assert local.leftovers() == []


def test_backup_that_fails_by_request_is_in_the_daemons_log_too(proxied: Machine, proxy: FaultProxy) -> None:
    """Whoever asked may be a script that nobody reads; and one who vanished is no traceback."""
    write_note(proxied.database, "first")
    with proxied.run(*CALM_APP, interval="1h", control_socket=str(proxied / "c")) as process:
        process.wait_ready()
        process.wait_metric("sidecar_backups_total", 1, outcome="published")
        write_note(proxied.database, "second")
        denied = proxy.rule(s3_error(403, "AccessDenied"))  # never retried, so that nobody waits
        done = proxied.cli("backup", control_socket=str(proxied / "c"))
        assert done.returncode == 77
        assert "app.db: " in complaint(done.stderr)
        process.wait_for_log("backup failed")
        proxy.remove(denied)
        for _ in range(5):
            with closing(socket.socket(socket.AF_UNIX)) as gone:
                gone.connect(str(proxied / "c"))
                gone.sendall(b"POST /backup HTTP/1.1\r\nHost: sidecar\r\nContent-Length: 0\r\n\r\n")
        assert process.terminate() == 0
        assert "Traceback" not in process.output()


def test_verify_calls_a_newer_format_what_it_is(local: Machine) -> None:
    """It is not damaged, and what this sidecar cannot read it has not proven either."""
    for text in ("first", "second"):
        write_note(local.database, text)
        assert local.publish() == "published"
    path = min(local.points())
    data = path.read_bytes().replace(b'"format":1', b'"format":9')
    start = data.rindex(b"{", 0, data.index(b'"format":9'))
    end = start + int.from_bytes(data[start - 4 : start], "little") - 32
    path.write_bytes(data[:end] + hashlib.sha256(data[start:end]).digest() + data[end + 32 :])
    done = local.cli("verify", "--all")
    assert done.returncode == 78
    assert "NOT VERIFIED" in done.stdout
    assert "format version 9" in done.stdout
    assert "1 of 2 restore points have a newer format" in complaint(done.stderr)
    assert "damaged" not in (done.stdout + done.stderr).lower()


def test_undone_history_becomes_the_newest_with_backup(local: Machine) -> None:
    """restore --key of an old point, then `backup`: a boot elsewhere gets the old state back, as was asked for."""
    for text in ("first", "second"):
        write_note(local.database, text)
        assert local.publish() == "published"
    assert local.cli("restore", "--key", keys(local)[0], "--force").returncode == 0
    done = local.cli("backup")
    assert done.returncode == 0, done.stderr
    assert notes(local.restore_copy()) == ["first"]


def test_restore_refuses_a_database_that_is_open(local: Machine) -> None:
    """75 while any process has it open, and not a byte changes; afterwards it works."""
    write_note(local.database, "row")
    assert local.publish() == "published"
    with WriterProcess(local.database, "--rate", "50", env=local.env, directory=local.root) as writer:
        acked = writer.wait_acked(5)
        refused = local.cli("restore", "--force")
        assert refused.returncode == 75
        assert str(writer.child.pid) in complaint(refused.stderr)
        writer.wait_acked(acked + 5)
        assert writer.stop() == 0
    assert local.cli("restore", "--force").returncode == 0
    assert notes(local.database) == ["row"]
    assert local.leftovers() == []


@pytest.mark.parametrize("command", ["restore", "verify"])
def test_nothing_to_restore_is_66(command: str, local: Machine) -> None:
    """One line, and no file is made."""
    done = local.cli(command)
    assert done.returncode == 66
    assert str(local / "store") in complaint(done.stderr)
    assert local.files() == []


def test_empty_history_is_listed_as_such(local: Machine) -> None:
    """`list` and `status` of nothing are no errors."""
    assert local.cli("list").returncode == 0
    assert json.loads(local.cli("list", "--json").stdout)["databases"] == [{"name": "app.db", "restore_points": []}]
    assert local.cli("status").returncode == 0


def test_a_named_database_without_restore_points_is_66(local: Machine) -> None:
    """A mistyped name is an error, which names what the store has; what is printed stays valid."""
    write_note(local.database, "row")
    assert local.publish() == "published"
    named = local.cli("list", "--database", "unknown.db")
    assert (named.returncode, named.stdout) == (66, "")
    assert re.search(r"no restore points of unknown\.db in .*app\.db", complaint(named.stderr))
    as_json = local.cli("list", "--json", "--database", "unknown.db")
    assert as_json.returncode == 66
    assert json.loads(as_json.stdout)["databases"] == [{"name": "unknown.db", "restore_points": []}]
    assert "app.db" in complaint(as_json.stderr)
    both = local.cli("list", "--database", "unknown.db", "--database", str(local.database))
    assert both.returncode == 66
    assert len(both.stdout.splitlines()) == 2
    assert local.cli("list", "--database", str(local.database)).returncode == 0
    assert local.cli("list", "--diverged", "--database", "unknown.db").returncode == 0


@pytest.mark.parametrize(
    ("command", "refuses", "settings", "most"),
    [
        ("list --json", False, {}, 50),
        ("list --json", True, {}, 30),
        ("backup", False, {"restore_timeout": "35s"}, 35),
        ("backup", True, {"restore_timeout": "35s"}, 35),
    ],
)
def test_command_says_that_it_waits_for_a_store(
    command: str, refuses: bool, settings: dict[str, str], most: int, proxied: Machine, proxy: FaultProxy
) -> None:
    """Once, in the log on stderr, while it is tried, and for how long; stdout is for programs."""
    write_note(proxied.database, "row")
    if refuses:
        proxy.down()
    else:
        proxy.rule(Stall(60, 0, "reply"))
    with proxied.start(*command.split(), **settings) as process:
        process.wait_for_log(f'"the store s3://[^ ]* does not answer yet; giving up within {most} s"')
        assert process.stdout() == ""
        assert process.stderr().count("does not answer yet") == 1


def test_database_that_is_locked(local: Machine) -> None:
    """75, with what may hold the lock and how to find it, and nothing of SQLite's own words."""
    write_note(local.database, "row")
    with closing(sqlite3.connect(local.database)) as connection:
        connection.execute("PRAGMA locking_mode=exclusive")
        connection.execute("INSERT INTO notes VALUES ('locked')")
        done = local.cli("backup")
    assert done.returncode == 75
    assert (
        f"{local.database} is locked by another process (does the app, or a shell, keep a transaction open"
        in complaint(done.stderr)
    )
    assert f"`fuser {local.database}`" in done.stderr


def test_status_without_a_restore_point_is_not_protected(local: Machine) -> None:
    """No daemon, nothing in the store: a mistyped name must not look like a quiet day."""
    assert "Not protected" in local.cli("status").stdout
    assert f"there is no restore point of app.db in {local.store}, which does not exist" in local.cli("status").stdout
    assert "which does not exist" in local.cli("list").stdout
    assert json.loads(local.cli("status", "--json").stdout)["verdict"]["level"] == "bad"
    write_note(local.database, "row")
    assert local.cli("backup").returncode == 0
    assert "Not protected" not in local.cli("status").stdout
    assert "nothing has diverged" in local.cli("list", "--diverged").stdout


def backed_up(machine: Machine, *notes: str) -> list[str]:
    """Keys of one restore point for each note."""
    for note in notes:
        write_note(machine.database, note)
        assert machine.publish() == "published"
    return keys(machine)


def test_newest_that_is_gone_is_called_so_and_a_good_one_named(local: Machine) -> None:
    """65, and no word of damage: by verify, which looks for one that is good, by restore, and by status without a daemon."""
    good, bad, lost = backed_up(local, "one", "two", "three")
    (local.points()[2]).unlink()
    local.points()[1].write_bytes(b"no restore point")
    for arguments in (["verify"], ["verify", "--all"]):
        verified = local.cli(*arguments)
        assert verified.returncode == 65
        assert f"the newest restore point is gone from the store: {lost}; 1 of 3 " in complaint(verified.stderr)
        assert f"the newest good one: `sidecar restore --key {good}`" in verified.stderr
    restored = local.cli("restore", "--output", str(local / "copy.db"))
    assert restored.returncode == 65
    assert f"the newest restore point {lost} is gone from the store (`sidecar restore --key {bad}`" in complaint(
        restored.stderr
    )
    shown = local.cli("status").stdout
    assert "Not protected" in shown
    assert f"the newest restore point is gone from the store: {lost}" in shown
    assert json.loads(local.cli("status", "--json").stdout)["verdict"]["level"] == "bad"
    assert local.cli("restore", "--key", good, "--output", str(local / "copy.db")).returncode == 0
    assert notes(local / "copy.db") == ["one"]
    assert "published" in local.cli("backup").stdout
    assert "Not protected" not in local.cli("status").stdout


def test_verify_without_any_that_is_left(local: Machine) -> None:
    """The only one was deleted: no other is promised, and nothing is called damaged."""
    backed_up(local, "row")
    local.points()[0].unlink()
    done = local.cli("verify")
    assert done.returncode == 65
    assert "GONE" in done.stdout
    assert "is gone from the store" in complaint(done.stderr)
    assert "sidecar backup" in done.stderr
    assert "--key" not in done.stderr
    assert "damaged" not in done.stdout + done.stderr


def test_verify_names_a_good_one_instead_of_a_damaged_one(local: Machine) -> None:
    """Where it has looked at others; else it says what does."""
    good, _ = backed_up(local, "one", "two")
    local.points()[1].write_bytes(b"no restore point")
    done = local.cli("verify", "--all")
    assert done.returncode == 65
    assert f"`sidecar restore --key {good}`" in complaint(done.stderr)
    assert "`sidecar verify --all`" in complaint(local.cli("verify").stderr)
