"""Settings that a program gives as values: neither `SIDECAR_*` variables nor a file are read."""

import os
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from sidecar.errors import ConfigurationError
from sidecar.settings.environment import check_credentials, read_environment
from sidecar.settings.fields import SECRETS, Configuration, Settings
from sidecar.storage.open import parse_location
from sidecar.storage.urls import without_password

SOURCE = "argument"


def configure(given: Settings | Mapping[str, Any], environ: Mapping[str, str] | None = None) -> Configuration:
    """The configuration of these settings; credentials come from the `AWS_*` variables. Raises `ConfigurationError`."""
    settings = given if isinstance(given, Settings) else _validate(given)
    environment = read_environment(os.environ if environ is None else environ)
    if parse_location(settings.store).uses_credentials:
        check_credentials(environment)
    names = type(settings).model_fields
    sources = {name: SOURCE if name in settings.model_fields_set else "default" for name in names}
    return Configuration(settings, sources, environment)


def _validate(values: Mapping[str, Any]) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]) if first["loc"] else ""
        reason = first["msg"].removeprefix("Value error, ")
        if not name:
            raise ConfigurationError(reason, "correct this argument") from error
        value = "" if name in SECRETS or first["type"] == "missing" else f": {without_password(str(values[name]))!r}"
        raise ConfigurationError(f"{name}{value}: {reason}", "correct this argument") from error
