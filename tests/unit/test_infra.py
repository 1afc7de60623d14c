"""What Terraform provisions: rules that hold in its files themselves, without Terraform, an account or a network."""

import fnmatch
import re
from dataclasses import asdict
from pathlib import Path

import pytest

from sidecar.policies import RetentionDays
from tests.harness.environment import ROOT
from tests.harness.provisioned import BOOTSTRAP_POLICIES, POLICIES, actions, fly_trust_policy, policy, writer_policy

STACKS = [ROOT / "infra", ROOT / "infra" / "bootstrap"]


def test_writer_has_what_it_needs_and_deletes_nothing() -> None:
    document = writer_policy("example", "app")
    assert set(actions(document)) == {
        "s3:ListBucket",
        "s3:GetObject",
        "s3:GetObjectTagging",
        "s3:PutObject",
        "s3:PutObjectTagging",
        "s3:AbortMultipartUpload",
    }
    for forbidden in (
        "s3:DeleteObject",
        "s3:DeleteObjectVersion",
        "s3:DeleteObjectTagging",
        "s3:PutLifecycleConfiguration",
    ):
        assert not any(fnmatch.fnmatchcase(forbidden, allowed) for allowed in actions(document))


def test_writer_stays_under_its_prefix() -> None:
    """The slash keeps `app` out of `app-two`."""
    listing, objects = writer_policy("example", "app")["Statement"]
    assert listing["Condition"] == {"StringLike": {"s3:prefix": "app/*"}}
    assert listing["Resource"] == "arn:aws:s3:::example"
    assert objects["Resource"] == "arn:aws:s3:::example/app/*"


