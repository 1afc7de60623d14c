"""Metrics: their names are stable for dashboards, and the text is valid for Prometheus."""

from datetime import timedelta
from pathlib import Path

import pytest
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families

from sidecar.database.wal import CutCause
from sidecar.errors import Reason
from sidecar.model import Database
from sidecar.monitoring.metrics import Metrics, acceptable
from sidecar.status import Listing
from sidecar.status.model import PHASES, Status
from tests.fakes import START, FakeClock

DOCUMENTED = {
    "sidecar_build_info": "gauge",
    "sidecar_start_timestamp_seconds": "gauge",
    "sidecar_ready": "gauge",
    "sidecar_log_lines_dropped_total": "counter",
    "sidecar_backup_interval_seconds": "gauge",
    "sidecar_drill_interval_seconds": "gauge",
    "sidecar_retention_seconds": "gauge",
    "sidecar_final_backup_timeout_seconds": "gauge",
    "sidecar_restore_duration_seconds": "gauge",
    "sidecar_restore_bytes": "gauge",
    "sidecar_restores_total": "counter",
    "sidecar_backups_total": "counter",
    "sidecar_backup_failures_total": "counter",
    "sidecar_backup_failing": "gauge",
    "sidecar_predecessor_unfinished": "gauge",
    "sidecar_backup_duration_seconds": "histogram",
    "sidecar_last_backup_success_timestamp_seconds": "gauge",
    "sidecar_unprotected_seconds": "gauge",
    "sidecar_database_size_bytes": "gauge",
    "sidecar_wal_size_bytes": "gauge",
    "sidecar_restore_point_size_bytes": "gauge",
    "sidecar_overdue_restore_points": "gauge",
    "sidecar_uploaded_bytes_total": "counter",
    "sidecar_reused_bytes_total": "counter",
    "sidecar_chunks_total": "counter",
    "sidecar_written_past_chunks_total": "counter",
    "sidecar_store_requests_total": "counter",
    "sidecar_store_request_duration_seconds": "histogram",
    "sidecar_final_backup_estimate_seconds": "gauge",
    "sidecar_suspicious_snapshots_total": "counter",
    "sidecar_findings": "gauge",
    "sidecar_open_incidents": "gauge",
    "sidecar_lease_held": "gauge",
    "sidecar_lease_conditional_writes": "gauge",
    "sidecar_lease_renewals_total": "counter",
    "sidecar_credentials_expiry_timestamp_seconds": "gauge",
    "sidecar_drills_total": "counter",
    "sidecar_last_drill_timestamp_seconds": "gauge",
    "sidecar_estimated_monthly_cost_dollars": "gauge",
    "sidecar_stream_active": "gauge",
    "sidecar_stream_lag_seconds": "gauge",
    "sidecar_stream_commits_total": "counter",
    "sidecar_stream_segments_total": "counter",
    "sidecar_stream_uploaded_bytes_total": "counter",
    "sidecar_stream_whole_pages_bytes_total": "counter",
    "sidecar_stream_cuts_total": "counter",
    "sidecar_stream_oldest_segment_timestamp_seconds": "gauge",
    "sidecar_wait_waiters": "gauge",
    "sidecar_wait_seconds": "histogram",
    "sidecar_wait_failures_total": "counter",
    "sidecar_wal_frames": "gauge",
}
NOT_YET = {
    "sidecar_lease_held",
    "sidecar_lease_conditional_writes",
    "sidecar_lease_renewals_total",
}
NAME = 'my "odd\\name".db'


def a_busy_status(name: str = "app.db") -> Status:
    """The status of a daemon in which everything has happened once."""
    clock = FakeClock()
    status = Status(
        (Database(name, Path("/data", name)), Database("new.db", Path("/new.db"))), "s3://b", "1.2", clock.now
    )
    status.sqlite_version = "3.53.4"
    status.interval, status.final_backup_timeout = timedelta(minutes=5), timedelta(seconds=90)
    status.drill_interval = timedelta(0)
    status.enter("running", ready=True)
    status.credentials_expiry = START
    status.restored(name, "restored", 1.5, 4096, "key")
    status.published(name, "key", 1000, 700, 300)
    status.succeeded(name, "published")
    status.failed(name, "no", "hint", Reason.NO_ROOM)
    status.count_request("put", "ok", 0.3)
    status.count_request("put", "failed", 7.0)
    status.count_request("list", "ok", 0.001)
    database = status.databases[name]
    database.size, database.wal_size, database.final.whole = 4096, 32, 2.5
    database.suspicious = 1
    status.drilled(name, "good", "key", 2.0)
    status.drilled(name, "damaged", "key2", 2.0)
    database.unprotected_since = START
    stream = database.stream
    stream.setting, stream.active, stream.pending_since = "on", True, START
    stream.commits, stream.segments, stream.uploaded, stream.whole_pages, stream.wal_frames = 7, 3, 500, 1500, 40
    stream.cuts["reset"] += 2
    stream.oldest = START
    stream.waits.waiting, stream.waits.failed = 4, 1
    stream.waits.seconds.observe(0.6)
    for phase in PHASES:
        database.phases[phase].observe(0.02)
        database.phases[phase].observe(400.0)
    clock.advance(10)
    return status


