"""What a month costs: arithmetic that can be checked by hand, and nothing but measured counts in it."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.model import Database
from sidecar.status.cost import (
    MONTH,
    PRICES,
    READS,
    WRITES,
    Load,
    Measured,
    Streamed,
    busiest,
    estimate,
    estimate_stream,
    forecast,
    saved_by_need,
)
from sidecar.status.model import Status
from sidecar.status.serialize import as_json
from sidecar.storage.open import parse_location
from tests.fakes import FakeClock


def status_of(store: str, clock: FakeClock) -> Status:
    billable = parse_location(store).billable
    return Status((Database("app.db", Path("/app.db")),), store, "0", clock.now, billable=billable)


def test_a_month_of_small_publishes_is_that_of_its_requests() -> None:
    """A publish every 5 minutes: 8640 PUTs and as many LISTs are 8.6 cents, as many GETs a third of one."""
    cost = estimate(Measured(MONTH, {"put": 8640, "list": 8640, "get": 8640}))
    assert cost.requests == pytest.approx(0.0864 + 0.003456)
    assert (cost.storage, cost.egress) == (0, 0)


def test_full_copies_every_five_minutes_cost_what_the_platform_says() -> None:
    """100 MB every 5 minutes: $17 a month of egress alone."""
    assert estimate(Measured(MONTH, {}, sent=8640 * 10**8)).egress == pytest.approx(17.28)


def test_a_drill_a_day_of_a_gigabyte_and_ten_stored() -> None:
    cost = estimate(Measured(MONTH, {}, received=30 * 10**9, stored=10 * 10**9))
    assert (cost.egress, cost.storage) == pytest.approx((2.7, 0.23))
    assert cost.total == pytest.approx(2.93)


@pytest.mark.parametrize(
    ("seconds", "factor"), [(1.0, 720), (3600.0, 720), (7200.0, 360), (MONTH, 1), (2 * MONTH, 0.5)]
)
def test_counts_are_scaled_to_a_month_and_a_boot_is_not_a_trend(seconds: float, factor: float) -> None:
    """What happened in the first minutes counts as an hour's."""
    assert estimate(Measured(seconds, {"put": 1000})).requests == pytest.approx(0.005 * factor)
    assert estimate(Measured(seconds, {}, stored=10**9)).storage == pytest.approx(PRICES.stored)


def test_every_operation_has_a_price_or_costs_nothing() -> None:
    """`now` is answered from the last reply."""
    assert WRITES.isdisjoint(READS)
    free = estimate(Measured(MONTH, {"now": 10**9, "nonsense": 10**9}))
    assert free.total == 0


def test_status_estimates_from_its_own_counts_all_outcomes_alike() -> None:
    """A refused request is paid for, too."""
    clock = FakeClock()
    status = status_of("s3://bucket", clock)
    status.enter("running", ready=True)
    for outcome in ("ok", "failed"):
        status.count_request("put", outcome, 0.1)
    status.sent, status.stored = 10**9, {"app.db": {"newest": 10**9, "daily": 10**9}}
    clock.advance(timedelta(days=30).total_seconds())
    cost = status.cost()
    assert cost
    assert (cost.requests, cost.storage, cost.egress) == pytest.approx((0.00001, 0.046, 0.02))
    shown = as_json(status)["cost"]
    assert isinstance(shown, dict)
    assert (shown["total"], shown["since"], shown["sent_bytes"]) == (0.066, status.started.isoformat(), 10**9)


def test_a_restore_at_boot_is_paid_once_and_no_trend() -> None:
    """10 GB fetched before the app runs are $0.90 for this start, whenever it is asked, and nothing of a month."""
    clock = FakeClock()
    status = status_of("s3://bucket", clock)
    status.count_request("get", "ok", 0.1)
    status.received = 10 * 10**9
    clock.advance(60)
    booting = status.cost()
    assert booting
    assert (booting.total, booting.boot) == pytest.approx((0, 0.9000004))
    status.enter("running", ready=True)
    for _ in range(3):
        clock.advance(1800)
        status.count_request("put", "ok", 0.1)
    status.enter("fenced", ready=True)
    cost = status.cost()
    assert cost
    assert cost.boot == pytest.approx(0.9000004)
    assert (cost.egress, cost.requests) == pytest.approx((0, 3 * 0.000005 * 480))
    shown = as_json(status)["cost"]
    assert isinstance(shown, dict)
    assert (shown["boot"], shown["since"]) == (0.9, "2026-11-20T14:56:03.123456+00:00")


def test_a_drill_in_the_first_minutes_counts_once_per_drill_interval() -> None:
    day = 24 * 3600.0
    assert estimate(Measured(60.0, {}, received=10**9, rarely=day)).egress == pytest.approx(30 * 0.09)
    assert estimate(Measured(2 * day, {}, received=10**9, rarely=day)).egress == pytest.approx(15 * 0.09)


