"""The bundle (`make bundle`): what it must be beyond what every other test here asks of it.

With PROGRAM_UNDER_TEST=dist/sidecar/sidecar all end-to-end tests run the bundle in place of the interpreter.
"""

import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.e2e.machine import Machine, calm_app, may_unshare, notes, write_note
from tests.harness.environment import ROOT
from tests.harness.processes import MARK
from tests.harness.sidecar_process import run_cli

BUNDLE = Path(os.environ.get("PROGRAM_UNDER_TEST", ROOT / "dist" / "sidecar" / "sidecar")).resolve()
README = ROOT / "README.md"
DOCKER_PAGE = ROOT / "docs/deploy/docker.md"

pytestmark = pytest.mark.skipif(not BUNDLE.exists(), reason="no bundle here: `make bundle` makes one")

# What an image might have set for an app of its own, and that an interpreter, its loader or a bundle would act on.
THE_APPS_OWN = {
    "LD_LIBRARY_PATH": "/app/lib",
    "PYTHONHOME": "/nowhere",
    "PYTHONPATH": "/nowhere",
    "PYTHONWARNINGS": "error",
    "SSL_CERT_FILE": "/nowhere",
    "MIXED": "a=b c",
}


@pytest.mark.parametrize("own", [{}, THE_APPS_OWN], ids=["none", "many"])
def test_app_has_the_environment_that_sidecar_was_given(local: Machine, own: Mapping[str, str]) -> None:
    """Nothing of the bundle's (its libraries' path above all) reaches the app, and nothing of the app's is lost."""
    given = {"PATH": "/usr/bin:/bin", **own, **_settings(local)}
    done = run_cli("run", "--", "/usr/bin/env", "-0", env=given, cwd=local.root, program=[str(BUNDLE)])
    assert done.returncode == 0, done.stderr
    assert _variables(done.stdout) == given


@pytest.mark.parametrize("variable", ["RELEASE_COMMAND", "FLY_TEST_COMMAND"])
def test_release_command_has_it_too(local: Machine, variable: str) -> None:
    """There sidecar becomes the command: another way for its environment to leak."""
    given = {"PATH": "/usr/bin:/bin", "LD_LIBRARY_PATH": "/app/lib", "SIDECAR_LISTEN": "off", variable: "1"}
    done = run_cli("run", "--", "/usr/bin/env", "-0", env=given, cwd=local.root, program=[str(BUNDLE)])
    assert _variables(done.stdout) == given


def test_writes_nothing_but_the_data_and_needs_no_temporary_directory(local: Machine) -> None:
    """
    1. No TMPDIR that could be written to, no HOME, no Python on PATH, started by a link.
    2. The app is stopped; the machine is lost and boots again.
    Result: the app's status, and its row is back. The bundle's own files are as they were.
    """
    before = _contents()
    link = local / "sidecar"
    link.symlink_to(BUNDLE)
    env = {"PATH": "/usr/bin:/bin", **_settings(local), "TMPDIR": "/proc", "SIDECAR_CONTROL_SOCKET": "off"}
    write_note(local.database, "precious")
    done = run_cli("run", "--", *calm_app(7)[:2], "exit 7", env=env, cwd=local.data, program=[str(link)])
    assert done.returncode == 7, done.stderr
    local.lose_disk()
    done = run_cli("run", "--", "true", env=env, cwd=local.data, program=[str(link)])
    assert done.returncode == 0, done.stderr
    assert notes(local.database) == ["precious"]
    assert _contents() == before


@pytest.mark.skipif(not may_unshare("--pid", "--fork"), reason="no new PID namespaces here")
def test_is_process_1_itself(local: Machine) -> None:
    """The bundle starts itself anew for its libraries: as the same process, or signals would not reach it."""
    env = {"PATH": "/usr/bin:/bin", **_settings(local)}
    program = ["/usr/bin/unshare", "--pid", "--fork", "--kill-child", str(BUNDLE)]
    done = run_cli("run", "--", "sh", "-c", "echo $PPID", env=env, cwd=local.root, program=program)
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


def test_brings_the_fixed_sqlite_and_no_other_one(local: Machine) -> None:
    done = run_cli("check", env={"PATH": "/usr/bin:/bin", **_settings(local)}, cwd=local.root, program=[str(BUNDLE)])
    (version,) = re.findall(r"ok +sqlite: 3\.(\d+)\.\d+, checkpoints", done.stdout)
    assert int(version) >= 53
    assert [name for name in _contents() if "libsqlite3" in name or "lib-dynload/_sqlite3" in name] == []


def test_demo_says_where_it_is(local: Machine) -> None:
    done = run_cli("demo", env={"PATH": "/usr/bin:/bin"}, cwd=local.root, program=[str(BUNDLE)])
    assert done.returncode == 64
    assert done.stderr == "sidecar: the demo is not in this bundle (it comes with `pip install sqlite-sidecar`)\n"


def test_is_as_small_as_the_docs_say_and_carries_its_licenses() -> None:
    size = sum(file.stat().st_size for file in BUNDLE.parent.rglob("*") if file.is_file() and not file.is_symlink())
    (said,) = re.findall(r"\((\d+) MB, ", DOCKER_PAGE.read_text())
    assert size <= (int(said) + 3) * 1_000_000  # Python versions differ by some
    assert {"python", "pydantic", "aiobotocore", "pysqlite3"} <= {
        path.name for path in (BUNDLE.parent / "_internal" / "licenses").iterdir()
    }


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_needs_no_newer_glibc_than_the_docs_say(local: Machine) -> None:
    """Holds for what was built where the Dockerfile builds it; on a newer system the bundle is for that system."""
    (said,) = {number for page in (README, DOCKER_PAGE) for number in _glibc_of(page)}
    needed = {int(match) for file in _binaries() for match in re.findall(rb"\0GLIBC_2\.(\d+)\b", file.read_bytes())}
    here = int(os.confstr("CS_GNU_LIBC_VERSION").split(".")[1])  # type: ignore[union-attr]
    if here > 36 and max(needed) > int(said) and not os.environ.get("CI"):
        pytest.skip(f"built on glibc 2.{here}: the number in the docs is of the published bundle")
    assert max(needed) <= int(said)


def _glibc_of(page: Path) -> list[str]:
    found = re.findall(r"glibc 2\.(\d+) or newer", page.read_text())
    assert found, page
    return found


def _settings(machine: Machine) -> dict[str, str]:
    return {
        "SIDECAR_DATABASES": str(machine.database),
        "SIDECAR_STORE": machine.store,
        "SIDECAR_LISTEN": "off",
    }


def _variables(text: str) -> dict[str, str]:
    """What `env -0` printed, without the mark by which the harness finds a process again."""
    entries = dict(entry.split("=", 1) for entry in text.split("\0") if entry)
    return {name: value for name, value in entries.items() if name != MARK}


def _contents() -> dict[str, tuple[int, int]]:
    files = [file for file in BUNDLE.parent.rglob("*") if file.is_file()]
    return {str(file.relative_to(BUNDLE.parent)): (file.stat().st_size, file.stat().st_mtime_ns) for file in files}


def _binaries() -> list[Path]:
    return [BUNDLE, *(file for file in BUNDLE.parent.rglob("*.so*") if file.is_file())]
