"""The picture of the packages is that of the code, and its arrows point down."""

import re
import tomllib

from tests.docs.picture import PICTURE, against_the_rule, imports, steps, svg
from tests.harness.environment import ROOT


def test_the_picture_is_up_to_date() -> None:
    assert PICTURE.read_text() == svg(), "run `make generate`"


def test_every_arrow_points_down() -> None:
    """Apart from imports that pyproject.toml still excepts from the rule."""
    (rule, *_) = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    exceptions = " ".join(rule.get("ignore_imports", []))
    excepted = set(re.findall(r"\bsidecar\.(\w+)\S* -> sidecar\.(\w+)", exceptions))
    assert set(against_the_rule()) - excepted == set()


def test_the_picture_shows_all_packages() -> None:
    rooms = [room for step in steps() for room in step]
    assert {"cli", "bootstrap", "storage", "files"} <= set(rooms)
    assert {room for each in imports() for room in each} == set(rooms)
    assert all(f">{room}</text>" in svg() for room in rooms)
