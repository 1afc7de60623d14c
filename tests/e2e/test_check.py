"""`sidecar check`: what it shows, and what it says of the boot that comes next."""

import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.e2e.machine import CALM_APP, Machine, notes, write_note


def test_check_shows_settings_with_their_source_and_no_secret(machine: Machine) -> None:
    """Each setting, its value and where it comes from; then a try of what a daemon needs."""
    (machine / "sidecar.toml").write_text('part_size = "16MiB"\n')
    done = machine.with_env(sidecar_drain="9s").cli("check", "--interval", "7m")
    assert done.returncode == 0, done.stderr
    rows = {line.split()[0]: line.split()[1:] for line in done.stdout.splitlines() if line.strip()}
    assert rows["interval"] == ["7m", "flag"]
    assert rows["part_size"] == ["16.0", "MiB", "sidecar.toml"]
    assert rows["store"] == [machine.store, "environment"]
    assert rows["concurrency"] == ["4", "default"]
    assert rows["drain"] == ["5s", "default"]
    assert "ignored sidecar_drain: " in done.stdout
    assert machine.env["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
    wrong = machine.cli("check", store="s3://no-such-bucket")
    assert wrong.returncode == 69
    assert "FAILED  store" in wrong.stdout


def test_check_foretells_a_boot_past_a_damaged_newest(local: Machine, foretold: "Foretold") -> None:
    """As far as its index tells: what a boot leaves out is not said to be restored."""
    for text in ("one", "two"):
        write_note(local.database, text)
        assert local.publish() == "published"
    local.points()[-1].write_bytes(b"damaged")
    local.lose_disk()
    said = foretold(65)  # not that of the boot, which goes on: somebody has to look at what is damaged
    assert said.startswith(f"warning next boot, app.db: restore point app.db/{local.points()[-1].name}")
    assert "it is skipped" in said


def test_check_says_who_holds_the_lease(machine: Machine) -> None:
    """Another machine, for which a start would wait; nobody; this one."""
    m1, desk = (machine.with_env(FLY_MACHINE_ID=name) for name in ("m1", "desk"))

    def said(asking: Machine) -> str:
        lines = asking.cli("check", listen="off", databases=machine / "elsewhere" / "app.db").stdout.splitlines()
        return next(line for line in lines if " lease: " in line)

    (machine / "elsewhere").mkdir()
    assert said(desk) == "ok      lease: free; no machine has held it yet"
    with m1.run(*CALM_APP) as process:
        process.wait_ready()
        assert said(desk).startswith("warning lease: m1 holds it: a start waits until it stops, or for ")
        assert said(m1).startswith("ok      lease: this machine's, m1, renewed ")
        assert process.terminate() == 0
    assert said(desk) == "ok      lease: free; m1 had it last"


Foretold = Callable[..., str]


@pytest.fixture
def foretold(local: Machine) -> Foretold:
    """What check says of the next boot, with its exit code as expected; it changes nothing."""

    def files() -> dict[str, str]:
        """All but what the first reader of a database in WAL mode makes."""
        return {name: digest for name, digest in local.disk().items() if not name.endswith(("-wal", "-shm"))}

    def ask(code: int = 0, **settings: str) -> str:
        before = files()
        done = local.cli("check", env={f"SIDECAR_{name.upper()}": value for name, value in settings.items()})
        assert done.returncode == code, done.stdout
        assert files() == before
        return next(line for line in done.stdout.splitlines() if "next boot, app.db" in line)

    return ask


def test_check_foretells_the_boot(local: Machine, foretold: Foretold) -> None:
    """What the boot table would do, without doing it; what would stop a boot is its exit code here, too."""
    assert foretold().startswith("warning next boot, app.db: there is neither a file nor a restore point")
    assert foretold(66, on_empty_store="fail").startswith("FAILED")
    write_note(local.database, "row")
    assert "kept and published" in foretold()
    assert local.cli("backup").returncode == 0
    key = f"app.db/{local.points()[0].name}"
    assert f"it descends from the newest restore point {key} of 2" in foretold()
    with local.run(*CALM_APP) as process:
        process.wait_ready()
        assert f"a sidecar (pid {process.pid}) protects it now" in foretold()
        assert process.terminate() == 0
    (local.data / "app.db.sidecar.json").unlink()
    assert foretold().startswith("warning next boot, app.db: the local file does not descend from")
    with local.database.open("rb"):
        assert f"is open in process {os.getpid()}, and a start would end with 75" in foretold()
    assert "is open" not in foretold()
    assert foretold(on_conflict="local").startswith("warning")
    assert foretold(78, on_conflict="fail").startswith("FAILED")
    local.lose_disk()
    assert f"{key} of 2" in foretold()


def test_check_foretells_the_boot_after_the_newest_is_gone(local: Machine, foretold: Foretold) -> None:
    """As the boot that follows does it: what is left is restored, what descends from it is kept; with nothing left it stops."""
    for note in ("one", "two"):
        write_note(local.database, note)
        assert local.publish() == "published"
    first, second = (f"app.db/{point.name}" for point in local.points())
    marker = local.data / "app.db.sidecar.json"
    (local.points()[1]).unlink()
    lost = f"warning next boot, app.db: the newest restore point {second} is gone from the store: "
    kept = f"{lost}the local file is kept and published"
    assert foretold() == kept
    before = marker.read_text()
    marker.write_text(before.replace(second, first))
    assert foretold() == kept
    marker.unlink()
    assert foretold().startswith(f"{lost}the local file is moved aside")
    assert f"and {first} of 2" in foretold()
    local.lose_disk()
    assert foretold().startswith(f"{lost}{first} of 2")
    with local.run(*CALM_APP) as process:
        process.wait_ready()
        assert notes(local.database) == ["one"]
        assert process.terminate() == 0
    for each in local.points():
        each.unlink()
    local.lose_disk()
    assert foretold(65).startswith("FAILED  next boot, app.db: no restore point of app.db is good")
    assert local.cli("run", "--", "true").returncode == 65


def test_check_says_that_the_directory_is_missing(local: Machine, foretold: Foretold) -> None:
    """A first start makes no directory for an app's new database; it is no failure, for the app may."""
    local.data.rmdir()
    assert foretold().endswith(f"{local.data} does not exist: it is created first")


def test_check_says_where_restore_points_die_with_the_machine(local: Machine) -> None:
    """In a directory on the database's own disk, by default all the more; no failure, for it may be meant."""
    assert "warning place:" in local.cli("check").stdout
    default = local.cli("check", prefix=("env", "-u", "SIDECAR_STORE"))
    assert (default.returncode, "is the default, on this machine's own disk" in default.stdout) == (0, True)


SHARED_MEMORY = Path("/dev/shm")


@pytest.mark.skipif(not SHARED_MEMORY.is_dir(), reason="no second file system here")
def test_check_has_nothing_against_a_directory_on_another_file_system(local: Machine) -> None:
    """Which may well be a volume that outlives the machine."""
    with TemporaryDirectory(dir=SHARED_MEMORY) as elsewhere:
        if os.stat(elsewhere).st_dev == local.data.stat().st_dev:
            pytest.skip("the database is on the same file system")
        assert "ok      place:" in replace(local, store=f"file://{elsewhere}/store").cli("check").stdout


def test_check_warns_of_a_store_that_has_lost_all_that_the_local_file_descends_from(local: Machine) -> None:
    """It is the same store, and somebody has deleted its objects."""
    write_note(local.database, "row")
    assert local.publish() == "published"
    store = Path(local.store.removeprefix("file://"))
    shutil.rmtree(store / "app.db")
    (store / "lease.json").unlink()
    done = local.cli("check")
    line = next(line for line in done.stdout.splitlines() if "next boot, app.db" in line)
    assert line.startswith("warning"), line
    assert "the store no longer has any restore point" in line
