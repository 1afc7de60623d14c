"""The app as another user than the daemon: it owns its database, and cannot have the daemon's rights."""

import os
import pwd
import stat
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.machine import CALM_APP, Machine, complaint, notes, write_note
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually
from tests.harness.fly_machine import FlyMachine, Issuer

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run the app as somebody else")

NOBODY = pwd.getpwnam("nobody")

# Writes its database, then says who it is and whether it could connect to the socket, which takes write permission on it
# (unix(7)). A shell, because the interpreter of the tests may lie where other users may not go.
APP = """
trap 'exit 0' TERM
sqlite3 "$1" "PRAGMA journal_mode=wal; CREATE TABLE IF NOT EXISTS notes (text TEXT NOT NULL);
              INSERT INTO notes VALUES ('from the app')" > /dev/null || exit 1
[ -w "$3" ] && socket=open || socket=closed
{ grep -E '^(Uid|Gid|Groups):' /proc/$$/status; echo "Socket: $socket"; echo "Names: $USER $LOGNAME"; } > "$2.new"
mv "$2.new" "$2"
while :; do
    sqlite3 -cmd ".timeout 5000" "$1" "INSERT INTO notes VALUES ('again')" 2>> "$2.failed"
    sleep 0.05
done
"""


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine that everybody may enter, as a real one; what is inside is root's. (pytest closes its own directories.)"""
    with tempfile.TemporaryDirectory(prefix="app-user-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        (root / "reports").mkdir()
        os.chown(root / "reports", NOBODY.pw_uid, NOBODY.pw_gid)
        yield Machine.make(root, f"file://{root}/store", clean_environment(root))


@pytest.fixture
def api() -> Iterator[Path]:
    """The machine's API: a socket of root's."""
    with FlyMachine(Issuer()) as fly:
        fly.socket.parent.chmod(0o755)
        yield fly.socket


def run_app(machine: Machine, api: Path, user: str) -> dict[str, list[str]]:
    """Run the app to its report, which is returned word by word, and stop it, which backs up once more."""
    report = machine / "reports" / "report"
    report.unlink(missing_ok=True)
    app = ("sh", "-c", APP, "app", str(machine.database), str(report), str(api))
    with machine.run(*app, app_user=user, fly_api_socket=api) as process:
        process.wait_ready()
        eventually(report.exists, timeout=20, what="the app's report")
        assert Path(f"/proc/{process.pid}").stat().st_uid == 0, "the daemon gave up its own rights"
        assert process.terminate() == 0
    return {name: words.split() for name, _, words in (line.partition(":") for line in report.read_text().splitlines())}


@needs_root
def test_the_app_runs_as_its_user_and_owns_its_restored_database(machine: Machine, api: Path) -> None:
    """
    1. On an empty disk the app creates its database, in a directory that was root's.
    2. The disk is lost; the next boot restores as root, and the app writes on.
    3. It has the user's ids and groups and none of root's, and the socket of root's is closed to it.
    """
    run_app(machine, api, "nobody")
    machine.lose_disk()
    told = run_app(machine, api, "nobody")
    assert set(told["Uid"]) == {str(NOBODY.pw_uid)}
    assert set(told["Gid"]) == {str(NOBODY.pw_gid)}
    assert told["Groups"] == [str(group) for group in os.getgrouplist("nobody", NOBODY.pw_gid)]
    assert told["Names"] == ["nobody", "nobody"]
    assert told["Socket"] == ["closed"]
    owners = {path.name: path.stat().st_uid for path in (machine.data, machine.database)}
    assert set(owners.values()) == {NOBODY.pw_uid}, owners
    assert notes(machine.restore_copy()).count("from the app") == 2


@needs_root
def test_what_the_daemon_leaves_beside_a_database_does_not_shut_its_owner_out(machine: Machine, api: Path) -> None:
    """
    SQLite deletes a database's log with its last connection. Whoever opens it next makes one anew: root's, here, who must
    give it to the database's owner (os_unix.c does, for root). The app opens and closes at each row, beside backups.
    """
    report = machine / "reports" / "report"
    app = ("sh", "-c", APP, "app", str(machine.database), str(report), str(api))
    with machine.run(*app, app_user="nobody", interval="200ms") as process:
        process.wait_metric("sidecar_backups_total", 8, outcome="published")
        assert process.terminate() == 0
    assert Path(f"{report}.failed").read_text() == ""
    assert notes(machine.restore_copy())[1:] == notes(machine.database)[1:]


@needs_root
def test_a_number_needs_no_account_and_a_group_may_be_named(machine: Machine, api: Path) -> None:
    """uid alone: a group of its own. uid:gid: that group and no other."""
    (machine / "reports").chmod(0o777)
    told = run_app(machine, api, "61234")
    assert (set(told["Uid"]), set(told["Gid"])) == ({"61234"}, {"61234"})
    told = run_app(machine, api, "61234:100")
    assert (set(told["Gid"]), told["Groups"]) == ({"100"}, ["100"])


@needs_root
def test_a_directory_with_other_things_in_it_stays_whose_it_is(machine: Machine) -> None:
    """78 before anything is downloaded: whose files they are is not ours to say. Opened to the app, it will do."""
    write_note(machine.database, "row")
    assert machine.cli("backup").returncode == 0
    machine.lose_disk()
    (machine.data / "secret.key").write_text("root's")
    done = machine.cli("run", "--", "touch", str(machine / "reports" / "marker"), app_user="nobody")
    assert done.returncode == 78, done.stderr
    line = complaint(done.stderr)
    assert "secret.key" in line
    assert f"chown nobody {machine.data}" in line
    assert machine.files() == ["secret.key"]
    assert machine.data.stat().st_uid == 0
    os.chown(machine.data, -1, NOBODY.pw_gid)
    machine.data.chmod(0o775)
    done = machine.cli("run", "--", "touch", str(machine / "reports" / "marker"), app_user="nobody")
    assert done.returncode == 0, done.stderr
    assert machine.database.stat().st_uid == NOBODY.pw_uid
    assert (machine.data / "secret.key").stat().st_uid == 0


@needs_root
def test_an_existing_database_is_handed_over_with_its_log(machine: Machine, api: Path) -> None:
    """An image that ran as root before: the app can write to what was root's, and keeps every row."""
    write_note(machine.database, "of root's time")
    assert stat.S_IMODE(machine.database.stat().st_mode) & 0o022 == 0
    run_app(machine, api, "nobody")
    assert notes(machine.restore_copy())[:2] == ["of root's time", "from the app"]


@needs_root
def test_a_restore_by_hand_leaves_the_database_to_the_apps_user(machine: Machine) -> None:
    """
    As a boot does, its directory too, that nothing else lies in. With the file that was there it is the same, and so without
    a daemon that would put it right; somewhere else it is whose who asked.
    """
    write_note(machine.database, "row")
    assert machine.cli("backup").returncode == 0
    machine.lose_disk()
    machine.data.rmdir()
    for options in ((), ("--force",)):
        done = machine.cli("restore", *options, app_user="nobody")
        assert done.returncode == 0, done.stderr
        assert {path.stat().st_uid for path in (machine.data, machine.database)} == {NOBODY.pw_uid}
    assert machine.cli("restore", "--output", str(machine / "copy.db"), app_user="nobody").returncode == 0
    assert (machine / "copy.db").stat().st_uid == 0


@needs_root
def test_a_sidecar_without_a_command_restores_for_the_user_of_another_container(machine: Machine) -> None:
    write_note(machine.database, "row")
    assert machine.cli("backup").returncode == 0
    machine.lose_disk()
    with machine.run(app_user="61234", drain="0s") as process:
        process.wait_ready()
        assert {path.stat().st_uid for path in (machine.data, machine.database)} == {61234}
        process.terminate()
    assert machine.cli("run", app_user="no-such-user").returncode == 78


@needs_root
def test_a_link_that_the_app_planted_gives_it_nothing(machine: Machine) -> None:
    """78, before the app is started again; what the link leads to stays root's."""
    secret = machine / "shadow"
    secret.write_bytes(bytes(16))
    with machine.run(*CALM_APP, app_user="nobody") as process:
        process.wait_ready()
        assert process.terminate() == 0
    os.link(secret, f"{machine.database}-wal")
    done = machine.cli("run", "--", "true", app_user="nobody")
    assert done.returncode == 78, done.stderr
    assert "hard link" in complaint(done.stderr)
    assert secret.stat().st_uid == 0


@needs_root
def test_a_release_command_keeps_the_rights_that_it_does_not_drop_itself(machine: Machine) -> None:
    """Section 4: it takes the place of sidecar, which touches nothing. docs/deploy/fly.md says how to drop them."""
    drop = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--init-groups")
    for command, uid in ((("id", "-u"), 0), ((*drop, "id", "-u"), NOBODY.pw_uid)):
        done = machine.cli("run", "--", *command, app_user="nobody", env={"RELEASE_COMMAND": "1"})
        assert (done.returncode, done.stdout.strip()) == (0, str(uid)), done.stderr


@pytest.mark.parametrize(
    ("user", "word"),
    [
        ("no-such-user", "'no-such-user'"),
        ("nobody:no-such-group", "'no-such-group'"),
        ("a:b:c", "a:b:c"),
        ("²", "'²'"),
        ("99999999999", "'99999999999'"),
        (str(2**32 - 1), str(2**32 - 1)),  # to the kernel: leave the ids as they are
        (f"nobody:{2**32 - 1}", f"group '{2**32 - 1}'"),
        ("", "app_user"),
    ],
)
def test_a_user_that_does_not_exist_is_78(user: str, word: str, local: Machine) -> None:
    done = local.cli("run", "--", "touch", str(local / "marker"), app_user=user)
    assert done.returncode == 78, done.stderr
    assert word in complaint(done.stderr)
    assert not (local / "marker").exists()
    assert local.files() == []


@needs_root
def test_a_daemon_that_is_not_root_cannot_change_users(machine: Machine) -> None:
    """78, and `check` says it too; its own user it may name."""
    for directory in (machine.root, machine.data, machine / "t", machine / "logs"):
        os.chown(directory, NOBODY.pw_uid, NOBODY.pw_gid)
    prefix = ("setpriv", f"--reuid={NOBODY.pw_uid}", f"--regid={NOBODY.pw_gid}", "--clear-groups")
    if machine.cli("--version", prefix=prefix).returncode != 0:
        pytest.skip(f"{sys.executable} is not for everybody")
    done = machine.cli("run", "--", *CALM_APP, prefix=prefix, app_user="root")
    assert done.returncode == 78, done.stderr
    assert f"uid {NOBODY.pw_uid}" in complaint(done.stderr)
    shown = machine.cli("check", prefix=prefix, app_user="root")
    assert shown.returncode == 78
    assert "FAILED  app_user" in shown.stdout
    assert machine.cli("run", "--", "true", prefix=prefix, app_user="nobody").returncode == 0
