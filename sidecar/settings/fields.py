"""Every setting, declared once: its type, its default and its meaning.

`Settings(...)` takes values from its caller and reads nothing else; `load` reads flags, environment and file. Options
of the command line, the table of `sidecar check` and the documentation are made from these fields.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sidecar.errors import ConfigurationError
from sidecar.model import Database
from sidecar.policies import Durability, OnConflict, OnEmptyStore, OnLeaseLost, RetentionDays
from sidecar.repository.keys import RESERVED_NAMES
from sidecar.settings.kinds import (
    Address,
    Duration,
    GrowthLimit,
    MetricsUrl,
    Number,
    OtherStoreUrl,
    PathOrWord,
    Paths,
    PositiveDuration,
    Retention,
    SecretUrl,
    SecretUrls,
    Size,
    StoreUrl,
    User,
)
from sidecar.storage.open import parse_location
from sidecar.units import format_duration

SHORTEST_TTL = timedelta(seconds=1)
SHORTEST_STREAM_INTERVAL, LONGEST_STREAM_INTERVAL = timedelta(milliseconds=100), timedelta(minutes=1)
_ACCOUNT = re.compile(r"[^:\s]+(:[^:\s]+)?")


class Settings(BaseModel):
    """Every setting. Paths may be relative to the working directory."""

    # The validator is built on first use: a process that loads its settings only needs the one of `LoadedSettings`.
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True)

    databases: Paths = Field(
        description="the SQLite files to protect; the name of a file is the database's name in the store"
    )
    store: StoreUrl = Field(
        default="file://./sidecar-store",
        description="where restore points are kept: `s3://bucket/prefix` or `file:///dir`",
    )
    interval: PositiveDuration = Field(default=timedelta(minutes=5), description="time between restore points")
    stream: Literal["auto", "on", "off"] = Field(
        default="auto",
        description="stream commits between restore points: `auto` (where it does not affect the app), `on` or `off`",
    )
    stream_interval: PositiveDuration = Field(
        default=timedelta(seconds=1), description="time between segments while there are commits, 100ms to 1m"
    )
    restore_points: Literal["always", "auto"] = Field(
        default="always",
        description="`always`: one every `interval`; `auto`: with a healthy stream, only when it is worth its bytes, at least "
        "every hour",
    )
    restore_timeout: PositiveDuration = Field(
        default=timedelta(minutes=2), description="how long a boot retries an unreachable store before it exits with 75"
    )
    shutdown_grace: Duration = Field(
        default=timedelta(seconds=10), description="time between SIGTERM and SIGKILL for the app to exit"
    )
    final_backup_timeout: PositiveDuration = Field(
        default=timedelta(minutes=2), description="time allowed for the final backup after the app has exited"
    )
    drain: Duration = Field(
        default=timedelta(seconds=5),
        description="without a command: how long to wait on SIGTERM for other writers to stop",
    )
    follow_descendants: Literal["on", "off"] = Field(
        default="on",
        description="`on`: all processes that the command leaves running, in any session, end before the final backup; "
        "`off`: only those in its process group",
    )
    on_empty_store: OnEmptyStore = Field(
        default=OnEmptyStore.START,
        description="when there is nothing to restore: `start` without a database, or `fail` with exit code 66",
    )
    on_conflict: OnConflict = Field(
        default=OnConflict.REMOTE,
        description="which side wins when the local file and the newest restore point have diverged: "
        "`remote` or `local`; `fail` leaves the decision to you",
    )
    on_lease_lost: OnLeaseLost = Field(
        default=OnLeaseLost.STOP,
        description="when another machine has taken over: `stop` the app, or `continue` and publish only to diverged/",
    )
    lease: Literal["on", "off"] = Field(
        default="on", description="`on`: one writer at a time; `off`: only if there is never a second machine"
    )
    lease_store: OtherStoreUrl = Field(
        default=None,
        description="where the lease is kept if `store` has no conditional writes: `s3://bucket/prefix` or `file:///dir`",
    )
    lease_ttl: PositiveDuration = Field(
        default=timedelta(minutes=2), description="time without a renewal after which another machine may take over"
    )
    lease_wait: Duration = Field(
        default=timedelta(minutes=5),
        description="how long a boot waits for another machine's lease before it exits with 75",
    )
    lease_handoff: Literal["wait", "request"] = Field(
        default="wait",
        description="`wait` until the other machine stops, or `request` a handoff from it (blue-green deploys)",
    )
    listen: Address = Field(
        default="0.0.0.0:9180",
        description="`host:port` of the status page and of /livez, /readyz, /metrics and /status; `off` disables them",
    )
    app_metrics_url: MetricsUrl = Field(
        default=None, description="URL of the app's own metrics, appended to `/metrics`"
    )
    staging_dir: PathOrWord = Field(
        default="auto", description="directory for snapshots until they are published; `auto`: in tmpfs if they fit"
    )
    journal_mode: Literal["wal", "keep"] = Field(
        default="wal", description="switch databases to `wal` mode, or `keep` the mode that they have"
    )
    integrity_check: Literal["none", "quick", "full", "strict"] = Field(
        default="quick",
        description="SQLite's check of snapshots and restores: `quick`, `full` (with indexes, slower), `strict` (`full`, and a boot "
        "exits with 65 if there is a finding), `none`",
    )
    compression_level: Number = Field(default=1, ge=1, le=19, description="zstd level, 1 to 19")
    part_size: Size = Field(
        default=8 << 20, ge=5 << 20, le=5 << 30, description="size of uploaded and downloaded parts, 5MiB to 5GiB"
    )
    drill_interval: Duration = Field(
        default=timedelta(hours=24),
        description="time between drills, which prove that the newest restore point can be restored; 0 disables them",
    )
    retention_days: Retention = Field(
        default=RetentionDays(),
        description="days after which restore points of each tier, and segments, expire; a bucket's lifecycle rules must match",
    )
    prune: Literal["off", "on"] = Field(
        default="off",
        description="`on`: the daemon itself deletes what has expired, with its own credentials; `off`: the bucket's rules do, "
        "or `sidecar prune`",
    )
    concurrency: Number = Field(default=4, ge=1, le=64, description="number of parts in flight at once, 1 to 64")
    durability: Durability = Field(
        default=Durability.AUTO,
        description="fsync restored files: `always`, `never`, or `auto` (if the disk outlives the machine)",
    )
    fly_api_socket: PathOrWord = Field(
        default="/.fly/api", description="socket of fly.io's machine API, which issues tokens if there is no token file"
    )
    app_credentials: Literal["inherit", "withhold"] = Field(
        default="inherit", description="let the app `inherit` the AWS credential variables, or `withhold` them from it"
    )
    app_user: User = Field(
        default=None,
        description="`user`, `user:group`, `uid` or `uid:gid` that the app runs as and that owns the databases",
    )
    control_socket: PathOrWord = Field(
        default="auto", description="Unix socket for `sidecar backup` and `sidecar status`; `off` disables it"
    )
    notify: SecretUrls = Field(
        default=(), description="webhooks (Slack and similar) notified when problems begin and end"
    )
    heartbeat_url: SecretUrl = Field(
        default=None,
        description="URL requested whenever every database is found protected; alert when the requests stop",
    )
    alert_growth: GrowthLimit = Field(
        default=None,
        description="notify when a database reaches a size (`2GiB`), or grows by more in one publish (`50%`)",
    )
    log_format: Literal["auto", "console", "json"] = Field(
        default="auto", description="`console`, `json`, or `auto`: console on a terminal, otherwise JSON"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="least important level shown: `debug`, `info`, `warning`, `error`"
    )

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        _require_names(self.databases)
        parse_location(self.store)
        if self.lease_store is not None:
            parse_location(self.lease_store, "lease_store")
        listen_address(self.listen)
        for name in ("staging_dir", "fly_api_socket", "control_socket"):
            if not getattr(self, name):
                raise ValueError(f"{name}: '' is not a path; leave the setting out")
        if self.app_user is not None and not _ACCOUNT.fullmatch(self.app_user):
            raise ValueError(f"app_user: {self.app_user!r} is not user, user:group, uid or uid:gid")
        if not SHORTEST_STREAM_INTERVAL <= self.stream_interval <= LONGEST_STREAM_INTERVAL:
            raise ValueError(f"stream_interval: {format_duration(self.stream_interval)!r} is not between 100ms and 1m")
        if self.lease_ttl < SHORTEST_TTL:
            raise ValueError(
                f"lease_ttl: {format_duration(self.lease_ttl)!r} is shorter than {SHORTEST_TTL.total_seconds():.0f} s, "
                "the resolution of S3's clock"
            )
        return self

    @property
    def why_not_streamed(self) -> str:
        """The setting that prevents all streaming; empty if there is none."""
        if self.stream == "off":
            return "stream=off"
        if self.stream == "auto" and self.lease == "off":
            return "lease=off: without a lease, streaming needs stream=on, and that there is never a second machine"
        return ""

    def database_list(self) -> tuple[Database, ...]:
        """The databases, named by their file names, with symbolic links resolved. Raises `ConfigurationError`."""
        return tuple(Database(path.name, _resolved(path)) for path in self.databases)


def listen_address(listen: str) -> tuple[str, int] | None:
    """Host and port of the `listen` setting, None if it is off. Raises ValueError."""
    if listen == "off":
        return None
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"listen: {listen!r} is neither host:port, like 0.0.0.0:9180, nor off")
    return host.strip("[]"), int(port)


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError as error:  # Python before 3.13; later versions leave the path as it is, and it cannot be opened
        raise ConfigurationError(
            f"databases: {path} cannot be found: a symbolic link in it leads back to itself", "remove that link"
        ) from error


def _require_names(paths: Sequence[Path]) -> None:
    if not paths:
        raise ValueError("databases: none given; name at least one SQLite file")
    names = [path.name for path in paths]
    for path in paths:
        if path.name in RESERVED_NAMES or not path.name:
            raise ValueError(
                f"databases: {str(path)!r} cannot be used: its name is reserved in the store; rename the file, or list a "
                "symbolic link with another name"
            )
        if not _is_utf8(path.name):
            raise ValueError(f"databases: {str(path)!r}: the name is not UTF-8, which keys in the store must be")
        if names.count(path.name) > 1:
            raise ValueError(f"databases: two files are named {path.name!r}; names in the store must differ")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
