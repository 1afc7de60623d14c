"""The app's life and death: its status, its signals, its group, and the orphans that end up with us."""

import json
import sys
from pathlib import Path

import pytest

from tests.harness.environment import ROOT, clean_environment
from tests.harness.processes import Child
from tests.integration import app_scenarios


def run(tmp_path: Path, name: str) -> object:
    """What the scenario printed."""
    said, complaints = tmp_path / "said", tmp_path / "complaints"
    environment = clean_environment(tmp_path, PYTHONPATH=ROOT)
    with said.open("wb") as output, complaints.open("wb") as errors:
        child = Child(
            [sys.executable, str(Path(app_scenarios.__file__)), name], environment, stdout=output, stderr=errors
        )
    try:
        assert child.popen.wait(30) == 0, complaints.read_text()
    finally:
        child.kill()
    return json.loads(said.read_text())


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("statuses", [0, 1, 7, 255, 143, 137, 139]),
        ("many_at_once", list(range(40))),
        ("quick_death", [3, 3]),
        ("signals", 9),
        ("group", [4, True, False, False]),
        ("polite_group", True),
        ("orphans", [5, False]),
        ("status_is_kept", [5, False]),
        ("helper_is_left_to_its_owner", [5, False, True, 7]),
        ("helper_is_no_descendant", [True, [False, True, False], True]),
        ("orphan_in_our_group_is_reaped_in_the_end", True),
        ("no_such_command", ["CommandNotFound 127", "CommandNotExecutable 126", "CommandNotExecutable 126"]),
    ],
)
def test_app(tmp_path: Path, name: str, expected: object) -> None:
    """Each scenario of `app_scenarios` ends as its docstring says."""
    assert run(tmp_path, name) == expected
