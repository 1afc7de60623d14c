"""Validated settings together with where they came from and what else of the environment matters."""

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.settings.environment import Environment
from sidecar.settings.fields import Settings


@dataclass(frozen=True, slots=True)
class Configuration:
    """Validated settings, the source of each, and the SDK's and the platform's variables."""

    settings: Settings
    sources: Mapping[str, str]
    environment: Environment
    ignored: tuple[str, ...] = ()  # variables in lower case, which look like settings and are not
