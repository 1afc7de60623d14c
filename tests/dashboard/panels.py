"""The panels of the dashboard: title, meaning and when to worry, unit, and queries with legends."""

from tests.dashboard.grafana import GREEN, OK_AT_ONE, ORANGE, RED, Panel

HERE = '{app=~"$app", region=~"$region", instance=~"$instance"}'
EVERY = '{app=~"$app", region=~"$region", instance=~"$instance", database=~"$database"}'

FLEET = (
    ("Ready", "max", "sidecar_ready", "bool_yes_no"),
    ("Unprotected for", "max", "sidecar_unprotected_seconds", "s"),
    ("Last success", "1000 * min", "sidecar_last_backup_success_timestamp_seconds", "dateTimeFromNow"),
    ("Holds the lease", "max", "sidecar_lease_held", "bool_yes_no"),
    ("Databases", "sum", "sidecar_database_size_bytes", "bytes"),
    ("Failed backups", "sum", "sidecar_backup_failures_total", "none"),
    ("Started", "1000 * max", "sidecar_start_timestamp_seconds", "dateTimeFromNow"),
)


def hourly(metric: str, by: str, where: str = EVERY) -> str:
    """The increase of a counter in the last hour: cycles are too far apart for a rate per second to be useful."""
    return f"sum by ({by}) (increase({metric}{where}[1h]))"


def slowest(histogram: str, by: str, where: str = EVERY) -> str:
    """The 95th percentile of the last hour."""
    return f"histogram_quantile(0.95, sum by (le, {by}) (increase({histogram}_bucket{where}[1h])))"


PROTECTED = (
    f"min by (app, database) (sidecar_unprotected_seconds{EVERY} <= bool ignoring (database) group_left () "
    f"2 * sidecar_backup_interval_seconds{HERE})"
)
BUDGET = (
    f"max by (app, instance) (sidecar_final_backup_estimate_seconds{HERE} / sidecar_final_backup_timeout_seconds{HERE})"
)
_SENT, _COPIED = (
    f"sum(increase({name}{EVERY}[$__range]))" for name in ("sidecar_uploaded_bytes_total", "sidecar_reused_bytes_total")
)
REUSED = f"{_COPIED} / ({_COPIED} + {_SENT})"

PROTECTION = (
    Panel(
        "stat",
        "Protected now",
        "Whether every change older than two intervals is in a restore point. NOT PROTECTED: read the last error in `sidecar status`, and do not stop the machine.",
        "none",
        ((PROTECTED, "{{database}}"),),
        (6, 5),
        {"0": "NOT PROTECTED", "1": "protected"},
        OK_AT_ONE,
    ),
    Panel(
        "stat",
        "Would be lost now",
        "Age of the oldest change that no restore point holds: the measured RPO. Between 0 and the interval is normal.",
        "s",
        ((f"max by (app, database) (sidecar_unprotected_seconds{EVERY})", "{{database}}"),),
        (5, 5),
    ),
    Panel(
        "stat",
        "Last success",
        "When a backup cycle last succeeded, either with a new restore point or because nothing had changed.",
        "dateTimeFromNow",
        ((f"1000 * max by (app, database) (sidecar_last_backup_success_timestamp_seconds{EVERY})", "{{database}}"),),
        (5, 5),
    ),
    Panel(
        "gauge",
        "Shutdown budget used",
        "Estimated duration of a final backup as a share of final_backup_timeout. Above 80 %, raise that and the platform's kill timeout.",
        "percentunit",
        ((BUDGET, "{{instance}}"),),
        (4, 5),
        {},
        ((GREEN, None), (ORANGE, 0.5), (RED, 0.8)),
    ),
    Panel(
        "stat",
        "Damaged or suspicious",
        "Damaged restore points found at boot, and snapshots that looked as if data had been lost, since the daemons started. If this is not 0, run `sidecar list`.",
        "none",
        (
            (f'sum(sidecar_restores_total{HERE[:-1]}, outcome="damaged"}})', "damaged"),
            (f"sum(sidecar_suspicious_snapshots_total{EVERY})", "suspicious"),
        ),
        (4, 5),
        {},
        ((GREEN, None), (RED, 1)),
    ),
    Panel(
        "timeseries",
        "Unprotected seconds",
        "A saw-tooth below the interval is healthy; a line that keeps rising means that backups fail.",
        "s",
        (
            (f"max by (app, instance, database) (sidecar_unprotected_seconds{EVERY})", "{{database}} {{instance}}"),
            (f"max(sidecar_backup_interval_seconds{HERE})", "interval"),
        ),
        (24, 8),
    ),
)

