"""Settings; with `environment`, the only reader of the environment.

Precedence: flags > `SIDECAR_*` environment > `sidecar.toml` (or `SIDECAR_CONFIG`) > defaults. A name that is not a
setting is an error wherever it stands: a typo must not silently disable a backup.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    ValidationError,
    model_validator,
)

from sidecar.errors import ConfigurationError
from sidecar.model import Database
from sidecar.policies import Durability, Growth, OnConflict, OnEmptyStore, OnLeaseLost
from sidecar.repository.keys import RESERVED_NAMES
from sidecar.settings.environment import Environment, check_credentials, read_environment
from sidecar.settings.messages import said_of
from sidecar.storage.open import parse_location
from sidecar.storage.urls import is_http, without_password
from sidecar.units import format_duration, format_size, parse_duration, parse_size

PREFIX = "SIDECAR_"
CONFIG_VARIABLE = "SIDECAR_CONFIG"
DEFAULT_FILE = "sidecar.toml"
SHORTEST_TTL = timedelta(seconds=1)
SMALLEST_ALERT = 64 << 10
SECRETS = frozenset({"notify", "heartbeat_url"})  # their values are shown nowhere, not even when they are wrong
SIZES = frozenset({"part_size"})
REPEATABLE = frozenset({"databases", "notify"})
_ACCOUNT = re.compile(r"[^:\s]+(:[^:\s]+)?")


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except RuntimeError as error:  # Python before 3.13; after that the path is as it was, and cannot be opened
        raise ConfigurationError(
            f"databases: {path} cannot be found: a symbolic link in it leads back to itself", "remove that link"
        ) from error


def _comma_separated(value: object) -> object:
    return tuple(part.strip() for part in value.split(",") if part.strip()) if isinstance(value, str) else value


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than zero")
    return value


def _url(value: SecretStr) -> SecretStr:
    if not is_http(value.get_secret_value()):
        raise ValueError("not a URL like https://example.com/hook")
    return value


def _metrics_url(value: str) -> str:
    if value and not is_http(value):
        raise ValueError("not a URL like http://127.0.0.1:8000/metrics")
    return value


def _growth(value: object) -> object:
    if value is None or isinstance(value, Growth):
        return value
    if not isinstance(value, str):
        raise ValueError("neither a size like 2GiB nor a growth like 50%, in quotes")  # noqa: TRY004 - what pydantic catches
    percent = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value.strip())
    if percent and float(percent[1]) > 0:
        return Growth(factor=float(percent[1]) / 100)
    if percent:
        raise ValueError("a growth is more than 0%")
    try:
        size = parse_size(value)
    except ValueError:
        raise ValueError("neither a size like 2GiB nor a growth like 50%") from None
    if size < SMALLEST_ALERT:
        raise ValueError(f"a size is at least {format_size(SMALLEST_ALERT)}: every database is soon larger")
    return Growth(limit=size)


def _number(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("it is a whole number")  # noqa: TRY004 - as above
    return value


Number = Annotated[int, BeforeValidator(_number)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
PositiveDuration = Annotated[Duration, AfterValidator(_positive)]
Size = Annotated[int, BeforeValidator(parse_size)]
Paths = Annotated[tuple[Path, ...], BeforeValidator(_comma_separated)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_comma_separated)]
SecretUrl = Annotated[SecretStr, AfterValidator(_url)]
MetricsUrl = Annotated[str, AfterValidator(_metrics_url)]
SecretUrls = Annotated[tuple[SecretUrl, ...], BeforeValidator(_comma_separated)]


class Settings(BaseModel):
    """Every setting; see README for what each one means. Paths may be relative to the working directory."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    databases: Paths = Field(description="the SQLite files to protect; their file names are their names in the store")
    store: str = Field("file://./sidecar-store", description="`s3://bucket/prefix` or `file:///dir`")
    interval: PositiveDuration = Field(timedelta(minutes=5), description="time between restore points")
    restore_timeout: PositiveDuration = Field(
        timedelta(minutes=2), description="how long an unreachable store is tried at boot, before exit 75"
    )
    shutdown_grace: Duration = Field(timedelta(seconds=10), description="time the app has to stop before SIGKILL")
    final_backup_timeout: PositiveDuration = Field(
        timedelta(minutes=2), description="time the last backup has after the app stopped"
    )
    drain: Duration = Field(
        timedelta(seconds=5), description="without a command: wait on SIGTERM for the writers elsewhere to stop"
    )
    on_empty_store: OnEmptyStore = Field(
        OnEmptyStore.START, description="nothing to restore: `start`, or `fail` with exit 66"
    )
    on_conflict: OnConflict = Field(
        OnConflict.REMOTE,
        description="local file and newest restore point disagree: `remote` or `local` wins, or `fail`",
    )
    on_lease_lost: OnLeaseLost = Field(
        OnLeaseLost.STOP,
        description="another machine took over: `stop` the app, or let it `continue` with nothing but copies under diverged/",
    )
    lease: Literal["on", "off"] = Field(
        "on", description="`on`: one writer at a time; `off` only if there is never a second"
    )
    lease_ttl: PositiveDuration = Field(
        timedelta(minutes=2), description="after this long without a renewal another machine may take over"
    )
    lease_wait: Duration = Field(timedelta(minutes=5), description="how long a boot waits for another machine's lease")
    lease_handoff: Literal["wait", "request"] = Field(
        "wait", description="`wait` for another machine to stop, or `request` that it hands over (bluegreen deploys)"
    )
    listen: str = Field(
        "0.0.0.0:9180", description="`host:port` of the status page /, /livez /readyz /metrics /status, or `off`"
    )
    app_metrics_url: MetricsUrl | None = Field(None, description="the app's metrics, appended to `/metrics`")
    staging_dir: str = Field("auto", description="where snapshots lie until published; `auto`: tmpfs if it fits")
    journal_mode: Literal["wal", "keep"] = Field(
        "wal", description="`wal`: switch databases to WAL, or `keep` what they have"
    )
    integrity_check: Literal["none", "quick", "full"] = Field(
        "quick", description="SQLite's check after a restore: `quick`, `full` (indexes too, slower), `none`"
    )
    compression_level: Number = Field(1, ge=1, le=19, description="zstd level, 1 to 19")
    part_size: Size = Field(8 << 20, ge=5 << 20, le=5 << 30, description="size of parts on the wire, 5MiB to 5GiB")
    drill_interval: Duration = Field(
        timedelta(hours=24), description="time between drills, which prove the newest restore point; 0 turns them off"
    )
    concurrency: Number = Field(4, ge=1, le=64, description="parts in flight at once")
    durability: Durability = Field(Durability.AUTO, description="fsync restored files: `auto`, `always`, `never`")
    fly_api_socket: str = Field("/.fly/api", description="fly.io's machine API, for tokens where no file has them")
    app_credentials: Literal["inherit", "withhold"] = Field(
        "inherit", description="the AWS credential variables: the app may `inherit` them, or `withhold` them from it"
    )
    app_user: str | None = Field(
        None, description="`user`, `user:group`, `uid` or `uid:gid` that the app runs as and that owns the databases"
    )
    control_socket: str = Field("auto", description="unix socket for `sidecar backup` and `status`; `off` disables")
    notify: SecretUrls = Field((), description="webhooks (Slack and its like) that are told of problems and their end")
    heartbeat_url: SecretUrl | None = Field(
        None, description="called whenever everything was found protected; alarm when it stays away"
    )
    alert_growth: Annotated[Growth | None, BeforeValidator(_growth)] = Field(
        None, description="tell when a database passes a size (`2GiB`), or grows by more in one publish (`50%`)"
    )
    log_format: Literal["auto", "console", "json"] = Field(
        "auto", description="`console`, `json`, or `auto`: console on a tty, else JSON"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least important level shown: `debug`, `info`, `warning`, `error`"
    )

    @model_validator(mode="after")
    def _check(self) -> "Settings":
        _check_names(self.databases)
        _check_store(self.store)
        listen_address(self.listen)
        for name in ("staging_dir", "fly_api_socket", "control_socket"):
            if not getattr(self, name):
                raise ValueError(f"{name}: '' is no path; leave it out")
        if self.app_user is not None and not _ACCOUNT.fullmatch(self.app_user):
            raise ValueError(f"app_user: {self.app_user!r} is not of the form user, user:group, uid or uid:gid")
        if self.lease_ttl < SHORTEST_TTL:
            raise ValueError(
                f"lease_ttl: {format_duration(self.lease_ttl)!r} is shorter than {SHORTEST_TTL.total_seconds():.0f} s, "
                "the resolution of S3's clock"
            )
        return self

    def database_list(self) -> tuple[Database, ...]:
        """The databases, named by their file names, with symbolic links resolved. Raises `ConfigurationError`."""
        return tuple(Database(path.name, _resolved(path)) for path in self.databases)