def scraped(status: Status) -> dict[str, Metric]:
    text = Metrics(status).render().decode()
    return {family.name: family for family in text_string_to_metric_families(text)}


def exposed_name(family: Metric) -> str:
    return f"{family.name}_total" if family.type == "counter" else family.name


@pytest.fixture(name="families", scope="module")
def _families() -> dict[str, Metric]:
    return scraped(a_busy_status())


def samples(families: dict[str, Metric], name: str, **labels: str) -> list[float]:
    found = (sample for family in families.values() for sample in family.samples if sample.name == name)
    return [sample.value for sample in found if labels.items() <= sample.labels.items()]


def test_the_metrics_are_exactly_those_of_the_documentation(families: dict[str, Metric]) -> None:
    shown = {exposed_name(family): family.type for family in families.values()}
    assert shown == {name: kind for name, kind in DOCUMENTED.items() if name not in NOT_YET}


def test_every_sample_of_a_counter_ends_in_total_and_every_metric_has_help(families: dict[str, Metric]) -> None:
    for family in families.values():
        assert family.documentation
        assert family.samples
        if family.type == "counter":
            assert {sample.name for sample in family.samples} == {f"{family.name}_total"}


def test_histograms_are_cumulative_and_agree_with_their_counts(families: dict[str, Metric]) -> None:
    histograms = [family for family in families.values() if family.type == "histogram"]
    assert len(histograms) == 3
    for family in histograms:
        series: dict[tuple[str, ...], list[tuple[float, float]]] = {}
        for sample in family.samples:
            if sample.name.endswith("_bucket"):
                labels = tuple(value for name, value in sample.labels.items() if name != "le")
                series.setdefault(labels, []).append((float(sample.labels["le"]), sample.value))
        assert series
        counts = [sample.value for sample in family.samples if sample.name.endswith("_count")]
        assert [buckets[-1][1] for buckets in series.values()] == counts
        for buckets in series.values():
            assert buckets == sorted(buckets)
            assert [value for _, value in buckets] == sorted(value for _, value in buckets)
            assert buckets[-1][0] == float("inf")


def test_values_are_those_of_the_status(families: dict[str, Metric]) -> None:
    assert samples(families, "sidecar_build_info", version="1.2", sqlite_version="3.53.4") == [1]
    assert samples(families, "sidecar_ready") == [1]
    assert samples(families, "sidecar_unprotected_seconds", database="app.db") == [10]
    assert samples(families, "sidecar_backups_total", database="app.db", outcome="published") == [1]
    assert samples(families, "sidecar_backups_total", database="app.db", outcome="unchanged") == [0]
    assert samples(families, "sidecar_restores_total", outcome="restored") == [1]
    assert samples(families, "sidecar_uploaded_bytes_total", database="app.db") == [700]
    assert samples(families, "sidecar_store_requests_total", operation="put", outcome="failed") == [1]
    assert samples(families, "sidecar_store_request_duration_seconds_sum", operation="put") == [7.3]
    assert samples(families, "sidecar_backup_duration_seconds_count", phase="upload", database="app.db") == [2]
    assert samples(families, "sidecar_backup_interval_seconds") == [300]
    assert samples(families, "sidecar_final_backup_timeout_seconds") == [90]
    assert samples(families, "sidecar_drill_interval_seconds") == [0]
    assert samples(families, "sidecar_retention_seconds", tier="daily") == [35 * 86_400]
    assert samples(families, "sidecar_start_timestamp_seconds") == [START.timestamp()]
    assert samples(families, "sidecar_backup_failures_total", database="app.db", reason="no_room") == [1]
    (success,) = samples(families, "sidecar_last_backup_success_timestamp_seconds")
    assert success == START.timestamp()


def test_what_nothing_expires_is_counted_and_whether_the_lease_is_worth_something() -> None:
    """Of a database whose restore points were never listed only those without a tier are known."""
    status = a_busy_status()
    status.listings["app.db"] = Listing(START, 30, (), None, overdue=21)
    status.databases["new.db"].untagged = 22
    status.lease.enabled = True
    for unsuitable, obeyed in (("", 1), ("the store does not obey conditional writes", 0)):
        status.lease.unsuitable = unsuitable
        assert samples(scraped(status), "sidecar_lease_conditional_writes") == [obeyed]
    families = scraped(status)
    assert samples(families, "sidecar_overdue_restore_points", database="app.db", what="deletion") == [21]
    assert samples(families, "sidecar_overdue_restore_points", database="app.db", what="tier") == [0]
    assert samples(families, "sidecar_overdue_restore_points", database="new.db") == [22]


