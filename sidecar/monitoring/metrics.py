"""The read-model as Prometheus metrics, and the check of the app's own metrics that are appended to them.

One idea: every metric but those of streams, with its help text, in the order in which `/metrics` shows them.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families

from sidecar.errors import Reason
from sidecar.host import dropped_lines
from sidecar.monitoring.histograms import add_histogram
from sidecar.monitoring.stream_metrics import stream_metrics
from sidecar.status import CHUNKS, COSTS, DRILLS, PHASES, STORED, DatabaseStatus, Status, open_incidents

OUTCOMES = ("published", "unchanged", "streamed", "failed")
RENEWALS = ("ok", "failed", "lost")
RESTORE_OUTCOMES = ("restored", "started_empty", "kept_local", "fell_back", "damaged")


class Metrics:
    """A Prometheus collector over `Status`."""

    def __init__(self, status: Status) -> None:
        self._status = status
        self._registry = CollectorRegistry()
        self._registry.register(self)

    def render(self) -> bytes:
        """The text exposition format, version 0.0.4."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Called by the registry at each scrape."""
        yield from self._daemon()
        yield from self._restores()
        yield from self._incidents()
        yield from self._backups()
        yield from self._gauges()
        yield from stream_metrics(self._databases(), self._status.now())
        yield from self._drills()
        yield from self._bytes()
        yield from self._chunks()
        yield from self._requests()
        yield from self._cost()

    def _daemon(self) -> Iterable[Metric]:
        info = GaugeMetricFamily(
            "sidecar_build_info", "Versions of sidecar and SQLite; always 1", labels=["version", "sqlite_version"]
        )
        info.add_metric([self._status.version, self._status.sqlite_version], 1)
        yield info
        yield GaugeMetricFamily(
            "sidecar_start_timestamp_seconds", "Start time of this process", value=self._status.started.timestamp()
        )
        yield GaugeMetricFamily("sidecar_ready", "1 while the app runs", value=float(self._status.ready))
        yield CounterMetricFamily(
            "sidecar_log_lines_dropped", "Log lines dropped because nobody read standard error", value=dropped_lines()
        )
        yield from _setting("sidecar_backup_interval_seconds", "The setting `interval`", self._status.interval)
        kept = GaugeMetricFamily("sidecar_retention_seconds", "The setting `retention_days`", labels=["tier"])
        for tier, days in asdict(self._status.keep).items():
            kept.add_metric([tier], timedelta(days=days).total_seconds())
        yield kept
        if self._status.lease.enabled:
            yield from self._lease()
        yield from _setting(
            "sidecar_final_backup_timeout_seconds",
            "The setting `final_backup_timeout`",
            self._status.final_backup_timeout,
        )
        if (estimate := self._status.final_estimate()) is not None:
            yield GaugeMetricFamily(
                "sidecar_final_backup_estimate_seconds", "Estimated duration of a final backup", value=estimate
            )

        if expiry := self._status.credentials_expiry:
            yield GaugeMetricFamily(
                "sidecar_credentials_expiry_timestamp_seconds",
                "When the role's current credentials expire; they are renewed before that",
                value=expiry.timestamp(),
            )

    def _lease(self) -> Iterable[Metric]:
        yield GaugeMetricFamily(
            "sidecar_lease_held", "1 while this machine may publish", value=float(self._status.lease.held)
        )
        renewals = CounterMetricFamily("sidecar_lease_renewals", "Renewals of the lease", labels=["outcome"])
        for outcome in RENEWALS:
            renewals.add_metric([outcome], self._status.lease.renewals[outcome])
        yield renewals
        yield GaugeMetricFamily(
            "sidecar_lease_conditional_writes",
            "1 while the store of the lease obeys conditional writes, as of the last trial, which is hourly",
            value=float(not self._status.lease.unsuitable),
        )

    def _incidents(self) -> Iterable[Metric]:
        found = GaugeMetricFamily(
            "sidecar_open_incidents",
            "Incidents of this kind that nobody has acknowledged",
            labels=["database", "kind"],
        )
        for database in self._databases():
            kinds = Counter(each.kind for each in open_incidents(self._status, database.name))
            for kind in sorted(STORED):
                found.add_metric([database.name, kind], kinds[kind])
        yield found

    def _restores(self) -> Iterable[Metric]:
        outcomes = CounterMetricFamily("sidecar_restores", "Boots by outcome", labels=["outcome"])
        for outcome in RESTORE_OUTCOMES:
            outcomes.add_metric([outcome], self._status.restores[outcome])
        yield outcomes
        yield GaugeMetricFamily(
            "sidecar_predecessor_unfinished",
            "1 when the previous machine did not shut down cleanly and its last changes are missing here",
            value=float(self._status.unfinished is not None),
        )
        yield self._gauge(
            "sidecar_restore_duration_seconds", "Duration of a database's boot, with its restore", "restore_seconds"
        )
        yield self._gauge("sidecar_restore_bytes", "Size of the restored database", "restore_bytes")

    def _backups(self) -> Iterable[Metric]:
        cycles = CounterMetricFamily("sidecar_backups", "Backup cycles by outcome", labels=["database", "outcome"])
        durations = HistogramMetricFamily(
            "sidecar_backup_duration_seconds",
            "Duration of published backups by phase",
            labels=["database", "phase"],
        )
        for database in self._databases():
            for outcome in OUTCOMES:
                cycles.add_metric([database.name, outcome], database.backups[outcome])
            for phase in PHASES:
                add_histogram(durations, [database.name, phase], database.phases[phase])
        yield cycles
        yield from self._failures()
        yield durations
        success = GaugeMetricFamily(
            "sidecar_last_backup_success_timestamp_seconds",
            "When a backup cycle last succeeded",
            labels=["database"],
        )
        for database in self._databases():
            if database.last_success:
                success.add_metric([database.name], database.last_success.timestamp())
        yield success

    def _failures(self) -> Iterable[Metric]:
        failures = CounterMetricFamily(
            "sidecar_backup_failures", "Failed backup cycles by cause", labels=["database", "reason"]
        )
        for database in self._databases():
            for reason in Reason:
                failures.add_metric([database.name, reason], database.failures[reason])
        yield failures
        # With a long interval an increase of the counter alone would drop out of an alert's range between two cycles.
        failing = GaugeMetricFamily(
            "sidecar_backup_failing", "1 if the last backup cycle failed for this reason", labels=["database", "reason"]
        )
        for database in self._databases():
            for reason in Reason:
                failing.add_metric([database.name, reason], float(database.failing_reason is reason))
        yield failing

    def _gauges(self) -> Iterable[Metric]:
        unprotected = GaugeMetricFamily(
            "sidecar_unprotected_seconds",
            "Age of the oldest change that neither a restore point nor a stream holds; 0 when everything is protected",
            labels=["database"],
        )
        for database in self._databases():
            unprotected.add_metric([database.name], self._status.unprotected(database.name))
        yield unprotected
        yield self._gauge("sidecar_database_size_bytes", "Size of the database file", "size")
        yield self._gauge("sidecar_wal_size_bytes", "Size of the write-ahead log", "wal_size")
        yield self._gauge(
            "sidecar_restore_point_size_bytes", "Size of the newest restore point in the store", "restore_point_size"
        )
        yield self._overdue()

    def _overdue(self) -> GaugeMetricFamily:
        overdue = GaugeMetricFamily(
            "sidecar_overdue_restore_points",
            "Superseded restore points that should have been deleted, or given their tier, and were not",
            labels=["database", "what"],
        )
        for database in self._databases():
            overdue.add_metric([database.name, "tier"], database.untagged)
            if listing := self._status.listings.get(database.name):
                overdue.add_metric([database.name, "deletion"], listing.overdue)
        return overdue

    def _drills(self) -> Iterable[Metric]:
        drills = CounterMetricFamily(
            "sidecar_drills",
            "Drills (test restores of the newest restore point) by outcome",
            labels=["database", "outcome"],
        )
        last = GaugeMetricFamily(
            "sidecar_last_drill_timestamp_seconds",
            "When a drill last found the restore point good",
            labels=["database"],
        )
        for database in self._databases():
            for outcome in DRILLS:
                drills.add_metric([database.name, outcome], database.drills[outcome])
            if database.last_drill:
                last.add_metric([database.name], database.last_drill.timestamp())
        yield from (drills, last)
        yield from _setting(
            "sidecar_drill_interval_seconds",
            "The setting `drill_interval`; 0 means no drills",
            self._status.drill_interval,
        )

    def _bytes(self) -> Iterable[Metric]:
        uploaded = CounterMetricFamily(
            "sidecar_uploaded_bytes", "Bytes uploaded for restore points", labels=["database"]
        )
        reused = CounterMetricFamily(
            "sidecar_reused_bytes",
            "Bytes of restore points that the store copied from earlier ones",
            labels=["database"],
        )
        suspicious = CounterMetricFamily(
            "sidecar_suspicious_snapshots",
            "Snapshots that were empty or much smaller than the one before",
            labels=["database"],
        )
        findings = GaugeMetricFamily(
            "sidecar_findings",
            "What SQLite's last check of the database complains about; its restore points are whole",
            labels=["database"],
        )
        for database in self._databases():
            findings.add_metric([database.name], len(database.findings))
            uploaded.add_metric([database.name], database.uploaded)
            reused.add_metric([database.name], database.reused)
            suspicious.add_metric([database.name], database.suspicious)
        yield from (uploaded, reused, suspicious, findings)

    def _chunks(self) -> Iterable[Metric]:
        chunks = CounterMetricFamily(
            "sidecar_chunks",
            "MiB of published databases that were read, or taken over unread from the restore point before; and that were compared with the live database later",
            labels=["database", "how"],
        )
        past = CounterMetricFamily(
            "sidecar_written_past_chunks",
            "MiB of databases that changed although no commit wrote there",
            labels=["database"],
        )
        for database in self._databases():
            for how in CHUNKS:
                chunks.add_metric([database.name, how], database.chunks[how])
            past.add_metric([database.name], database.written_past)
        yield from (chunks, past)

    def _requests(self) -> Iterable[Metric]:
        requests = CounterMetricFamily(
            "sidecar_store_requests", "Requests to the store; every attempt counts", labels=["operation", "outcome"]
        )
        for (operation, outcome), count in sorted(self._status.requests.items()):
            requests.add_metric([operation, outcome], count)
        yield requests
        seconds = HistogramMetricFamily(
            "sidecar_store_request_duration_seconds", "Duration of requests to the store", labels=["operation"]
        )
        for operation, histogram in sorted(self._status.request_seconds.items()):
            add_histogram(seconds, [operation], histogram)
        yield seconds

    def _cost(self) -> Iterable[Metric]:
        if cost := self._status.cost():
            family = GaugeMetricFamily(
                "sidecar_estimated_monthly_cost_dollars",
                "Estimated cost of a month at list prices, from the requests and traffic since the boot",
                labels=["kind"],
            )
            for kind in COSTS:
                family.add_metric([kind], getattr(cost, kind))
            yield family

    def _gauge(self, name: str, text: str, attribute: str) -> GaugeMetricFamily:
        family = GaugeMetricFamily(name, text, labels=["database"])
        for database in self._databases():
            value = getattr(database, attribute)
            if value is not None:
                family.add_metric([database.name], float(value))
        return family

    def _databases(self) -> Iterable[DatabaseStatus]:
        return self._status.databases.values()


def acceptable(text: str) -> bool:
    """Whether the app's metrics may be appended to ours: they are well-formed, and no name starts with `sidecar_`."""
    try:
        families = list(text_string_to_metric_families(text))
    except (ValueError, KeyError, IndexError):
        return False
    return not any(family.name.startswith("sidecar_") for family in families)


def _setting(name: str, text: str, value: timedelta | None) -> Iterable[Metric]:
    if value is not None:
        yield GaugeMetricFamily(name, text, value=value.total_seconds())
