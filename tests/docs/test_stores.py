"""The pages about stores: their rules never reach the newest restore point, and their table says what the program knows."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from sidecar.policies import RetentionDays
from sidecar.repository.bucket_rules import judge_rules
from sidecar.repository.placed import places_by_prefix
from sidecar.storage import LifecycleRule
from sidecar.storage.s3.known import traits_of
from sidecar.storage.traits import PartCopy, Traits
from tests.docs import DOCS
from tests.docs.markdown import Page

STORES = DOCS / "stores"
INDEX = STORES / "index.md"
PAGES = sorted(set(STORES.glob("*.md")) - {INDEX})

for_every_store = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.stem)


@for_every_store
def test_what_expires_by_prefix_is_never_the_newest_restore_point(path: Path) -> None:
    """Copied from the page, a rule that reaches it would delete it if the app sleeps. All tiers expire where they are placed."""
    expiring = dict(_expirations(Page(path)))
    if not places_by_prefix(_traits(path)):
        assert expiring in ({}, {"app/stream/": RetentionDays().stream})
        return
    rules = [LifecycleRule("", prefix.removeprefix("app/"), {}, days) for prefix, days in expiring.items()]
    report = judge_rules(rules, "app.db", RetentionDays(), placing=True)
    assert (report.fatal, report.held, report.missing, report.different) == ((), (), (), ())


@for_every_store
def test_a_store_whose_rules_can_do_nothing_is_pruned(path: Path) -> None:
    traits = _traits(path)
    if traits.certain and not traits.tag_rules and not places_by_prefix(traits):
        assert "](../prune.md)" in path.read_text()


@for_every_store
def test_the_table_says_what_the_program_knows(path: Path) -> None:
    traits = _traits(path)
    row = re.search(rf"^\| \[[^\]]+\]\({path.name}\) \|(.+)\|$", INDEX.read_text(), re.MULTILINE)
    assert row
    lease, reuse, expiry, settings = (cell.strip() for cell in row[1].split("|"))
    assert ("endpoint" in settings) == ("AWS_ENDPOINT_URL_S3=" in path.read_text())
    if traits.certain:
        assert (lease.startswith("in the store"), "`lease_store`" in settings) == (
            traits.conditional_put,
            not traits.conditional_put,
        )
        assert reuse.startswith("no") == (traits.part_copy is PartCopy.NO)
        assert ("1,000" in reuse) == (traits.maximum_parts == 1000)
        assert ("one size" in reuse) == traits.equal_parts
        assert expiry.startswith("rules by tag") == traits.tag_rules
        assert expiry.startswith("rules by prefix") == places_by_prefix(traits)


def _traits(path: Path) -> Traits:
    found = re.search(r"^AWS_ENDPOINT_URL_S3=(\S+)$", path.read_text(), re.MULTILINE)
    return traits_of(found[1] if found else None)


def _expirations(page: Page) -> list[tuple[str, int]]:
    """Prefix and days of each rule that a page shows: S3's form and Google's."""
    shown = [json.loads(fence.text) for fence in page.fences if fence.language == "json"]
    return [each for document in shown for each in (*_s3(document), *_google(document))]


def _s3(document: dict[str, Any]) -> list[tuple[str, int]]:
    rules = [rule for rule in document.get("Rules", []) if "Expiration" in rule]
    return [(rule["Filter"]["Prefix"], rule["Expiration"]["Days"]) for rule in rules]


def _google(document: dict[str, Any]) -> list[tuple[str, int]]:
    rules = [rule["condition"] for rule in document.get("rule", []) if rule["action"]["type"] == "Delete"]
    return [(prefix, rule["age"]) for rule in rules for prefix in rule["matchesPrefix"]]
