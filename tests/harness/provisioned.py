"""The policies that Terraform provisions, read from its own files, so that tests enforce the very documents that
`templatefile()` fills in: `infra/**/policies/*.json.tftpl` are JSON with `${name}` in it.
"""

import json
import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.harness.environment import ROOT

POLICIES = ROOT / "infra" / "policies"
BOOTSTRAP_POLICIES = ROOT / "infra" / "bootstrap" / "policies"


def policy(name: str, values: Mapping[str, str], folder: Path = POLICIES) -> dict[str, Any]:
    """The policy document `name`, filled in as `templatefile()` would. Raises KeyError for a value that is not given."""
    text = (folder / f"{name}.json.tftpl").read_text()
    document: dict[str, Any] = json.loads(string.Template(text).substitute(values))
    return document


def writer_policy(bucket: str, prefix: str) -> dict[str, Any]:
    """The permissions of a writer; `bucket` and `prefix` are those of its store, `s3://bucket/prefix`."""
    return policy("writer", {"bucket_arn": f"arn:aws:s3:::{bucket}", "prefix": prefix})


def fly_trust_policy(provider_arn: str, organization: str, app: str) -> dict[str, Any]:
    """The trust policy of the writer: the machines of one fly.io app."""
    return policy("fly_trust", {"provider_arn": provider_arn, "organization": organization, "app": app})


def actions(document: Mapping[str, Any]) -> list[str]:
    """Every action that a document's statements allow."""
    found: list[str] = []
    for statement in document["Statement"]:
        if statement["Effect"] == "Allow":
            found += statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
    return found
