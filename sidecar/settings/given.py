"""Settings that a program passes as values, without reading `SIDECAR_*` variables or a file."""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sidecar.errors import ConfigurationError
from sidecar.settings.access import read_environments
from sidecar.settings.configuration import Configuration
from sidecar.settings.fields import Settings
from sidecar.settings.kinds import kind_of
from sidecar.settings.messages import explain
from sidecar.storage.urls import without_password

SOURCE = "argument"


def configure(given: Settings | Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Configuration:
    """The configuration with these settings; credentials come from the `AWS_*` variables. Raises `ConfigurationError`."""
    environ = os.environ if environ is None else environ
    settings = given if isinstance(given, Settings) else _validate(given)
    environments = read_environments(settings, environ)
    names = Settings.model_fields
    sources = {name: SOURCE if name in settings.model_fields_set else "default" for name in names}
    return Configuration(settings, sources, *environments)


def _validate(values: Mapping[str, Any]) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        raise _explained(error, values) from error


def _explained(error: ValidationError, values: Mapping[str, Any]) -> ConfigurationError:
    """One line about the first argument that is wrong."""
    first = error.errors()[0]
    name = str(first["loc"][0]) if first["loc"] else ""
    field = Settings.model_fields.get(name)
    if first["type"] == "missing":
        return ConfigurationError(f"no {name} given", f"pass {name}=...")
    if field is None:
        reason = first["msg"].removeprefix("Value error, ")
        return ConfigurationError(f"{name}: no such setting" if name else reason, "see `sidecar.Settings`")
    value = "***" if kind_of(field).secret else without_password(str(values[name]))
    reason = explain(field, first["type"], first["msg"], first["input"])
    return ConfigurationError(f"{name}: {value!r}: {reason}", "correct this argument")
