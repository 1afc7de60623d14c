"""What a bucket's lifecycle rules do to a database, and what `check` says about it."""

from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.bootstrap import Services, open_services
from sidecar.cli.check.expiry import bill, expiry
from sidecar.errors import AccessDenied, ConfigurationError
from sidecar.model import RestorePoint, Timestamp
from sidecar.policies import Expires, RetentionDays
from sidecar.repository.bucket_rules import judge_rules
from sidecar.repository.expiry import what_expires
from sidecar.settings.load import load
from sidecar.storage import LifecycleRule
from sidecar.storage.s3.known import AWS, traits_of
from sidecar.storage.s3.lifecycle import _expiring
from sidecar.storage.traits import DIRECTORY
from tests.fakes import MemoryStore

pytestmark = pytest.mark.anyio

KEEP = RetentionDays()
TAG = "sidecar-tier"
OURS = tuple(
    LifecycleRule(tier, "", {TAG: tier}, days)
    for tier, days in {"recent": 1, "hourly": 7, "daily": 35, "stream": 35}.items()
)


def rule(prefix: str = "", days: int = 30, **tags: str) -> LifecycleRule:
    return LifecycleRule("mine", prefix, {name.replace("_", "-"): value for name, value in tags.items()}, days)


@pytest.mark.parametrize("prefix", ["", "app", "app.db/", "app.db/2026", "lease.json", "l"])
@pytest.mark.parametrize("days", [0, 3650])
def test_a_rule_without_a_tag_that_reaches_the_newest_is_fatal(prefix: str, days: int) -> None:
    """However long its days are: an app may sleep for longer. So is one that takes the lease."""
    dangerous = rule(prefix, days)
    assert judge_rules([*OURS, dangerous], "app.db", KEEP).fatal == (dangerous,)


@pytest.mark.parametrize(
    "harmless",
    [
        rule("other.db/"),
        rule("diverged/"),
        rule("stream/"),
        rule("app.db2/"),
        rule(env="test"),
        rule("", days=1, sidecar_tier="recent"),
    ],
)
def test_other_rules_are_not(harmless: LifecycleRule) -> None:
    report = judge_rules([*OURS, harmless], "app.db", KEEP)
    assert (report.fatal, report.held, report.missing) == ((), (), ())


def test_each_tier_has_the_days_of_its_shortest_rule() -> None:
    rules = [
        rule("", 14, sidecar_tier="hourly"),
        rule("app.db/", 9, sidecar_tier="hourly"),
        rule("b/", 1, sidecar_tier="daily"),
    ]
    report = judge_rules([*rules, rule("stream/", 20)], "app.db", KEEP)
    assert report.days == {"hourly": 9, "stream": 20}
    assert (report.missing, report.different) == (("recent", "daily"), ("hourly", "stream"))


def test_a_rule_that_takes_held_ones_is_noticed() -> None:
    taking = rule("", 365, sidecar_tier="held")
    assert judge_rules([*OURS, taking], "app.db", KEEP).held == (taking,)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({"Filter": {}}, ("", {})),
        ({"Prefix": ""}, ("", {})),
        ({}, ("", {})),
        ({"Filter": {"Prefix": "shop/"}}, ("", {})),
        ({"Filter": {"Prefix": "sh"}}, ("", {})),
        ({"Filter": {"Prefix": "shop/app.db/"}}, ("app.db/", {})),
        ({"Prefix": "shop/stream/"}, ("stream/", {})),
        ({"Filter": {"Tag": {"Key": TAG, "Value": "daily"}}}, ("", {TAG: "daily"})),
        (
            {"Filter": {"And": {"Prefix": "shop/a", "Tags": [{"Key": "a", "Value": "b"}, {"Key": "c", "Value": "d"}]}}},
            ("a", {"a": "b", "c": "d"}),
        ),
        ({"Filter": {"ObjectSizeGreaterThan": 5}}, ("", {})),
        ({"Filter": {"Prefix": "other/"}}, None),
        ({"Status": "Disabled"}, None),
        ({"Expiration": {"ExpiredObjectDeleteMarker": True}}, None),
        ({"Expiration": {}, "NoncurrentVersionExpiration": {"NoncurrentDays": 7}}, None),
        ({"Expiration": {}, "AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 1}}, None),
    ],
)
def test_rules_are_read_in_every_form(given: Mapping[str, object], found: tuple[str, Mapping[str, str]] | None) -> None:
    """About current objects below the store's prefix, which is taken off."""
    read = list(_expiring([{"ID": "x", "Status": "Enabled", "Expiration": {"Days": 9}, **given}], "shop/"))
    assert read == ([LifecycleRule("x", *found, 9)] if found else [])