@dataclass(frozen=True, slots=True)
class Configuration:
    """Validated settings, where each came from, and what else of the environment matters."""

    settings: Settings
    sources: Mapping[str, str]
    environment: Environment


def load(flags: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Configuration:
    """Read and validate everything. `flags` has only what was given. Raises `ConfigurationError`."""
    environ = os.environ if environ is None else environ
    layers = (*_file_layer(environ).items(), ("environment", _environment_layer(environ)), ("flag", dict(flags)))
    merged: dict[str, object] = {}
    sources = dict.fromkeys(Settings.model_fields, "default")
    for source, values in layers:
        merged.update(values)
        sources.update(dict.fromkeys(values, source))
    try:
        settings = Settings(**merged)  # type: ignore[arg-type]
    except ValidationError as error:
        raise _explain(error, sources, merged) from error
    environment = read_environment(environ)
    if parse_location(settings.store).uses_credentials:
        check_credentials(environment)
    return Configuration(settings, sources, environment)


def listen_address(listen: str) -> tuple[str, int] | None:
    """Host and port of the `listen` setting, None when it is off. Raises ValueError."""
    if listen == "off":
        return None
    host, separator, port = listen.rpartition(":")
    if not separator or not host or not port.isdigit() or int(port) > 65535:
        raise ValueError(f"listen: {listen!r} is not of the form host:port, like 0.0.0.0:9180, or off")
    return host.strip("[]"), int(port)


def _check_store(store: str) -> None:
    parse_location(store)


def _check_names(paths: Sequence[Path]) -> None:
    if not paths:
        raise ValueError("databases: none given; name at least one SQLite file")
    names = [path.name for path in paths]
    for path in paths:
        if path.name in RESERVED_NAMES or not path.name:
            raise ValueError(f"databases: {str(path)!r} cannot be used: the store needs this name for itself")
        if not _is_utf8(path.name):
            raise ValueError(f"databases: {str(path)!r}: the name is not UTF-8, as keys in the store are")
        if names.count(path.name) > 1:
            raise ValueError(f"databases: two files are named {path.name!r}; names in the store must differ")


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _file_layer(environ: Mapping[str, str]) -> dict[str, dict[str, object]]:
    named = environ.get(CONFIG_VARIABLE)
    path = Path(named or DEFAULT_FILE)
    if not named and not path.exists():
        return {}
    try:
        values = tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", f"correct {CONFIG_VARIABLE}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}", "see the settings in README") from error
    for name, value in values.items():
        _require_known(name, f"{path}: {name}", {each: each for each in Settings.model_fields})
        if any("\0" in str(each) for each in (value if isinstance(value, list) else [value])):
            raise ConfigurationError(f"{path}: {name} has a NUL character in it", "no path and no setting has one")
    return {str(path): values}


