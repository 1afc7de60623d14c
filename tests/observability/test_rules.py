"""The alerts, checked by promtool, and the form of the dashboard."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.dashboard import DASHBOARD, text
from tests.harness.prometheus import promtool

HERE = DASHBOARD.parent
ALERTS = (HERE / "alerts.yml").read_text()
NAMES = re.findall(r"- alert: (\w+)", ALERTS)
EXPRESSION = re.compile(r"^        expr: .*?(?=^        (?:labels):)", re.DOTALL | re.MULTILINE)
FAILED = re.compile(r'expr: "count\(ALERTS\{alertname=\\"(\w+)\\"')


def test_rules_are_valid() -> None:
    status, output = promtool("check", "rules", "alerts.yml", cwd=HERE)
    assert status == 0, output
    assert f"{len(NAMES)} rules found" in output


def test_rules_do_what_their_tests_say() -> None:
    status, output = promtool("test", "rules", "alerts_test.yml", cwd=HERE)
    assert status == 0, output


@pytest.mark.parametrize("expression", ["vector(1)", "vector(0) > 0"], ids=["always fires", "never fires"])
def test_every_alert_is_seen_firing_and_silent(expression: str, tmp_path: Path) -> None:
    """If an alert always fired, or never, its tests would fail."""
    broken = EXPRESSION.sub(f"        expr: {expression}\n", ALERTS)
    assert broken.count(expression) == len(NAMES)
    (tmp_path / "alerts.yml").write_text(broken)
    shutil.copy(HERE / "alerts_test.yml", tmp_path)
    status, output = promtool("test", "rules", "alerts_test.yml", cwd=tmp_path)
    assert status != 0
    assert set(FAILED.findall(output)) == set(NAMES)


@pytest.mark.parametrize("block", ALERTS.split("- alert: ")[1:], ids=NAMES)
def test_every_alert_says_how_bad_it_is_and_what_to_do(block: str) -> None:
    """Each has a severity, and a summary, a description and a runbook of one line."""
    assert re.search(r"labels: \{severity: (critical|warning)\}", block)
    for annotation in ("summary", "description", "runbook"):
        (line,) = re.findall(rf"^          {annotation}: (.+)$", block, re.MULTILINE)
        assert len(line) > 30


def panels() -> list[dict[str, Any]]:
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def test_the_dashboard_is_the_one_that_is_generated() -> None:
    assert DASHBOARD.read_text() == text(), "run `make generate`"


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: str(panel["title"]))
def test_every_panel_has_title_description_unit_and_legends(panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert len(panel["description"]) > 20
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["datasource"]["uid"] == "${datasource}"
    assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])


def test_panels_do_not_overlap_and_fit_the_width() -> None:
    taken: set[tuple[int, int]] = set()
    for where in (panel["gridPos"] for panel in json.loads(DASHBOARD.read_text())["panels"]):
        across, down = range(where["x"], where["x"] + where["w"]), range(where["y"], where["y"] + where["h"])
        cells = {(x, y) for x in across for y in down}
        assert max(across) < 24
        assert not cells & taken
        taken |= cells