POINTS = (
    Panel(
        "timeseries",
        "Timeline of restore points",
        "Backup cycles by outcome. published: a new restore point. unchanged: none was needed. streamed: the stream has what changed (restore_points=auto). failed: the cycle is retried.",
        "none",
        ((f"sum by (outcome) (increase(sidecar_backups_total{EVERY}[$__rate_interval]))", "{{outcome}}"),),
        bars=True,
    ),
    Panel(
        "timeseries",
        "Failures by reason",
        "Where to look. no_room: the disk is full. machine: the disk or the memory fails. access_denied: the credentials. unavailable: the store or the network. lease: another machine.",
        "none",
        ((f"sum by (reason) (increase(sidecar_backup_failures_total{EVERY}[$__rate_interval]))", "{{reason}}"),),
        bars=True,
    ),
    Panel(
        "timeseries",
        "Sizes",
        "A database that suddenly shrinks may have lost data. A WAL that only grows has a reader that never ends its transaction.",
        "bytes",
        (
            (f"max by (database) (sidecar_database_size_bytes{EVERY})", "{{database}}"),
            (f"max by (database) (sidecar_wal_size_bytes{EVERY})", "{{database}} WAL"),
            (f"max by (database) (sidecar_restore_point_size_bytes{EVERY})", "{{database}} restore point"),
        ),
    ),
    Panel(
        "timeseries",
        "Boots by outcome",
        "How databases got their content, since each daemon started. fell_back and damaged: an older restore point had to be used.",
        "none",
        ((f"sum by (outcome) (sidecar_restores_total{HERE})", "{{outcome}}"),),
    ),
)

