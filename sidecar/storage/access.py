"""What a store over a network is accessed with."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from sidecar.host import Clock


@dataclass(frozen=True, slots=True)
class StaticKeys:
    """Credentials that do not change. They are never shown."""

    key: str = field(repr=False)
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """Settings and environment for accessing a store over a network; a store on this machine needs none of them.

    If `endpoint` or `sts_endpoint` is None, it is the provider's default. `machine_api` is the socket that issues tokens;
    unless it is expected, it is used only if it exists. `renewed` is called with the expiry of each new session.
    With `keys`, the SDK does not look for credentials.
    """

    clock: Clock
    renewed: Callable[[datetime], None]
    endpoint: str | None = None
    region: str | None = None
    connections: int = 10
    role_arn: str | None = None
    session_name: str = "sidecar"
    sts_endpoint: str | None = None
    token_file: Path | None = None
    machine_api: Path | None = None
    machine_api_expected: bool = False
    keys: StaticKeys | None = None