def test_a_fixed_date_counts_as_well() -> None:
    (read,) = _expiring([{"Status": "Enabled", "Expiration": {"Date": "2027-01-01"}, "Filter": {}}], "")
    assert (read.name, read.days) == ("without a name", 0)


@pytest.mark.parametrize(
    ("endpoint", "expires"),
    [
        (None, Expires.TAGS),
        ("https://s3.eu-central-1.amazonaws.com", Expires.TAGS),
        ("https://fly.storage.tigris.dev", Expires.PREFIXES),
        ("https://1234.r2.cloudflarestorage.com", Expires.PREFIXES),
        ("https://storage.googleapis.com", Expires.NOTHING),
    ],
)
def test_what_deletes_follows_from_what_a_store_can_do(endpoint: str | None, expires: Expires) -> None:
    assert what_expires(traits_of(endpoint), prunes=False) is expires
    assert what_expires(traits_of(endpoint), prunes=True) is Expires.PRUNE
    assert what_expires(DIRECTORY, prunes=True) is Expires.PRUNE


class Rules:
    """Implements `base.Lifecycle`."""

    def __init__(
        self, *rules: LifecycleRule, error: ConfigurationError | AccessDenied | None = None, known: bool = True
    ) -> None:
        self._rules, self._error = rules if known else None, error

    async def rules(self) -> tuple[LifecycleRule, ...] | None:
        """See `base.Lifecycle`."""
        if self._error:
            raise self._error
        return self._rules


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    """Of a store whose rules can select by tag."""
    settings = {"databases": (str(tmp_path / "app.db"),), "store": f"file://{tmp_path}/store"}
    async with open_services(load(settings, {})) as made:
        made.status.expires = Expires.TAGS
        yield replace(made, store=MemoryStore(traits=AWS))


def without_rules(services: Services) -> Services:
    return replace(services, store=MemoryStore(traits=replace(AWS, tag_rules=False, prefix_rules=False)))


async def said(services: Services, lifecycle: Rules | None) -> tuple[str, str]:
    found = await expiry(replace(services, lifecycle=lifecycle), services.databases[0])
    return found.kind, found.text


@pytest.mark.parametrize("expires", Expires)
async def test_check_fails_on_a_fatal_rule_whatever_deletes_the_rest(services: Services, expires: Expires) -> None:
    services.status.expires = expires
    with pytest.raises(ConfigurationError, match="'mine' deletes all objects of the store after 30 days"):
        await said(services, Rules(*OURS, rule()))


async def test_check_says_what_the_rules_do(services: Services) -> None:
    kind, text = await said(services, Rules(*OURS))
    assert (kind, text) == (
        "ok",
        "by the bucket's rules: recent after 1 day, hourly after 7 days, daily after 35 days, stream after 35 days",
    )
    kind, text = await said(services, Rules(*OURS[1:]))
    assert (kind, "no rule deletes recent: they are kept for ever" in text) == ("warning", True)
    kind, text = await said(services, Rules(*OURS[:2], rule("", 90, sidecar_tier="daily"), OURS[3]))
    assert (kind, "`retention_days` says recent=1,hourly=7,daily=35,stream=35" in text) == ("warning", True)
    kind, text = await said(services, Rules(*OURS, rule("", 9, sidecar_tier="held")))
    assert (kind, "deletes held restore points" in text) == ("warning", True)


