"""Files that the documentation shows can be copied: they parse, and they give a shutdown enough time."""

import json
import re
import shlex
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from sidecar.cli.check.shutdown import GIVING_UP
from sidecar.settings.fields import Settings
from sidecar.settings.load import load
from tests.docs import DOCS, EVERY_PAGE
from tests.docs.commands import parse
from tests.docs.markdown import Page
from tests.harness.environment import ROOT
from tests.harness.provisioned import actions

PARSERS: Mapping[str, Callable[[str], object]] = {"json": json.loads, "toml": tomllib.loads}
KILL_TIMEOUT = re.compile(
    r"\b(?:kill_timeout = |terminationGracePeriodSeconds: |--stop-timeout |stop_grace_period: )(\d+)"
)


@pytest.mark.parametrize("path", EVERY_PAGE, ids=lambda path: path.name)
def test_what_can_be_copied_into_a_file_is_well_formed(path: Path) -> None:
    for fence in Page(path).fences:
        if parse := PARSERS.get(fence.language):
            try:
                parse(fence.text)
            except ValueError as error:
                pytest.fail(f"{fence.where}: {error}")


def test_the_examples_of_pruning_are_those_of_infra() -> None:
    """Files to copy, which the page shows in full; the policy allows what `prune` does and no more."""
    shown = [fence.text for fence in Page(DOCS / "prune.md").fences]
    files = {name: (ROOT / "infra" / "prune" / name).read_text() for name in ("policy.json", "crontab", "workflow.yml")}
    assert [name for name, text in files.items() if text.rstrip() not in {each.rstrip() for each in shown}] == []
    assert set(actions(json.loads(files["policy.json"]))) == {
        *("s3:ListBucket", "s3:GetObject", "s3:GetObjectTagging", "s3:DeleteObject")
    }
    (job,) = yaml.safe_load(files["workflow.yml"])["jobs"].values()
    (line,) = [line for line in files["crontab"].splitlines() if not line.startswith("#")]
    for command in [line.rpartition("&& ")[2], *(step["run"] for step in job["steps"][1:])]:
        program, *arguments = shlex.split(command)
        assert (program, parse(arguments).info_name) == ("sidecar", "prune")
    load({}, {name: value for name, value in job["env"].items() if name.startswith("SIDECAR_")})


def test_every_example_of_a_kill_timeout_holds_a_shutdown_with_the_defaults() -> None:
    """A shorter one, copied, would cost the last minutes of somebody's data."""
    defaults = Settings.model_fields
    needed = defaults["shutdown_grace"].default + defaults["final_backup_timeout"].default + GIVING_UP
    given = {
        fence.where: int(seconds)
        for path in EVERY_PAGE
        for fence in Page(path).fences
        for seconds in KILL_TIMEOUT.findall(fence.text)
    }
    assert {where.split(":")[0] for where in given} >= {
        "README.md",
        "docs/deploy/docker.md",
        "docs/deploy/fly.md",
        "docs/deploy/kubernetes.md",
    }
    assert {where: seconds for where, seconds in given.items() if seconds < needed.total_seconds()} == {}
