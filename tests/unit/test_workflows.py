"""The workflows: what they may do, and whose code they run."""

import os
import re
import subprocess
import textwrap
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


@pytest.mark.parametrize("name", ["infra.yml", "deploy.yml", "release.yml", "pages.yml"])
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


def test_nothing_is_deployed_that_ci_did_not_pass() -> None:
    """Whoever asks for a deploy, the job that deploys waits for the one that asks for ci's run of this commit on main.

    `workflow_run` would be the other way; it has main's rights for runs that a pull request may have named.
    """
    deploy = (FOLDER / "deploy.yml").read_text()
    jobs = _jobs(deploy)
    assert re.search(r"^    needs: tested$", jobs["deploy"], re.MULTILINE)
    assert "/actions/workflows/ci.yml/runs?head_sha=$GITHUB_SHA&event=push&branch=main" in jobs["tested"]
    assert re.findall(r"^      (\w.*\w)", jobs["tested"].split("steps:")[0], re.MULTILINE) == [
        "actions: read # runs of workflows"
    ]
    assert not any(re.search(r"^  workflow_run:", path.read_text(), re.MULTILINE) for path in WORKFLOWS)


@pytest.mark.parametrize(
    ("answers", "status"),
    [
        (["completed success"], 0),
        (["completed failure"], 1),
        (["completed cancelled"], 1),
        (["null null", "queued null", "", "in_progress null", "completed success"], 0),
        (["in_progress null", "completed timed_out"], 1),
    ],
    ids=["passed", "failed", "cancelled", "late", "late and failed"],
)
def test_deploy_waits_for_ci_to_pass(tmp_path: Path, answers: list[str], status: int) -> None:
    """The step's own script, with a `gh` that says one answer after another ("": GitHub does not answer)."""
    done = _wait_for_ci(tmp_path, answers, "refs/heads/main")
    assert done.returncode == status, done.stdout
    assert (tmp_path / "answers").read_text() == ""


def test_only_main_is_deployed(tmp_path: Path) -> None:
    assert _wait_for_ci(tmp_path, ["completed success"], "refs/heads/other").returncode == 1


def test_called_deploy_is_given_the_secret_of_its_environment() -> None:
    """GitHub: a secret that the caller does not name is an empty string in the called workflow, even the environment's own."""
    infra, deploy = ((FOLDER / name).read_text() for name in ("infra.yml", "deploy.yml"))
    assert "secrets: inherit" not in infra
    assert "      FLY_API_TOKEN: ${{ secrets.FLY_API_TOKEN }}" in _jobs(infra)["deploy"]
    assert re.search(r"FLY_API_TOKEN:\n(\s+#.*\n)*\s+required: true\n", deploy)
    # A called job can have no right that its caller does not have.
    granted = set(re.findall(r"^      ([\w-]+: \w+)", _jobs(infra)["deploy"], re.MULTILINE))
    assert {"actions: read", "contents: read"} <= granted


def test_all_green_waits_for_every_job() -> None:
    """A job that the gate does not know could fail unseen."""
    jobs = _jobs((FOLDER / "ci.yml").read_text())
    (needs,) = re.findall(r"needs: \[(.+)\]", jobs["green"])
    assert set(needs.split(", ")) == set(jobs) - {"green"}


def _wait_for_ci(folder: Path, answers: list[str], ref: str) -> subprocess.CompletedProcess[str]:
    (block,) = re.findall(
        r"^        run: \|\n((?:(?: {10}.*)?\n)+)", _jobs((FOLDER / "deploy.yml").read_text())["tested"], re.MULTILINE
    )
    (folder / "answers").write_text("".join(f"{answer}\n" for answer in answers))
    for name, script in {
        "gh": 'cd "${0%/*}"; answer=$(head -n 1 answers); sed -i 1d answers; echo "$answer"; [ -n "$answer" ]',
        "sleep": ":",
    }.items():
        (folder / name).write_text(f"#!/bin/sh\n{script}\n")
        (folder / name).chmod(0o755)
    env = {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "GITHUB_REF": ref,
        "GITHUB_SHA": "0" * 40,
        "GITHUB_REPOSITORY": "o/r",
    }
    command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", textwrap.dedent(block)]  # as GitHub runs it
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=30, check=False)


def _jobs(workflow: str) -> dict[str, str]:
    """The text of each job, by its id. Our workflows are indented by two."""
    jobs = workflow.split("\njobs:\n", 1)[1]
    parts = re.split(r"^  ([a-z]+):\n", jobs, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
