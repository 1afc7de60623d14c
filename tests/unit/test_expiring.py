"""Whether something deletes what has expired, as page, status and JSON show it; and the bill of a full history."""

from datetime import datetime, timedelta
from pathlib import Path

import anyio
import pytest

from sidecar.daemon.pruning import TRY_EVERY, keep_pruning
from sidecar.errors import AccessDenied
from sidecar.model import Database, Timestamp
from sidecar.monitoring.html import PageTemplate
from sidecar.monitoring.listing import StoreListing
from sidecar.policies import Expires, RetentionDays
from sidecar.repository.catalog import Catalog
from sidecar.repository.keys import key_of
from sidecar.repository.pruning import Pruning
from sidecar.status.bill import Load, bill_of, full_bill, kept_at_most
from sidecar.status.expiring import MANY, attention
from sidecar.status.health import Level, overall
from sidecar.status.listing import Listing
from sidecar.status.model import Status
from sidecar.status.serialize import as_json
from tests.fakes import START, FakeClock, MemoryStore

NAME = "app.db"
DAY = timedelta(days=1)
KEEP = RetentionDays()


def status_of(expires: Expires | None, *, billable: bool = True) -> Status:
    """A daemon that has published."""
    status = Status((Database(NAME, Path("/app.db")),), "s3://b", "1", FakeClock().now, billable=billable)
    status.enter("running", ready=True)
    status.expires, status.interval = expires, timedelta(minutes=5)
    status.published(NAME, key_of(NAME, Timestamp.of(START)), 10**9, 10**6, 0)
    status.succeeded(NAME, "published")
    return status


async def listed(status: Status, instants: list[datetime]) -> Listing:
    """The listing of a store that has restore points of these instants."""
    store = MemoryStore(time=START)
    for instant in instants:
        store.add(key_of(NAME, Timestamp.of(instant)), b"12345678")
    expires = status.expires
    assert await StoreListing(Catalog(store), status, "m", {}, KEEP).refresh(NAME)
    assert status.expires in {Expires.TAGS, Expires.PRUNE}, "what this store can do is known by now"
    status.expires = expires
    return status.listings[NAME]


def every(minutes: int, *, until: timedelta, count: int) -> list[datetime]:
    return [START - until - number * timedelta(minutes=minutes) for number in reversed(range(count))]


@pytest.mark.anyio
@pytest.mark.parametrize("expires", Expires)
async def test_what_stays_for_days_after_it_expired_needs_attention(expires: Expires) -> None:
    """Whatever should delete it; and the advice is about that."""
    status = status_of(expires)
    assert (await listed(status, [*every(5, until=4 * DAY, count=60), START])).overdue > MANY
    health = overall(status)
    assert health.level is Level.ATTENTION
    assert "have expired and are still in the store; all of them have 488 B, $0.00 a month" in health.reason
    words = {
        Expires.TAGS: "lifecycle rules for the tag",
        Expires.PRUNE: "pruning does not succeed",
        Expires.NOTHING: "prune=on",
    }
    assert words.get(expires, "lifecycle rules for these prefixes") in health.hint
    assert as_json(status)["expires"] == expires


@pytest.mark.anyio
@pytest.mark.parametrize("expires", Expires)
async def test_nobody_is_told_while_all_is_well(expires: Expires) -> None:
    """A few that stay may be held, and what expired yesterday may go tomorrow. Somebody may prune a store without rules."""
    status = status_of(expires)
    held = [START - 9 * DAY + number * timedelta(minutes=10) for number in range(3)]
    listing = await listed(status, [*held, *every(5, until=2 * DAY, count=60), START])
    assert 0 < listing.overdue <= MANY
    assert overall(status).level is Level.GOOD


@pytest.mark.anyio
async def test_a_young_history_without_rules_needs_attention() -> None:
    """Nothing shows yet that somebody deletes."""
    status = status_of(Expires.NOTHING)
    await listed(status, every(5, until=0 * DAY, count=10))
    health = overall(status)
    assert (health.level, "nothing is known to delete" in health.reason) == (Level.ATTENTION, True)
    assert "sidecar prune" in health.hint
    status.expires = Expires.TAGS
    assert overall(status).level is Level.GOOD


