"""An image that drops root's rights itself: its database comes back with the owner and mode that it had."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.machine import Machine, notes
from tests.harness.environment import clean_environment

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root may run an app as somebody else")

USER = 61234  # nobody has an account with it
GROUP = 61235
DROP = {
    "setpriv": ("setpriv", f"--reuid={USER}", f"--regid={GROUP}", "--clear-groups"),
    "gosu": ("gosu", f"{USER}:{GROUP}"),
    "su-exec": ("su-exec", f"{USER}:{GROUP}"),
}
INSERT = "CREATE TABLE IF NOT EXISTS notes (text TEXT NOT NULL); INSERT INTO notes VALUES ('row')"


@pytest.fixture
def machine() -> Iterator[Machine]:
    """A machine that everybody may enter, with a directory of the app's user. (pytest closes its own directories.)"""
    with tempfile.TemporaryDirectory(prefix="owner-") as directory:
        root = Path(directory)
        root.chmod(0o755)
        machine = Machine.make(root, f"file://{root}/store", clean_environment(root))
        os.chown(machine.data, USER, GROUP)
        yield machine


def start(machine: Machine, umask: str = "022", tool: str = "setpriv", sql: str = INSERT) -> str:
    """Run an app that writes a row as its user, to its end. Returns what was logged."""
    app = (*DROP[tool], "sqlite3", str(machine.database), sql)
    done = machine.cli("run", "--", *app, prefix=("sh", "-c", f'umask {umask}; exec "$@"', "sh"))
    assert done.returncode == 0, done.stderr
    return done.stderr


def rights(path: Path) -> tuple[int, int, str]:
    status = path.stat()
    return status.st_uid, status.st_gid, f"{status.st_mode & 0o777:o}"


def lose_disk(machine: Machine, uid: int, gid: int) -> None:
    machine.lose_disk()
    os.chown(machine.data, uid, gid)


@pytest.mark.parametrize("tool", DROP)
def test_an_app_that_drops_its_rights_writes_to_its_restored_database(machine: Machine, tool: str) -> None:
    """The database was private, and root's umask would open it."""
    if not shutil.which(tool):
        pytest.skip(f"{tool} is not installed here")
    start(machine, "077", tool)
    assert rights(machine.database) == (USER, GROUP, "600")
    lose_disk(machine, USER, GROUP)
    assert "another owner" not in start(machine, tool=tool)
    assert rights(machine.database) == (USER, GROUP, "600")
    assert notes(machine.restore_copy()) == ["row", "row"]


def test_a_directory_that_is_missing_is_made_for_the_same_user(machine: Machine) -> None:
    """Whatever root's umask; at a first start for whom the directory above belongs to."""
    nested = machine.data / "a" / "b"
    app = (*DROP["setpriv"], "sqlite3", str(nested / "app.db"), INSERT)
    umask = ("sh", "-c", 'umask 077; exec "$@"', "sh")
    for _ in range(2):
        done = machine.cli("run", "--", *app, prefix=umask, databases=nested / "app.db")
        assert done.returncode == 0, done.stderr
        assert rights(nested) == (USER, GROUP, "700")
        lose_disk(machine, 0, 0)
    assert notes(machine.restore_copy()) == ["row", "row"]


def test_what_sqlite_makes_for_root_does_not_shut_the_app_out(machine: Machine) -> None:
    """
    1. The database is restored for the app's user, and opened by root in each cycle, while the app opens and closes it too.
    2. No write of the app fails, and no log or index beside the database is root's.
    """
    start(machine, "027")
    lose_disk(machine, USER, GROUP)
    as_user = " ".join(DROP["setpriv"])
    write = f"{as_user} sqlite3 -cmd '.timeout 5000' {machine.database} \"INSERT INTO notes VALUES ('again')\""
    look = f'stat -c "%u:%g %a" {machine.database}-wal {machine.database}-shm 2>/dev/null'
    script = f"for i in $(seq 30); do {write} || exit 9; {look}; done; exit 0"
    done = machine.cli("run", "--", "sh", "-c", script, interval="100ms")
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.splitlines()) <= {f"{USER}:{GROUP} 640"}
    assert len(notes(machine.restore_copy())) == 31


def test_a_restore_by_hand_sets_them_and_a_copy_is_the_operators(machine: Machine) -> None:
    """A database that is replaced hands on its own."""
    start(machine, "037")
    lose_disk(machine, USER, GROUP)
    assert machine.cli("restore").returncode == 0
    assert rights(machine.database) == (USER, GROUP, "640")
    os.chown(machine.database, USER, 0)
    machine.database.chmod(0o604)
    assert machine.cli("restore", "--force").returncode == 0
    assert rights(machine.database) == (USER, 0, "604")
    assert machine.cli("restore", "--output", str(machine / "copy.db")).returncode == 0
    assert rights(machine / "copy.db") == (0, 0, "600"), "root's group is not the recorded one"


