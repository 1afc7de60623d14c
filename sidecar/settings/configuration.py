"""Validated settings, together with their sources and the other environment variables that matter."""

from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.settings.environment import Environment
from sidecar.settings.fields import Settings
from sidecar.storage import StaticKeys


@dataclass(frozen=True, slots=True)
class Configuration:
    """Validated settings, the source of each, and the SDK's and the platform's variables.

    `lease_environment` and `lease_keys` are for the lease's store, see `access`.
    """

    settings: Settings
    sources: Mapping[str, str]
    environment: Environment
    lease_environment: Environment
    lease_keys: StaticKeys | None = None
    ignored: tuple[str, ...] = ()  # lower-case variables, which look like settings but are not