STREAMS = (
    Panel(
        "state-timeline",
        "Streaming",
        "Whether commits are streamed between restore points. NO although stream=on: `sidecar status` says why. With stream=auto a database that is not streamed is not shown.",
        "none",
        ((f"max by (app, instance, database) (sidecar_stream_active{EVERY})", "{{database}} {{instance}}"),),
        (8, 8),
        {"0": "NO", "1": "streaming"},
        OK_AT_ONE,
    ),
    Panel(
        "timeseries",
        "Behind",
        "Age of the oldest commit that is in no segment yet. It stays below stream_interval and the time of a PUT, unless the store is slow or unreachable.",
        "s",
        ((f"max by (app, instance, database) (sidecar_stream_lag_seconds{EVERY})", "{{database}} {{instance}}"),),
        (8, 8),
    ),
    Panel(
        "timeseries",
        "Cuts by cause",
        "Ends of streams because it could not be proved that every commit was seen. A restore point and a new stream follow each. Many: see the log.",
        "none",
        (
            (
                f"sum by (database, cause) (increase(sidecar_stream_cuts_total{EVERY}[$__rate_interval]))",
                "{{database}} {{cause}}",
            ),
        ),
        (8, 8),
        bars=True,
    ),
    Panel(
        "timeseries",
        "Commits and segments, per hour",
        "Each segment is a PUT on the bill; many commits share one. An idle app has none of either.",
        "none",
        (
            (hourly("sidecar_stream_commits_total", "database"), "{{database}} commits"),
            (hourly("sidecar_stream_segments_total", "database"), "{{database}} segments"),
        ),
        (8, 8),
    ),
    Panel(
        "timeseries",
        "Bytes of segments, per hour",
        "What the stream sends to the store, compressed, and what that would be with whole pages instead of what changed in them. "
        "Restore points are counted separately.",
        "bytes",
        (
            (hourly("sidecar_stream_uploaded_bytes_total", "database"), "{{database}}"),
            (hourly("sidecar_stream_whole_pages_bytes_total", "database"), "{{database}} with whole pages"),
        ),
        (8, 8),
    ),
    Panel(
        "timeseries",
        "Frames in the WAL",
        "Pages in the write-ahead log. It normally has a few hundred; if it only grows, a reader of the app never ends its transaction.",
        "none",
        ((f"max by (app, instance, database) (sidecar_wal_frames{EVERY})", "{{database}} {{instance}}"),),
        (8, 8),
    ),
    Panel(
        "timeseries",
        "Waits for commits to be stored",
        "95th percentile of how long those waited who were told that their commits are stored. It stays below stream_interval and the time of a PUT.",
        "s",
        ((slowest("sidecar_wait_seconds", "database"), "{{database}}"),),
        (12, 8),
    ),
    Panel(
        "timeseries",
        "Waiters and failed waits",
        "Who waits now, and waits in an hour that were not confirmed: the stream was cut, the store did not answer in time, or the client hung up.",
        "none",
        (
            (f"sum by (database) (sidecar_wait_waiters{EVERY})", "{{database}} waiting"),
            (hourly("sidecar_wait_failures_total", "database"), "{{database}} not confirmed"),
        ),
        (12, 8),
    ),
    Panel(
        "timeseries",
        "MiB read and taken over for restore points, per hour",
        "A restore point of a streamed database reads what commits have written, and takes over the rest from the one before. "
        "What it took over is compared with the database bit by bit.",
        "none",
        ((hourly("sidecar_chunks_total", "database, how"), "{{database}} {{how}}"),),
        (12, 8),
    ),
    Panel(
        "timeseries",
        "MiB written past the log",
        "What changed in the database's file although no commit wrote there: a program copied something over it. It stays at zero.",
        "none",
        ((f"sum by (database) (sidecar_written_past_chunks_total{EVERY})", "{{database}}"),),
        (12, 8),
    ),
)

DURATIONS = (
    Panel(
        "timeseries",
        "Backup phases, 95th percentile of an hour",
        "checkpoint and snapshot use the database, upload uses the network.",
        "s",
        ((slowest("sidecar_backup_duration_seconds", "phase"), "{{phase}}"),),
        (8, 8),
    ),
    Panel(
        "timeseries",
        "Store requests, 95th percentile of an hour",
        "By operation. If they are slow on one machine only, check its network.",
        "s",
        ((slowest("sidecar_store_request_duration_seconds", "operation", HERE), "{{operation}}"),),
        (8, 8),
    ),
    Panel(
        "timeseries",
        "Boot duration",
        "From the first request to the store until the database was in place: the measured RTO.",
        "s",
        ((f"max by (app, instance, database) (sidecar_restore_duration_seconds{EVERY})", "{{database}} {{instance}}"),),
        (8, 8),
    ),
)

MONEY = (
    Panel(
        "timeseries",
        "Bytes sent and reused, per hour",
        "reused: what the store copied from the previous restore point, without egress.",
        "bytes",
        (
            (hourly("sidecar_uploaded_bytes_total", "database"), "{{database}} sent"),
            (hourly("sidecar_reused_bytes_total", "database"), "{{database}} reused"),
        ),
    ),
    Panel(
        "stat",
        "Reused",
        "Share of the restore points' bytes that did not have to be uploaded, over the time range shown.",
        "percentunit",
        ((REUSED, "reused"),),
        (4, 8),
    ),
    Panel(
        "stat",
        "Estimated bill of a month",
        "From measured requests, sizes and bytes, at the list prices that the daemon knows. The store's own bill is authoritative.",
        "currencyUSD",
        ((f"sum by (kind) (sidecar_estimated_monthly_cost_dollars{HERE})", "{{kind}}"),),
        (8, 8),
    ),
    Panel(
        "timeseries",
        "Requests to the store, per hour",
        "Every attempt counts, as on the bill. If many fail, see the log.",
        "none",
        ((hourly("sidecar_store_requests_total", "operation, outcome", HERE), "{{operation}} {{outcome}}"),),
        (24, 8),
    ),
)