def test_nothing_is_said_of_what_is_not_known() -> None:
    assert attention(None, None, {}, START, billable=True) is None
    assert attention(Expires.NOTHING, None, {}, START, billable=True) is None
    told = attention(Expires.NOTHING, Listing(START, 1, (), None), {"recent": 2 * 10**9}, START, billable=False)
    assert told
    assert "1.9 GiB" in told[0]
    assert "$" not in told[0]


@pytest.mark.anyio
async def test_the_page_says_what_a_full_history_costs() -> None:
    status = status_of(Expires.TAGS)
    await listed(status, every(5, until=0 * DAY, count=10))
    page = PageTemplate().render(status)
    assert "A full history has 461 of them, 429.3 GiB: about $10.60 a month of storage" in page
    full = as_json(status)["cost"]["full"]  # type: ignore[index]
    assert (full["objects"], full["stored"]) == (461, 461 * 10**9)
    status.billable = False
    assert bill_of(status) is None


@pytest.mark.parametrize(
    ("interval", "count"), [(300, 461), (3600, 23 * 7 + 35 + 1), (7200, 11 * 7 + 35 + 1), (86_400, 36), (7 * 86_400, 6)]
)
def test_the_history_is_as_long_as_the_interval_lets_it(interval: float, count: int) -> None:
    assert kept_at_most(KEEP, interval) == count


def test_the_bill_has_everything() -> None:
    """A restore point of 1 GB each hour, of which 80 MB are uploaded; and a stream."""
    bill = full_bill(Load(10**9, 80 * 10**6, 3600, 1000, 10**7), KEEP)
    assert bill.objects == 197
    assert bill.stored == 197 * 10**9 + 35 * 10**7
    assert bill.storage == pytest.approx(0.023 * (197 + 0.35))
    assert bill.egress == pytest.approx(0.02 * (720 * 0.08 + 30 * 0.01))
    assert bill.requests == pytest.approx(720 * (4 + 10 + 3) * 5e-6 + 30_000 * 5e-6 + 720 * 0.4e-6)
    assert bill.total == pytest.approx(bill.storage + bill.egress + bill.requests)


class Failing(Pruning):
    """Fails the first time."""

    def __init__(self) -> None:
        self.runs = 0

    async def run(self) -> None:
        """See `Pruning`."""
        self.runs += 1
        if self.runs == 1:
            raise AccessDenied("may not delete")


@pytest.mark.anyio
async def test_pruning_that_failed_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """And ends nothing else: neither the other databases' nor the app."""
    slept: list[float] = []
    one, other = Failing(), Failing()

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(anyio, "sleep", sleep)
    with pytest.raises(KeyboardInterrupt):
        await keep_pruning([one, other])
    assert (slept, one.runs, other.runs) == ([TRY_EVERY] * 3, 2, 2)


def test_the_bill_of_placed_restore_points_has_their_copies() -> None:
    """Of a day's hours and the two slots; by the requests that a publish makes besides, and a copy for each hour and day."""
    load = Load(10**9, 80 * 10**6, 300)
    plain, placed = full_bill(load, KEEP), full_bill(load, KEEP, placed=True)
    assert (placed.objects, placed.egress) == (plain.objects, plain.egress)
    assert placed.stored - plain.stored == (24 + 2) * 10**9
    assert placed.requests - plain.requests == pytest.approx(8640 * (3 * 5e-6 + 13 * 0.4e-6) + 30 * 24 * 5e-6)


def test_the_bill_goes_by_what_expires() -> None:
    status = status_of(Expires.PREFIXES)
    database = status.databases["app.db"]
    database.restore_point_size, status.interval = 10**9, timedelta(minutes=5)
    placed = bill_of(status)
    status.expires = Expires.TAGS
    plain = bill_of(status)
    assert placed
    assert plain
    assert placed.stored - plain.stored == 26 * 10**9


@pytest.mark.parametrize("expires", [*Expires, None])
@pytest.mark.parametrize("count", [MANY, MANY + 1])
def test_restore_points_that_cannot_be_given_their_tier_are_told(expires: Expires | None, count: int) -> None:
    """Where rules select by tier. A few are those of the last hour, which are tried again with each cycle."""
    status = status_of(expires)
    status.databases[NAME].untagged = count
    verdict = overall(status)
    told = expires in {Expires.TAGS, Expires.PREFIXES} and count > MANY
    assert (f"{count} superseded restore points could not" in verdict.reason) == told
    if told:
        assert (verdict.level, "tagging and pruning postponed" in verdict.hint) == (Level.ATTENTION, True)
