"""How stores over a network are accessed, according to the settings and the environment.

The lease's store may be another provider's: then it has variables of its own, the SDK's with `SIDECAR_LEASE_` in front. If
one of them is set, none of the SDK's is used for that store: no key is shown to a server that it is not meant for.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from sidecar.errors import ConfigurationError
from sidecar.host import Clock
from sidecar.settings.configuration import Configuration
from sidecar.settings.environment import Environment, read_environment, read_variable, require_credentials
from sidecar.settings.fields import Settings
from sidecar.storage import StaticKeys, StoreAccess, parse_location

LEASE_PREFIX = "SIDECAR_LEASE_"
_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
_OTHERS = ("AWS_REGION", "AWS_ENDPOINT_URL_S3", "AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE")
LEASE_VARIABLES = tuple(f"{LEASE_PREFIX}{name}" for name in (*_KEYS, *_OTHERS))
AWS_ENDPOINT = "https://{service}.{region}.amazonaws.com"  # the SDK's default would be overridden by its variables


def read_environments(
    settings: Settings, environ: Mapping[str, str]
) -> tuple[Environment, Environment, StaticKeys | None]:
    """The environments for the store and for the lease's store, and the keys of the latter. Raises `ConfigurationError`."""
    shared = lease = read_environment(environ)
    keys, is_shared = None, parse_location(settings.store).uses_credentials
    if settings.lease_store is not None and parse_location(settings.lease_store).uses_credentials:
        lease, keys = _read_lease_environment(environ, shared)
        is_shared = is_shared or lease is shared
    else:
        _require_no_lease_access(settings.lease_store, environ)
    if is_shared:
        require_credentials(shared, environ)
    return shared, lease, keys


def _require_no_lease_access(lease_store: str | None, environ: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` for variables without effect: whoever set them believes that the lease is somewhere else."""
    if unused := next((name for name in LEASE_VARIABLES if read_variable(environ, name)), None):
        kept = (
            f"{lease_store}, which needs no credentials"
            if lease_store
            else "the store itself, as lease_store is not set"
        )
        raise ConfigurationError(
            f"{unused} is set, but the lease is kept in {kept}",
            f"set lease_store to the store that it is for, or remove the variables that begin with {LEASE_PREFIX}AWS_",
        )


def _read_lease_environment(environ: Mapping[str, str], shared: Environment) -> tuple[Environment, StaticKeys | None]:
    """That of the store, unless one of the variables of the lease's store is set."""
    own = {name.removeprefix(LEASE_PREFIX): read_variable(environ, name) for name in LEASE_VARIABLES}
    own = {name: value for name, value in own.items() if value}
    if not own:
        return shared, None
    found = read_environment(own)
    try:
        require_credentials(found, own)
    except ConfigurationError as error:
        raise ConfigurationError(
            f"for lease_store, with {LEASE_PREFIX} in front: {error.message}", error.hint
        ) from error
    pair = [own.get(name, "") for name in _KEYS[:2]]
    if not (all(pair) or (found.role_arn and not any(pair))):
        raise ConfigurationError(
            f"the variables that begin with {LEASE_PREFIX}AWS_ have no complete credentials for lease_store",
            f"set {LEASE_PREFIX}{_KEYS[0]} and {LEASE_PREFIX}{_KEYS[1]}, or {LEASE_PREFIX}AWS_ROLE_ARN; "
            "or none of them, to use those of the store",
        )
    if not found.region and not found.endpoint:
        raise ConfigurationError(
            "lease_store has credentials of its own, but neither a region nor an endpoint",
            f"set {LEASE_PREFIX}AWS_REGION, or {LEASE_PREFIX}AWS_ENDPOINT_URL_S3 for another store than AWS",
        )
    found = replace(
        found,
        endpoint=found.endpoint or AWS_ENDPOINT.format(service="s3", region=found.region),
        sts_endpoint=AWS_ENDPOINT.format(service="sts", region=found.region) if found.region else None,
        session_name=shared.session_name,
    )
    return found, StaticKeys(pair[0], pair[1], own.get(_KEYS[2])) if all(pair) else None


def store_access(
    configuration: Configuration, clock: Clock, renewed: Callable[[datetime], None], connections: int
) -> StoreAccess:
    """Access to the store. `renewed` is called with the expiry of each new session."""
    return _access(configuration, configuration.environment, clock, renewed, connections)


def lease_access(configuration: Configuration, clock: Clock, connections: int = 4) -> StoreAccess:
    """Access to the lease's store."""
    found = _access(configuration, configuration.lease_environment, clock, _ignore, connections)
    return replace(found, keys=configuration.lease_keys)


def _access(
    configuration: Configuration,
    environment: Environment,
    clock: Clock,
    renewed: Callable[[datetime], None],
    connections: int,
) -> StoreAccess:
    settings = configuration.settings
    return StoreAccess(
        clock,
        renewed,
        endpoint=environment.endpoint,
        region=environment.region,
        connections=connections,
        role_arn=environment.role_arn,
        session_name=environment.session_name,
        sts_endpoint=environment.sts_endpoint,
        token_file=Path(environment.token_file) if environment.token_file else None,
        machine_api=Path(settings.fly_api_socket),
        machine_api_expected=configuration.environment.on_fly or configuration.sources["fly_api_socket"] != "default",
    )


def _ignore(_expires: datetime) -> None:
    """The expiry that is shown is that of the credentials for the store."""