def test_check_says_who_may_not_write_where(machine: Machine) -> None:
    def told(*settings: str) -> str:
        done = machine.cli("check", prefix=("env", *settings))
        return next(line for line in done.stdout.splitlines() if "owner app.db" in line)

    assert told().startswith("skipped owner app.db: not known")
    start(machine, "077")
    who = f"uid {USER}, gid {GROUP}, mode 0600"
    for lose in (False, True):
        if lose:
            lose_disk(machine, USER, GROUP)
        assert told().startswith(f"ok      owner app.db: {who}")
    lose_disk(machine, 0, 0)
    blocked = f"uid {USER} may not write in {machine.data} (uid 0, gid 0, mode 0755)"
    assert told().startswith(f"warning owner app.db: the database should belong to {who}, but {blocked}")
    assert told(f"SIDECAR_APP_USER={USER}:{GROUP}").startswith("ok "), "an empty directory is given to it"
    (machine.data / "secret.key").touch()
    assert told(f"SIDECAR_APP_USER={USER}:{GROUP}").startswith("FAILED  owner app.db")


def test_an_owner_that_may_not_write_gives_way_to_the_directorys(machine: Machine) -> None:
    """And the log says so; the mode stays private."""
    start(machine, "077")
    lose_disk(machine, 61236, 61236)
    done = machine.cli("run", "--", "true")
    assert done.returncode == 0
    assert "restored database has another owner" in done.stderr
    assert rights(machine.database) == (61236, 61236, "600")


def lose_roots_disk(machine: Machine) -> None:
    """A restore point whose owner is root is to be restored into a directory of the app's user."""
    os.chown(machine.data, 0, 0)
    done = machine.cli(
        "run", "--", "sqlite3", str(machine.database), INSERT, prefix=("sh", "-c", 'umask 027; exec "$@"', "sh")
    )
    assert done.returncode == 0, done.stderr
    assert rights(machine.database) == (0, 0, "640")
    lose_disk(machine, USER, GROUP)


def test_a_database_of_roots_is_given_to_the_owner_of_its_directory(machine: Machine) -> None:
    """An app that drops its rights can write to it, root can anyway, and the log says what became of the owner."""
    lose_roots_disk(machine)
    told = start(machine)
    assert "restored database has another owner" in told
    assert "app_user=root" in told
    assert rights(machine.database) == (USER, GROUP, "640")
    done = machine.cli("run", "--", "sqlite3", str(machine.database), INSERT)
    assert done.returncode == 0, done.stderr
    assert notes(machine.restore_copy()) == ["row"] * 3


def test_a_missing_directory_below_the_apps_is_its_own_whoever_was_recorded(machine: Machine) -> None:
    nested = machine.data / "deeper" / "app.db"
    os.chown(machine.data, 0, 0)
    assert machine.cli("run", "--", "sqlite3", str(nested), INSERT, databases=nested).returncode == 0
    lose_disk(machine, USER, GROUP)
    done = machine.cli("run", "--", *DROP["setpriv"], "sqlite3", str(nested), INSERT, databases=nested)
    assert done.returncode == 0, done.stderr
    assert rights(nested.parent)[:2] == rights(nested)[:2] == (USER, GROUP)


def test_app_user_root_keeps_it_roots(machine: Machine) -> None:
    lose_roots_disk(machine)
    done = machine.cli("run", "--", "true", prefix=("env", "SIDECAR_APP_USER=root"))
    assert done.returncode == 0, done.stderr
    assert "another owner" not in done.stderr
    assert rights(machine.database) == (0, 0, "640")


def test_root_without_its_capability_keeps_what_it_could_not_write_otherwise(machine: Machine) -> None:
    lose_roots_disk(machine)
    machine.data.chmod(0o777)
    done = machine.cli(
        "run", "--", "true", prefix=("setpriv", "--bounding-set=-dac_override", "--inh-caps=-dac_override")
    )
    assert done.returncode == 0, done.stderr
    assert rights(machine.database) == (0, 0, "640")


def test_check_says_what_becomes_of_a_database_of_roots(machine: Machine) -> None:
    """
    1. Before a restore it names the owner of the directory, and why.
    2. A local database that root owns there keeps its owner: a warning names the way out.
    """
    lose_roots_disk(machine)

    def told() -> str:
        return next(line for line in machine.cli("check").stdout.splitlines() if "owner app.db" in line)

    assert told().startswith(
        f"ok      owner app.db: uid {USER}, gid {GROUP}; may write in {machine.data}; recorded was uid 0"
    )
    start(machine)
    assert told().startswith("ok ")
    os.chown(machine.database, 0, 0)
    assert told().startswith("warning owner app.db: the database belongs to uid 0, gid 0, mode 0640")
    assert "set app_user" in told()
    machine.database.chmod(0o666)
    assert told().startswith("ok ")
