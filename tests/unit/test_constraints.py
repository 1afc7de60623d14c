"""constraints.txt can be installed on every Python that the project says it needs."""

import re
import tomllib
from importlib.metadata import PackageNotFoundError, metadata
from pathlib import Path

import pytest
from packaging.specifiers import SpecifierSet

ROOT = Path(__file__).parents[2]
PINNED: dict[str, str] = dict(
    re.findall(r"^([\w.-]+)==(\S+)", (ROOT / "constraints.txt").read_text(), flags=re.MULTILINE)
)


def oldest_python() -> str:
    """The first patch release of what pyproject.toml asks for: Debian 12 has 3.11.2."""
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    return f"{required.removeprefix('>=')}.0"


@pytest.mark.parametrize("name", PINNED)
def test_a_pinned_package_runs_on_the_oldest_python(name: str) -> None:
    """pip refuses a pin whose Requires-Python is newer, and every target of the Makefile fails."""
    try:
        installed = metadata(name)
    except PackageNotFoundError:
        pytest.skip("not installed on this platform, or only for another target")
    if installed["Version"] != PINNED[name]:
        pytest.skip(f"{installed['Version']} is installed: the pin is for another target")
    wanted = str(installed.json.get("requires_python", ""))
    assert oldest_python() in SpecifierSet(wanted), f"{name} {PINNED[name]} needs Python {wanted}"
