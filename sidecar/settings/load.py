"""Loads the settings: flags over `SIDECAR_*` variables over `sidecar.toml` (or `SIDECAR_CONFIG`) over defaults.

pydantic-settings reads the sources and validates the result. This module also refuses what it would accept: a name that
is not a setting, in any source, because a typo must not silently disable a backup, and a missing `SIDECAR_CONFIG` file.
"""

import difflib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from sidecar.errors import ConfigurationError
from sidecar.settings.access import LEASE_VARIABLES, read_environments
from sidecar.settings.configuration import Configuration
from sidecar.settings.environment import read_variable
from sidecar.settings.fields import Settings
from sidecar.settings.kinds import kind_of
from sidecar.settings.messages import explain
from sidecar.storage.urls import without_password

PREFIX = "SIDECAR_"
CONFIG_VARIABLE = "SIDECAR_CONFIG"
DEFAULT_FILE = "sidecar.toml"


class LoadedSettings(Settings, BaseSettings):
    """Settings that were read from outside, where lists are separated by commas instead of written as JSON."""

    model_config = SettingsConfigDict(env_prefix=PREFIX, enable_decoding=False, validate_default=False)

    def __init__(self, *sources: PydanticBaseSettingsSource) -> None:
        """Takes each value from the first source that has it. Raises pydantic's `ValidationError`."""
        BaseSettings.__init__(self, _build_sources=(sources, {}))


@dataclass(frozen=True, slots=True)
class _Given:
    """A value as it was written, and its source."""

    value: object
    source: str


class _Noted(PydanticBaseSettingsSource):
    """A source that records its values. Sources are read strongest first, so the first value recorded is the one used."""

    def __init__(self, source: PydanticBaseSettingsSource, name: str, given: dict[str, _Given]) -> None:
        super().__init__(source.settings_cls)
        self._source, self._name, self._given = source, name, given

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """The value from the wrapped source."""
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        """The values from the wrapped source."""
        values = self._source()
        for name, value in values.items():
            self._given.setdefault(name, _Given(value, self._name))
        return values


class _Variables(EnvSettingsSource):
    """The `SIDECAR_*` variables: names exactly as documented, values without surrounding white space."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        super().__init__(LoadedSettings)
        known = {f"{PREFIX}{name.upper()}" for name in Settings.model_fields}
        others = {CONFIG_VARIABLE, *LEASE_VARIABLES}
        given = [name for name in environ if name.startswith(PREFIX) and name not in others]
        for name in given:
            _require_known(name, name, known | others)
        self.env_vars = {name.lower(): read_variable(environ, name) for name in given}


def load(flags: Mapping[str, object], environ: Mapping[str, str] | None = None) -> Configuration:
    """Read and validate everything. `flags` has only the options that were given. Raises `ConfigurationError`."""
    environ = os.environ if environ is None else environ
    file, values = _read_file(environ)
    given: dict[str, _Given] = {}
    sources = [
        _Noted(InitSettingsSource(LoadedSettings, dict(flags)), "flag", given),
        _Noted(_Variables(environ), "environment", given),
        _Noted(InitSettingsSource(LoadedSettings, values), file, given),
    ]
    try:
        settings = LoadedSettings(*sources)
    except ValidationError as error:
        raise _explained(error, given) from error
    environments = read_environments(settings, environ)
    origins = {name: given[name].source if name in given else "default" for name in Settings.model_fields}
    return Configuration(settings, origins, *environments, _in_lower_case(environ))


def _in_lower_case(environ: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(sorted(name for name in environ if name.upper().startswith(PREFIX) and not name.startswith(PREFIX)))


def _read_file(environ: Mapping[str, str]) -> tuple[str, dict[str, Any]]:
    """The name of the file and its values; empty if no file was named and the default one does not exist."""
    named = read_variable(environ, CONFIG_VARIABLE)
    path = Path(named or DEFAULT_FILE)
    if not named and not path.exists():
        return DEFAULT_FILE, {}
    hint = f"correct {CONFIG_VARIABLE}" if named else f"rename it, or set {CONFIG_VARIABLE} to another file"
    try:
        values = tomllib.loads(path.read_text("utf-8"))
    except IsADirectoryError as error:
        raise ConfigurationError(f"{path} is a directory, not a file of settings", hint) from error
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}", hint) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is not TOML: {error}", 'a line looks like interval = "5m"') from error
    for name, value in values.items():
        _require_at_top(path, name, value)
        _require_known(name, f"{path}: {name}", set(Settings.model_fields))
        if any("\0" in str(each) for each in (value if isinstance(value, list) else [value])):
            raise ConfigurationError(f"{path}: {name} contains a NUL character", "remove it")
    return str(path), values


def _require_at_top(path: Path, name: str, value: object) -> None:
    if isinstance(value, dict) and name not in Settings.model_fields:
        raise ConfigurationError(
            f"{path}: {name} is not a setting: [{name}] is a table", "write settings at the top level, without a table"
        )


def _require_known(name: str, shown: str, known: set[str]) -> None:
    if name in known:
        return
    close = difflib.get_close_matches(name, sorted(known), n=1)
    raise ConfigurationError(
        f"{shown} is not a setting", f"did you mean {close[0]}?" if close else "`sidecar check` lists every setting"
    )


def _explained(error: ValidationError, given: Mapping[str, _Given]) -> ConfigurationError:
    """One line about the first problem, with the value as it was written."""
    first = error.errors()[0]
    if first["type"] == "missing":
        name = str(first["loc"][0])
        return ConfigurationError(
            f"no {name} given", f"set {PREFIX}{name.upper()} or --database to the path of the SQLite file"
        )
    if not first["loc"]:  # from the validator of the whole model, whose messages begin with the setting's name
        reason = first["msg"].removeprefix("Value error, ")
        return ConfigurationError(reason, _source_hint(reason.partition(":")[0], given))
    name = str(first["loc"][0])
    field = Settings.model_fields[name]
    written = given[name].value if len(first["loc"]) == 1 else first["input"]
    value = "***" if kind_of(field).secret else without_password(str(written))
    reason = explain(field, first["type"], first["msg"], first["input"])
    return ConfigurationError(f"{name}: {value!r}: {reason}", _source_hint(name, given))


def _source_hint(name: str, given: Mapping[str, _Given]) -> str:
    return f"source: {given[name].source if name in given else 'default'}"
