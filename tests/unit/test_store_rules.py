"""`infra/stores/lifecycle.sh`: which rules it sets, on a stand-in for the AWS CLI that writes down what it was given."""

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from sidecar.policies import RetentionDays
from sidecar.repository.bucket_rules import judge_rules
from sidecar.storage import LifecycleRule
from tests.docs import DOCS
from tests.docs.markdown import Page
from tests.harness.environment import ROOT, SYSTEM_PATH

SCRIPT = ROOT / "infra" / "stores" / "lifecycle.sh"
ENDPOINT = {"AWS_ENDPOINT_URL_S3": "https://store.example"}
# A bucket has the rules in the file `rules`, if there is one; what is put is written there.
AWS = """#!/usr/bin/env bash
here=$(dirname "$0")
case $2 in
  get-bucket-lifecycle-configuration)
    [ -e "$here/rules" ] && exec cat "$here/rules"
    echo "An error occurred (${ERROR:-NoSuchLifecycleConfiguration}) when calling the operation" >&2
    exit 254 ;;
  put-bucket-lifecycle-configuration)
    [ "$4" = my-bucket ] && printf '%s' "${@: -1}" > "$here/rules" ;;
esac
"""


@pytest.fixture
def cli(tmp_path: Path) -> Path:
    """The directory of the stand-in."""
    (tmp_path / "aws").write_text(AWS)
    (tmp_path / "aws").chmod(0o755)
    return tmp_path


def test_sets_what_the_pages_show(cli: Path) -> None:
    for store in ("tigris", "r2"):
        (cli / "rules").unlink(missing_ok=True)
        assert _run(cli, store, "my-bucket", "/app/").returncode == 0
        (shown,) = [fence.text for fence in Page(DOCS / "stores" / f"{store}.md").fences if fence.language == "json"]
        assert _rules(cli) == json.loads(shown)["Rules"]


def test_what_expires_lies_where_the_program_places_it_and_as_late_as_it_says(cli: Path) -> None:
    for store in ("tigris", "r2"):
        for words, prefix in (((), ""), (("a/b",), "a/b/")):
            (cli / "rules").unlink(missing_ok=True)
            assert _run(cli, store, "my-bucket", *words).returncode == 0
            rules = [
                LifecycleRule(rule["ID"], rule["Filter"]["Prefix"].removeprefix(prefix), {}, rule["Expiration"]["Days"])
                for rule in _rules(cli)
                if "Expiration" in rule
            ]
            report = judge_rules(rules, "app.db", RetentionDays(), placing=True)
            assert (report.fatal, report.held, report.missing, report.different) == ((), (), (), ())


def test_rules_that_are_there_are_replaced_only_when_told(cli: Path) -> None:
    """One request replaces all of them."""
    (cli / "rules").write_text('{"Rules": ["another"]}')
    refused = _run(cli, "r2", "my-bucket", "app")
    assert (refused.returncode, _rules(cli)) == (1, ["another"])
    assert '"another"' in refused.stderr
    assert "--replace" in refused.stderr
    assert _run(cli, "r2", "my-bucket", "app", "--replace").returncode == 0
    assert "another" not in _rules(cli)


def test_a_refusal_is_shown_and_nothing_is_set(cli: Path) -> None:
    refused = _run(cli, "r2", "my-bucket", "app", environment={**ENDPOINT, "ERROR": "AccessDenied"})
    assert (refused.returncode, (cli / "rules").exists()) == (1, False)
    assert "AccessDenied" in refused.stderr


@pytest.mark.parametrize(
    ("words", "environment"),
    [
        (("r2", "my-bucket", "app"), {}),
        (("r2", "my-bucket", 'app"'), ENDPOINT),
        (("r2", "my-bucket", "app"), {**ENDPOINT, "STREAM_DAYS": "6"}),
        (("r2", "my-bucket", "app"), {**ENDPOINT, "HOURLY_DAYS": "36"}),
        (("aws", "my-bucket", "app"), ENDPOINT),
        (("r2",), ENDPOINT),
        (("r2", "my-bucket", "app", "--force"), ENDPOINT),
    ],
    ids=["no endpoint", "quotes", "too few days", "in another order", "another store", "no bucket", "unknown option"],
)
def test_wrong_arguments_set_nothing(cli: Path, words: Sequence[str], environment: dict[str, str]) -> None:
    refused = _run(cli, *words, environment=environment)
    assert (refused.returncode, (cli / "rules").exists()) == (2, False)
    assert len(refused.stderr.splitlines()) == 1


def _run(cli: Path, *words: str, environment: dict[str, str] = ENDPOINT) -> subprocess.CompletedProcess[str]:
    variables = {"PATH": f"{cli}:{SYSTEM_PATH}", **environment}
    return subprocess.run([SCRIPT, *words], env=variables, capture_output=True, text=True, check=False)


def _rules(cli: Path) -> list[Any]:
    rules: list[Any] = json.loads((cli / "rules").read_text())["Rules"]
    return rules
