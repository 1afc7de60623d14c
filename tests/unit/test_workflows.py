"""The workflows: what they may do, and whose code they run."""

import re
from pathlib import Path

import pytest

from tests.harness.environment import ROOT

FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = sorted(FOLDER.glob("*.yml"))


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_action_is_pinned_to_a_commit(workflow: Path) -> None:
    """A tag can be moved to other code, a commit cannot. The comment says which version it is."""
    used = re.findall(r"\buses:\s*(.+)", workflow.read_text())
    assert used
    pinned = r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v?\d+(\.\d+)+"
    assert [each for each in used if not (re.fullmatch(pinned, each.strip()) or each.startswith("$/"))] == []


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_nothing_is_permitted_but_what_a_job_asks_for(workflow: Path) -> None:
    """`permissions: {}` on top; every job says what it needs, and none says write-all."""
    text = workflow.read_text()
    assert re.search(r"^permissions: \{\}$", text, re.MULTILINE)
    jobs = _jobs(text)
    assert jobs
    assert [name for name, body in jobs.items() if not re.search(r"^    permissions:", body, re.MULTILINE)] == []
    assert "write-all" not in text
    assert "read-all" not in text
    assert "pull_request_target" not in text


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_no_checkout_leaves_its_token_behind(workflow: Path) -> None:
    text = workflow.read_text()
    checkouts = re.findall(r"uses: actions/checkout@.*\n\s+with:\n\s+persist-credentials: (\w+)", text)
    assert checkouts == ["false"] * text.count("actions/checkout@")


@pytest.mark.parametrize("name", ["infra.yml", "deploy.yml", "release.yml"])
def test_what_changes_the_world_is_never_cancelled(name: str) -> None:
    text = (FOLDER / name).read_text()
    (cancel,) = re.findall(r"cancel-in-progress: (.+)", text)
    assert cancel in ("false", "${{ github.event_name == 'pull_request' }}")


def test_apply_and_deploy_are_behind_the_environment() -> None:
    infra, deploy = ((FOLDER / name).read_text() for name in ("infra.yml", "deploy.yml"))
    using_apply_role = [name for name, body in _jobs(infra).items() if "AWS_APPLY_ROLE_ARN" in body]
    assert using_apply_role == ["apply"]
    for body in (_jobs(infra)["apply"], _jobs(deploy)["deploy"]):
        assert re.search(r"^    environment: production$", body, re.MULTILINE)
    assert re.search(r"run: flyctl deploy --ha=false\b", deploy)


def test_all_green_waits_for_every_job() -> None:
    """A job that the gate does not know could fail unseen."""
    jobs = _jobs((FOLDER / "ci.yml").read_text())
    (needs,) = re.findall(r"needs: \[(.+)\]", jobs["green"])
    assert set(needs.split(", ")) == set(jobs) - {"green"}


def _jobs(workflow: str) -> dict[str, str]:
    """The text of each job, by its id. Our workflows are indented by two."""
    jobs = workflow.split("\njobs:\n", 1)[1]
    parts = re.split(r"^  ([a-z]+):\n", jobs, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