def test_role_trusts_machines_of_one_app() -> None:
    """The colon before the star keeps `example-org:app` out of `example-org:app-two`."""
    (statement,) = fly_trust_policy("arn:provider", "example-org", "app")["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    assert statement["Principal"] == {"Federated": "arn:provider"}
    assert statement["Condition"] == {
        "StringEquals": {"oidc.fly.io/example-org:aud": "sts.amazonaws.com"},
        "StringLike": {"oidc.fly.io/example-org:sub": "example-org:app:*"},
    }


def test_boundary_holds_the_writer_and_no_more() -> None:
    """A boundary that is narrower than the policy would deny what Terraform granted; a wider one would be none."""
    values = {"store_resources": "[]", "partition": "aws", "account_id": "123456789012"}
    boundary = policy("writer_boundary", values, BOOTSTRAP_POLICIES)
    kms = policy("writer_kms", {"key_arn": "arn:key", "region": "eu-central-1"})
    assert set(actions(boundary)) == set(actions(writer_policy("example", "app"))) | set(actions(kms))


def test_bucket_refuses_plain_http_old_tls_and_overwriting() -> None:
    values = {"bucket_arn": "arn:aws:s3:::example"}
    plain, old = policy("bucket", values)["Statement"]
    (overwriting,) = policy("restore_points", values)["Statement"]
    assert {each["Effect"] for each in (plain, old, overwriting)} == {"Deny"}
    assert {each["Principal"] for each in (plain, old, overwriting)} == {"*"}
    assert plain["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert old["Condition"] == {"NumericLessThan": {"s3:TlsVersion": "1.2"}}
    # Parts of an upload take no condition: only what creates the object is held to it.
    assert overwriting["Condition"] == {
        "Null": {"s3:if-none-match": "true"},
        "Bool": {"s3:ObjectCreationOperation": "true"},
    }
    assert [each.removeprefix(values["bucket_arn"]) for each in overwriting["Resource"]] == [
        "/*.sqlite3.zst",
        "/*/stream/*.zst",
    ]


@pytest.mark.parametrize("folder", [POLICIES, BOOTSTRAP_POLICIES], ids=["infra", "bootstrap"])
def test_every_policy_template_is_what_terraform_uses(folder: Path) -> None:
    """A template that no stack fills in would be tested and never provisioned."""
    code = "".join(path.read_text() for path in folder.parent.glob("*.tf"))
    for template in folder.glob("*.json.tftpl"):
        assert f'templatefile("${{path.module}}/policies/{template.name}"' in code
    assert "aws_iam_policy_document" not in code
    assert not re.search(r'\bAction\s*=\s*["\[]', code)


def test_only_the_tiers_expire() -> None:
    """Neither the newest restore point (no tag) nor a held one may ever expire, however old."""
    (lifecycle,) = _blocks(
        (ROOT / "infra" / "bucket.tf").read_text(), r'resource "aws_s3_bucket_lifecycle_configuration" "store"'
    )
    rules = [*_blocks(lifecycle, r"rule"), *_blocks(lifecycle, r'dynamic "rule"')]
    expiring = [
        rule for rule in rules if any(re.search(r"\b(days|date)\b", each) for each in _blocks(rule, "expiration"))
    ]
    (tiers,) = expiring
    assert re.search(r"for_each\s*=\s*var\.retention_days\n", tiers)
    (tag,) = _blocks(tiers, "tag")
    assert tag.split() == ["key", "=", '"sidecar-tier"', "value", "=", "tier.key"]
    (retention,) = _blocks((ROOT / "infra" / "variables.tf").read_text(), r'variable "retention_days"')
    defaults = {tier: int(days) for tier, days in re.findall(r"(\w+)\s*=\s*optional\(number, (\d+)\)", retention)}
    assert defaults == asdict(RetentionDays()), "what pruning does, too"


def test_incomplete_uploads_are_aborted_whatever_they_are() -> None:
    """With a filter on tags nothing would match: an upload has none before it is complete."""
    (lifecycle,) = _blocks(
        (ROOT / "infra" / "bucket.tf").read_text(), r'resource "aws_s3_bucket_lifecycle_configuration" "store"'
    )
    (aborting,) = [rule for rule in _blocks(lifecycle, r"rule") if _blocks(rule, "abort_incomplete_multipart_upload")]
    assert re.search(r"filter \{\}", aborting)


@pytest.mark.parametrize(("file", "bucket"), [("infra/bucket.tf", "store"), ("infra/bootstrap/state.tf", "state")])
def test_buckets_are_closed_and_stay(file: str, bucket: str) -> None:
    text = (ROOT / file).read_text()
    (itself,) = _blocks(text, rf'resource "aws_s3_bucket" "{bucket}"')
    assert re.search(r"force_destroy\s*=\s*false", itself)
    assert re.search(r"prevent_destroy\s*=\s*true", itself)
    (block,) = _blocks(text, rf'resource "aws_s3_bucket_public_access_block" "{bucket}"')
    assert len(re.findall(r"(?:block|ignore|restrict)_public_\w+\s*=\s*true", block)) == 4
    (ownership,) = _blocks(text, rf'resource "aws_s3_bucket_ownership_controls" "{bucket}"')
    assert "BucketOwnerEnforced" in ownership
    (versioning,) = _blocks(text, rf'resource "aws_s3_bucket_versioning" "{bucket}"')
    assert '"Enabled"' in versioning


@pytest.mark.parametrize("stack", STACKS, ids=["infra", "bootstrap"])
def test_variables_and_outputs_say_what_they_are(stack: Path) -> None:
    described = [
        (path.name, kind, bool(re.search(r'^\s*description\s*=\s*"\S', body, re.MULTILINE)))
        for path in stack.glob("*.tf")
        for kind in ("variable", "output")
        for body in _blocks(path.read_text(), rf'{kind} "\w+"')
    ]
    assert len(described) > 5
    assert [each for each in described if not each[2]] == []


def _blocks(code: str, head: str) -> list[str]:
    """The bodies of HCL blocks whose head matches, however deep."""
    heads = re.finditer(rf"^\s*{head}\s*{{", code, re.MULTILINE)
    return [code[found.end() : _closing(code, found.end())] for found in heads]


def _closing(code: str, position: int) -> int:
    depth = 1
    for end in range(position, len(code)):
        depth += {"{": 1, "}": -1}.get(code[end], 0)
        if depth == 0:
            return end
    raise ValueError("a block without an end")