async def test_check_says_why_it_does_not_know(services: Services) -> None:
    assert (
        "may not be read: allow s3:GetLifecycleConfiguration"
        in (await said(services, Rules(error=AccessDenied("no"))))[1]
    )
    assert (await said(services, Rules(error=ConfigurationError("the store rejects it"))))[0] == "skipped"


async def test_check_warns_of_a_store_without_lifecycle_rules(services: Services) -> None:
    """Such as versitygw, which refuses to read them with 501: nothing would ever expire there."""
    kind, text = await said(services, Rules(known=False))
    assert (kind, "the store has no lifecycle rules" in text, "`sidecar prune`" in text) == ("warning", True, True)


async def test_check_warns_where_nothing_deletes(services: Services) -> None:
    kind, text = await said(without_rules(services), Rules())
    assert (kind, "`sidecar prune`" in text, "prune=on" in text) == ("warning", True, True)


async def test_check_has_the_bill_before_the_first_deploy(services: Services) -> None:
    """From the database if there is no restore point, and nothing without either."""
    (database,) = services.databases
    assert (await bill(services, database, None)).kind == "skipped"
    database.path.write_bytes(bytes(1 << 20))
    assert "461 restore points of about 460.8 KiB, 207.4 MiB" in (await bill(services, database, None)).text
    point = RestorePoint("app.db/x", "app.db", Timestamp("20261120T145503.123Z"), 470_000_000, "e", {}, None)
    found = (await bill(services, database, point)).text
    assert (
        "461 restore points of 448.2 MiB, 201.8 GiB if the app writes all the time and every 5m is published: $4.98 of storage "
        "(where nothing deletes them, it grows by $93.40 every month)"
    ) in found
    assert "a versioned bucket adds $3.11 for each day that it keeps noncurrent versions" in found  # 288 of 470 MB
    assert ", and $12.96 of requests for segments if there is a commit every 1s;" in found
    services.status.expires = Expires.NOTHING
    assert "storage that grows by $93.40 every month" in (await bill(services, database, point)).text
    assert timedelta(minutes=5) == services.configuration.settings.interval


PLACED = [rule("expiring/recent/", 1), rule("expiring/hourly/", 7), rule("expiring/daily/", 35), rule("stream/", 35)]


def test_rules_by_prefix_select_the_places_of_the_tiers() -> None:
    report = judge_rules(PLACED, "app.db", KEEP, placing=True)
    assert (report.fatal, report.held, report.missing, report.different) == ((), (), (), ())
    assert judge_rules(PLACED[1:], "app.db", KEEP, placing=True).missing == ("recent",)
    assert judge_rules(PLACED, "app.db", KEEP).missing == ("recent", "hourly", "daily")


@pytest.mark.parametrize("prefix", ["", "app.db/", "app", "app.db/99991231T235959.999Z.newest-a", "lease"])
def test_a_rule_by_prefix_that_reaches_the_slots_or_the_lease_is_fatal(prefix: str) -> None:
    dangerous = rule(prefix, 30)
    assert judge_rules([*PLACED, dangerous], "app.db", KEEP, placing=True).fatal == (dangerous,)


def test_a_rule_by_prefix_that_deletes_held_ones_is_told() -> None:
    taking = rule("held/", 30)
    assert judge_rules([*PLACED, taking], "app.db", KEEP, placing=True).held == (taking,)


async def test_check_says_which_prefixes_no_rule_selects(services: Services) -> None:
    """Of a store whose rules select by prefix."""
    placing = replace(services, store=MemoryStore(traits=replace(AWS, tag_rules=False)))
    assert (await said(placing, Rules(*PLACED)))[0] == "ok"
    kind, text = await said(placing, Rules(*PLACED[2:]))
    assert kind == "warning"
    assert "no rule deletes what is below expiring/recent/, expiring/hourly/: it is kept for ever" in text
    unruled = "below expiring/recent/, expiring/hourly/, expiring/daily/, stream/: it is kept for ever: https://"
    assert unruled in (await said(placing, Rules()))[1]
    with pytest.raises(ConfigurationError, match="the newest restore point"):
        await said(placing, Rules(*PLACED, rule("app.db/")))