def test_a_directory_costs_nothing_to_anybody() -> None:
    status = status_of("file:///store", FakeClock())
    assert status.cost() is None
    assert as_json(status)["cost"] is None


def test_a_month_of_writing_every_second_is_thirteen_dollars_of_puts() -> None:
    """2,592,000 PUTs at $5 for a million; a fifth of it with an interval of 5 s."""
    cost = estimate_stream(Streamed(MONTH, 1.0, 2_592_000, 10**9, 35))
    assert cost.requests == pytest.approx(12.96) == busiest(1.0)
    assert cost.slower == pytest.approx(2.592) == busiest(5.0)
    assert (cost.egress, cost.storage) == pytest.approx((0.02, 0.023 * 35 / 30))
    assert cost.total == pytest.approx(12.96 + 0.02 + 0.023 * 35 / 30)


def test_a_longer_interval_saves_nothing_where_commits_are_rare() -> None:
    """One a minute: the next segment is 64 s after the one before instead of 60 s."""
    cost = estimate_stream(Streamed(MONTH, 1.0, 43_200, 0, 35))
    assert cost.slower == pytest.approx(cost.requests * 60 / 64)
    idle = estimate_stream(Streamed(MONTH, 1.0, 0, 0, 35))
    assert (idle.requests, idle.slower) == (0, 0)


def test_the_status_has_the_streams_of_all_databases_apart() -> None:
    clock = FakeClock()
    status = status_of("s3://bucket", clock)
    status.enter("running", ready=True)
    assert status.stream_cost() is None
    status.stream_interval = timedelta(seconds=1)
    clock.advance(timedelta(days=30).total_seconds())
    status.databases["app.db"].stream.segments, status.databases["app.db"].stream.uploaded = 1000, 10**9
    shown = as_json(status)["cost"]
    assert isinstance(shown, dict)
    assert (shown["stream"]["segments"], shown["stream"]["requests"], shown["stream"]["egress"]) == (1000, 0.005, 0.02)
    assert shown["storage"] == shown["stream"]["storage"] == round(0.023 * 35 / 30, 4), "segments are stored, too"
    free = status_of("file:///store", clock)
    free.stream_interval = timedelta(seconds=1)
    assert free.stream_cost() is None


LOAD = Load(size=448 << 20, interval=300.0, part=8 << 20, stream_interval=1.0, lease_ttl=120.0)


def test_a_store_that_copies_nothing_costs_the_traffic_of_whole_restore_points() -> None:
    """8,640 restore points of 448 MiB leave the machine in a month."""
    whole = forecast(replace(LOAD, whole=True))
    assert whole.egress == pytest.approx(8640 * (448 << 20) / 1e9 * 0.02)
    assert forecast(LOAD).egress == pytest.approx(whole.egress / 10)


def test_equal_parts_cost_requests_for_what_is_copied() -> None:
    """Each copied part is a request; otherwise a copy of any length is one."""
    equal, any_size = forecast(replace(LOAD, equal_parts=True)), forecast(LOAD)
    assert equal.requests > any_size.requests
    assert any_size.egress < equal.egress < forecast(replace(LOAD, whole=True)).egress


def test_an_idle_app_costs_the_renewals_of_its_lease() -> None:
    assert forecast(LOAD, idle=True).requests == pytest.approx(64_800 * 0.005 / 1000)
    assert forecast(replace(LOAD, lease_ttl=None), idle=True).total == 0.0


def test_a_look_before_each_write_costs_a_read() -> None:
    dearer = forecast(replace(LOAD, looked_up=True)).requests - forecast(LOAD).requests
    assert dearer == pytest.approx(30 * 24 * 3600 * 0.0004 / 1000)


@pytest.mark.parametrize(
    ("size", "interval", "days", "saved"),
    [
        (10**9, 300.0, 1, 264 * 0.023),
        (10**9, 300.0, 2, 2 * 264 * 0.023),
        (16 << 20, 300.0, 1, 0),
        (10**9, 3600.0, 1, 0),
    ],
)
def test_restore_points_by_need_leave_out_all_but_one_an_hour(
    size: int, interval: float, days: int, saved: float
) -> None:
    """A gigabyte every 5 minutes: 288 restore points of the last day become 24."""
    assert saved_by_need(size, interval, days) == pytest.approx(saved)


def test_placing_restore_points_takes_requests() -> None:
    """A copy, two lists and thirteen looks for each publish."""
    dearer = forecast(replace(LOAD, placed=True)).requests - forecast(LOAD).requests
    assert dearer == pytest.approx(8640 * (3 * 0.005 + 13 * 0.0004) / 1000)
    assert forecast(replace(LOAD, placed=True), idle=True) == forecast(LOAD, idle=True)