def _environment_layer(environ: Mapping[str, str]) -> dict[str, object]:
    known = {f"{PREFIX}{name.upper()}": name for name in Settings.model_fields}
    found: dict[str, object] = {}
    for variable, value in environ.items():
        if variable.startswith(PREFIX) and variable != CONFIG_VARIABLE:
            _require_known(variable, variable, known)
            found[known[variable]] = value
    return found


def _require_known(name: str, shown: str, known: Mapping[str, str]) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else "`sidecar check` and README list every setting"
    raise ConfigurationError(f"{shown} is not a setting", hint)


def _explain(error: ValidationError, sources: Mapping[str, str], given: Mapping[str, object]) -> ConfigurationError:
    """One line for the first thing that is wrong, with the value as it was written."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    reason = _reason(name, first["type"], first["msg"], first["input"])
    if first["type"] == "missing":
        return ConfigurationError(
            f"no {name} given", f"set {PREFIX}{name.upper()} or --database to the path of the SQLite file"
        )
    if not name:
        return ConfigurationError(reason, f"it comes from: {sources[reason.partition(':')[0]]}")
    written = given[name] if len(first["loc"]) == 1 else first["input"]
    value = "***" if name in SECRETS else without_password(str(written))
    return ConfigurationError(f"{name}: {value!r}: {reason}", f"it comes from: {sources[name]}")


def _reason(name: str, kind: str, words: str, given: object) -> str:
    field = Settings.model_fields.get(name)
    return said_of(field, kind, words, given, sized=name in SIZES) if field else words.removeprefix("Value error, ")
