"""The import rule of the architecture page, held by import-linter: each contract is seen to fail on a planted violation."""

import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]

# Contract, by a part of its name: where something forbidden is written, and what.
VIOLATIONS = {
    "point down": ("host/clock.py", "import sidecar.backup"),
    "do not know each other": ("restore/boot.py", "import sidecar.backup"),
    "concrete stores": ("repository/catalog.py", "import sidecar.storage.s3.store"),
    "Clients of services": ("backup/cycle.py", "import aiohttp"),
    "settings are for the top": ("lease/fence.py", "import sidecar.settings"),
    "Pure": ("restore/decision.py", "import anyio"),
    "demo app": ("demo/app.py", "import sidecar.model"),
}

RUNGS = {"do not know each other", "settings are for the top"}  # rules that the rungs of the first contract hold, too


def lint(tree: Path) -> str:
    """The report of import-linter about a copy of the package."""
    done = subprocess.run(
        [str(Path(sys.executable).with_name("lint-imports")), "--no-cache", "--config", str(ROOT / "pyproject.toml")],
        cwd=tree,
        env={"PYTHONPATH": str(tree), "PATH": "/usr/bin:/bin", "COLUMNS": "300"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)  # it colours what it prints in any case


def test_at_most_six_contracts() -> None:
    assert len(CONTRACTS) <= 6


@pytest.mark.parametrize("part", VIOLATIONS)
def test_a_planted_violation_fails(part: str, tmp_path: Path) -> None:
    where, line = VIOLATIONS[part]
    tree = tmp_path / "tree"
    shutil.copytree(ROOT / "sidecar", tree / "sidecar", ignore=shutil.ignore_patterns("__pycache__"))
    with (tree / "sidecar" / where).open("a") as file:
        file.write(f"\n{line}\n")
    report = lint(tree)
    broken = [each for each in report.splitlines() if " BROKEN" in each]
    name = "point down" if part in RUNGS else part
    assert len(broken) == 1
    assert name in broken[0]
