"""Installing applications below build/apps: once, each in a directory of its own, with exact versions."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.apps.catalogue import Application
from tests.harness.environment import ROOT
from tests.harness.processes import Child

APPS = ROOT / "build" / "apps"
TIMEOUT = 420.0  # npm may have to compile SQLite

_PYTHON_SQLITE = "import sqlite3; print(sqlite3.sqlite_version)"
_NODE_SQLITE = "console.log(require('better-sqlite3')(':memory:').prepare('select sqlite_version()').pluck().get())"


class NotInstalled(Exception):
    """An installer has failed; the message has the end of its output."""


def install(application: Application) -> Path:
    """The directory of the application's programs."""
    directory = APPS / application.name.replace("/", "-").lstrip("@")
    programs = directory / ("bin" if application.installer == "pip" else "node_modules/.bin")
    stamp = directory / f".{_digest(application)}"
    if not stamp.exists():
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir(parents=True)
        if application.installer == "pip":
            _run(application, sys.executable, "-m", "venv", str(directory))
            _run(
                application, str(programs / "pip"), "install", "--disable-pip-version-check", *application.requirements
            )
        else:
            options = ("--prefix", str(directory), "--no-audit", "--no-fund", "--no-save")
            _run(application, "npm", "install", *options, *application.requirements)
        stamp.touch()
    return programs


def sqlite_version(application: Application, programs: Path) -> str:
    """The version of the SQLite that the application uses."""
    if application.installer == "pip":
        return _run(application, str(programs / "python"), "-c", _PYTHON_SQLITE).strip()
    return _run(application, "node", "-e", _NODE_SQLITE, directory=programs.parents[1]).strip()


def _run(application: Application, *command: str, directory: Path | None = None) -> str:
    # SQLite is compiled where nobody offers it compiled: without optimization that takes a fraction of the time.
    environment = {**os.environ, "CFLAGS": "-O0", "CXXFLAGS": "-O0"}
    pipe = subprocess.PIPE
    child = Child(command, environment, cwd=directory, stdout=pipe, stderr=subprocess.STDOUT)
    try:
        output = child.popen.communicate(timeout=TIMEOUT)[0].decode(errors="replace")
    except subprocess.TimeoutExpired:
        raise NotInstalled(f"{application.name}: {command[0]} took more than {TIMEOUT:g} s") from None
    finally:
        child.kill()
    if child.popen.returncode:
        raise NotInstalled(f"{application.name}: {' '.join(command)}\n{output[-4000:]}")
    return output


def _digest(application: Application) -> str:
    return hashlib.sha256(json.dumps(application.requirements).encode()).hexdigest()[:16]