SAFETY = (
    Panel(
        "state-timeline",
        "Lease",
        "Which machine may publish. There are never two at once. If there is none for longer than a deploy takes, nothing is protected.",
        "none",
        ((f"max by (app, instance) (sidecar_lease_held{HERE})", "{{app}} {{instance}}"),),
        (12, 8),
        {"0": "waits", "1": "holds"},
        OK_AT_ONE,
    ),
    Panel(
        "timeseries",
        "Lease renewals",
        "failed: the store did not answer. lost: another machine took over.",
        "none",
        ((f"sum by (outcome) (increase(sidecar_lease_renewals_total{HERE}[$__rate_interval]))", "{{outcome}}"),),
        (12, 8),
        bars=True,
    ),
    Panel(
        "stat",
        "Last drill",
        "When a drill last found the newest restore point good. If that is days ago, see the log.",
        "dateTimeFromNow",
        ((f"1000 * max by (app, database) (sidecar_last_drill_timestamp_seconds{EVERY})", "{{database}}"),),
        (6, 8),
    ),
    Panel(
        "timeseries",
        "Drills",
        "damaged: the newest restore point could not be restored. failed: the drill could not be carried out.",
        "none",
        ((f"sum by (outcome) (sidecar_drills_total{EVERY})", "{{outcome}}"),),
        (6, 8),
    ),
    Panel(
        "stat",
        "Credentials expire",
        "They are renewed 15 minutes before. Once expired, nothing can be published.",
        "dateTimeFromNow",
        ((f"1000 * min by (app, instance) (sidecar_credentials_expiry_timestamp_seconds{HERE})", "{{instance}}"),),
        (6, 8),
    ),
    Panel(
        "timeseries",
        "Exit codes (fly.io)",
        "74: the last changes were not published. 75: the lease was lost or not granted, or the store was unreachable at boot. Only fly.io's Prometheus has this metric.",
        "none",
        ((f"max by (app, instance) (fly_instance_exit_code{HERE})", "{{app}} {{instance}}"),),
        (6, 8),
    ),
)

WHOLE = (
    Panel(
        "table",
        "Machines",
        "Every machine with a sidecar. Sort by `Unprotected for`.",
        "none",
        tuple((f"{how} by (app, region, instance) ({metric}{HERE})", title) for title, how, metric, _ in FLEET),
        (16, 10),
        columns=tuple((title, unit) for title, _, _, unit in FLEET),
    ),
    Panel(
        "timeseries",
        "Versions",
        "How many daemons run each version of sidecar and SQLite.",
        "none",
        ((f"count by (version, sqlite_version) (sidecar_build_info{HERE})", "{{version}}, SQLite {{sqlite_version}}"),),
        (8, 10),
    ),
    Panel(
        "timeseries",
        "Unprotected, by app",
        "The worst database of each app.",
        "s",
        (('max by (app) (sidecar_unprotected_seconds{app=~"$app"})', "{{app}}"),),
        (12, 8),
    ),
    Panel(
        "timeseries",
        "Machines by app",
        "Two machines of one app are a deploy, or a mistake: only one can hold the lease.",
        "none",
        (('count by (app) (sidecar_build_info{app=~"$app"})', "{{app}}"),),
        (12, 8),
    ),
)

ROWS = (
    ("Protection now", PROTECTION),
    ("Restore points", POINTS),
    ("Streaming", STREAMS),
    ("Durations", DURATIONS),
    ("Bytes, requests and cost", MONEY),
    ("Lease, drills, credentials", SAFETY),
    ("Fleet", WHOLE),
)
