"""What the documentation names exists: variables, settings, metrics, alerts, exit codes, files, targets of make."""

import json
import re
import tomllib
from pathlib import Path

import pytest

import sidecar
from sidecar import errors
from sidecar.errors import ExitCode, SidecarError
from sidecar.policies import RetentionDays
from sidecar.settings.access import LEASE_VARIABLES
from sidecar.settings.fields import Settings
from sidecar.settings.load import CONFIG_VARIABLE, PREFIX, load
from tests.docs import EVERY_PAGE
from tests.docs.blocks import alerts, metric_names
from tests.docs.json_fields import documented
from tests.docs.markdown import Page
from tests.harness.environment import ROOT

VARIABLES = {CONFIG_VARIABLE, *LEASE_VARIABLES, *(f"{PREFIX}{name.upper()}" for name in Settings.model_fields)}
# Names in the text that are neither settings, metrics nor fields of the JSON.
OTHER_NAMES = {
    *("kill_timeout", "kill_signal", "wait_timeout"),  # fly.toml
    *("rule_files", "fly_instance_exit_code", "kube_pod_container_status_last_terminated_exitcode"),  # Prometheus
    *("page_size", "chunk_size", "wal_by"),  # the index and the metadata of a restore point
    *("left_out", "heartbeat_failed"),  # notifications
    "first_start",  # a kind of incident
    "busy_timeout",  # SQLite
    "noncurrent_days",  # a variable of infra/
}
OTHER_VALUES = {"nolock=1", str(RetentionDays())}  # SQLite's URI parameters; the value of a setting
# What the loader (255) and an app without a handler for SIGTERM (143) exit with.
OTHER_CODES = {143, 255}

for_every_page = pytest.mark.parametrize("path", EVERY_PAGE, ids=lambda path: path.name)


@for_every_page
def test_every_variable_exists(path: Path) -> None:
    assert set(re.findall(rf"\b{PREFIX}[A-Z0-9_]*[A-Z0-9]", path.read_text())) - VARIABLES == set()


@for_every_page
def test_every_value_of_a_variable_or_setting_is_valid(path: Path) -> None:
    """`SIDECAR_INTERVAL=10m` anywhere, `interval=10m` in the text, `[env]` of a fly.toml, and `# sidecar.toml`."""
    page = Page(path)
    given = re.findall(rf'\b({PREFIX}[A-Z_]+)(?:=|: |" ?: ?| = )"?([^\s"`]+)', path.read_text())
    spans = [span.text for span in page.spans if span.text not in OTHER_VALUES]
    given += [_as_variable(text) for text in spans if re.fullmatch(r"[a-z]+(_[a-z]+)*=\S+", text)]
    values = [
        (name, value.rstrip(",.;)")) for name, value in given if name not in LEASE_VARIABLES
    ]  # valid together only
    assert [(name, value) for name, value in values if not _is_valid({name: value})] == []


@for_every_page
def test_every_name_in_the_text_exists(path: Path) -> None:
    if "internals" in path.parts or path.name in {"contributing.md", "library.md"}:
        return  # names of the code, too
    shown = {name for command in ("list", "list --streams", "diff", "status") for name in documented(command)}
    known = {*Settings.model_fields, *metric_names(), *shown, *OTHER_NAMES}
    named = {span.text for span in Page(path).spans if re.fullmatch(r"[a-z]+(_[a-z]+)+", span.text)}
    assert named - known == set()


@for_every_page
def test_every_metric_and_alert_exists(path: Path) -> None:
    text = path.read_text()
    metrics = metric_names()
    stems = {re.sub(r"_(bucket|count|sum|created)$", "", name) for name in metrics}
    assert set(re.findall(r"\bsidecar_[a-z_]*[a-z]\b", text)) - metrics - stems == set()
    named = {span.text for span in Page(path).spans if re.fullmatch(r"Sidecar[A-Z]\w+", span.text)}
    assert {name for name in named - set(alerts()) if not hasattr(errors, name)} == set()


@for_every_page
def test_every_exit_code_exists(path: Path) -> None:
    """`exit 75`, `exits with 78`, `exit code 66`."""
    words = r"\bexit(?:s|ed|ing)?(?:\s+(?:with|code|codes|status|of))*\s+(\d+)"
    codes = {int(code) for code in re.findall(words, path.read_text(), re.IGNORECASE)}
    assert codes - set(ExitCode) - OTHER_CODES == set()


@for_every_page
def test_every_file_of_the_repository_exists(path: Path) -> None:
    """Code spans that look like paths of it. The package may be elsewhere: then the built wheel is tested."""
    package = Path(sidecar.__file__).parent
    missing = []
    for span in Page(path).spans:
        if re.fullmatch(r"(tests|infra|sidecar|docs|\.github)/[\w./-]*", span.text):
            file = package.parent / span.text if span.text.startswith("sidecar/") else ROOT / span.text
            missing += [] if file.exists() else [span]
    assert missing == []


@for_every_page
def test_every_target_of_make_exists(path: Path) -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    page = Page(path)
    text = "\n".join([*(span.text for span in page.spans), *(fence.text for fence in page.fences)])
    assert set(re.findall(r"^make ([a-z]+)", text, re.MULTILINE)) - targets == set()


@for_every_page
def test_every_yaml_can_be_read(path: Path) -> None:
    yaml = pytest.importorskip("yaml", reason="it comes with Sphinx")
    for fence in Page(path).fences:
        if fence.language == "yaml":
            assert all(isinstance(document, dict) for document in yaml.safe_load_all(fence.text)), fence.where


@for_every_page
def test_every_json_and_toml_can_be_read(path: Path, tmp_path: Path) -> None:
    for fence in Page(path).fences:
        if fence.language == "json":
            json.loads(fence.text)
        if fence.language == "toml":
            tomllib.loads(fence.text)
        if fence.language == "toml" and fence.text.startswith("# sidecar.toml\n"):
            file = tmp_path / "sidecar.toml"
            file.write_text(fence.text)
            load({}, {CONFIG_VARIABLE: str(file)})


def _as_variable(assignment: str) -> tuple[str, str]:
    name, _, value = assignment.partition("=")
    return f"{PREFIX}{name.upper()}", value


def _is_valid(variables: dict[str, str]) -> bool:
    try:
        load({}, {f"{PREFIX}DATABASES": "app.db", **variables})
    except SidecarError:
        return False
    return True