def test_streams_are_shown_where_they_are_asked_for() -> None:
    """Labels as the others have them; every cause from the start; nothing of a database that is not to be streamed."""
    status = a_busy_status()
    families = scraped(status)
    assert samples(families, "sidecar_stream_active", database="app.db") == [1]
    assert samples(families, "sidecar_stream_lag_seconds", database="app.db") == [10]
    assert samples(families, "sidecar_stream_commits_total", database="app.db") == [7]
    assert samples(families, "sidecar_stream_segments_total", database="app.db") == [3]
    assert samples(families, "sidecar_stream_uploaded_bytes_total", database="app.db") == [500]
    assert samples(families, "sidecar_stream_whole_pages_bytes_total", database="app.db") == [1500]
    assert samples(families, "sidecar_wal_frames", database="app.db") == [40]
    assert samples(families, "sidecar_stream_cuts_total", database="app.db", cause="reset") == [2]
    assert len(samples(families, "sidecar_stream_cuts_total", database="app.db")) == len(CutCause)
    assert samples(families, "sidecar_stream_cuts_total", database="new.db") == []
    assert samples(families, "sidecar_wait_waiters", database="app.db") == [4]
    assert samples(families, "sidecar_wait_failures_total", database="app.db") == [1]
    assert samples(families, "sidecar_wait_seconds_bucket", database="app.db", le="0.5") == [0]
    assert samples(families, "sidecar_wait_seconds_bucket", database="app.db", le="1.0") == [1]
    (oldest,) = samples(families, "sidecar_stream_oldest_segment_timestamp_seconds")
    assert oldest == START.timestamp()
    status.databases["app.db"].stream.active = False
    assert samples(scraped(status), "sidecar_stream_active") == [0]
    assert samples(scraped(status), "sidecar_stream_lag_seconds") == []
    status.databases["app.db"].stream.setting = "auto"
    assert samples(scraped(status), "sidecar_stream_active") == []
    status.databases["app.db"].stream.setting = "off"
    assert not any("stream" in name for name in scraped(status))


def test_outcomes_that_have_not_happened_are_zero_not_absent(families: dict[str, Metric]) -> None:
    """An alert on an increase needs the series to exist before."""
    assert samples(families, "sidecar_backups_total", database="new.db") == [0, 0, 0, 0]
    assert samples(families, "sidecar_restores_total", outcome="damaged") == [0]
    assert samples(families, "sidecar_backup_failures_total", database="new.db") == [0] * len(Reason)
    assert samples(families, "sidecar_drills_total", database="new.db") == [0, 0, 0]


def test_a_database_that_was_never_backed_up_has_no_last_success(families: dict[str, Metric]) -> None:
    """It is absent instead of 1970: an age computed from that would be wrong, and absence can be alerted on."""
    assert samples(families, "sidecar_last_backup_success_timestamp_seconds", database="new.db") == []


def test_only_a_good_drill_moves_the_time_of_the_last_proof() -> None:
    status = a_busy_status()
    before = samples(scraped(status), "sidecar_last_drill_timestamp_seconds")
    for outcome in ("damaged", "failed"):
        status.drilled("app.db", outcome, "key", 1.0)
    assert samples(scraped(status), "sidecar_last_drill_timestamp_seconds") == before == [START.timestamp()]
    status.drilled("app.db", "good", "key", 1.0)
    assert samples(scraped(status), "sidecar_last_drill_timestamp_seconds") == [START.timestamp() + 10]
    assert samples(scraped(status), "sidecar_drills_total", database="app.db", outcome="damaged") == [2]


def test_odd_names_survive_the_text_format() -> None:
    assert samples(scraped(a_busy_status(NAME)), "sidecar_database_size_bytes", database=NAME) == [4096]


def test_the_first_scrape_after_start_parses_too() -> None:
    status = Status((Database("app.db", Path("/data/app.db")),), "s3://b", "1.2", FakeClock().now)
    assert samples(scraped(status), "sidecar_ready") == [0]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# HELP x y\n# TYPE x counter\nx_total 1\n",
        'http_requests_total{path="/"} 3\n',
        "mysidecar_x 1\n",
        "# EOF\n",
    ],
)
def test_an_apps_metrics_are_appended(text: str) -> None:
    assert acceptable(text)


@pytest.mark.parametrize(
    "text", ["<html>\n", "x{ 1\n", "x one\n", "sidecar_ready 1\n", "x 1\nsidecar_backups_total 5\n"]
)
def test_an_apps_metrics_that_would_spoil_ours_are_left_out(text: str) -> None:
    assert not acceptable(text)
