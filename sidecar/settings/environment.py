"""The variables that sidecar reads besides its own settings: those of the SDK and of the platform."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.errors import ConfigurationError
from sidecar.storage.urls import require_endpoint

STATIC_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# Variables from which the SDK gets credentials; region and endpoints are not among them.
CREDENTIAL_VARIABLES = (
    *STATIC_KEYS,
    "AWS_SECURITY_TOKEN",
    "AWS_ROLE_ARN",
    "AWS_ROLE_SESSION_NAME",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_SHARED_CREDENTIALS_FILE",
    "AWS_CONFIG_FILE",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
    "AWS_CREDENTIAL_FILE",
)
_REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")
_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL_STS")
# The other variables that the SDK reads. Listed here because loading settings must not import the SDK.
_TUNING = (
    "AWS_ACCOUNT_ID",
    "AWS_ACCOUNT_ID_ENDPOINT_MODE",
    "AWS_AUTH_SCHEME_PREFERENCE",
    "AWS_CA_BUNDLE",
    "AWS_CREDENTIAL_EXPIRATION",
    "AWS_CSM_CLIENT_ID",
    "AWS_CSM_ENABLED",
    "AWS_CSM_HOST",
    "AWS_CSM_PORT",
    "AWS_DATA_PATH",
    "AWS_DEFAULTS_MODE",
    "AWS_DISABLE_HOST_PREFIX_INJECTION",
    "AWS_DISABLE_REQUEST_COMPRESSION",
    "AWS_EC2_METADATA_DISABLED",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT",
    "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
    "AWS_EC2_METADATA_V1_DISABLED",
    "AWS_ENDPOINT_DISCOVERY_ENABLED",
    "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS",
    "AWS_IMDS_USE_IPV6",
    "AWS_MAX_ATTEMPTS",
    "AWS_METADATA_SERVICE_NUM_ATTEMPTS",
    "AWS_METADATA_SERVICE_TIMEOUT",
    "AWS_REQUEST_CHECKSUM_CALCULATION",
    "AWS_REQUEST_MIN_COMPRESSION_SIZE_BYTES",
    "AWS_RESPONSE_CHECKSUM_VALIDATION",
    "AWS_RETRY_MODE",
    "AWS_S3_DISABLE_MULTIREGION_ACCESS_POINTS",
    "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT",
    "AWS_S3_USE_ARN_REGION",
    "AWS_SDK_UA_APP_ID",
    "AWS_SIGV4A_SIGNING_REGION_SET",
    "AWS_STS_REGIONAL_ENDPOINTS",
    "AWS_USE_DUALSTACK_ENDPOINT",
    "AWS_USE_FIPS_ENDPOINT",
    "REQUESTS_CA_BUNDLE",
)
SDK_VARIABLES = (*_REGIONS, *_ENDPOINTS, *CREDENTIAL_VARIABLES, *_TUNING)
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")
# Invisible characters that come along when text is copied from a page or a document: soft hyphen, zero-width space, marks
# of the writing direction, word joiners, byte order mark. U+200C and U+200D are allowed, because some languages use them.
_INVISIBLE = re.compile("[\u00ad\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff]")
_IN_HEADERS = ("AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN")  # the secret key only signs, so it may be any text
_NOT_IN_HEADERS = re.compile(r"[^\x20-\x7e]")
_ROLE = re.compile(r"arn:[a-z-]+:iam::(\d*:)?role/[\w+=,.@/-]+", re.ASCII)
_SESSION_NAME = re.compile(r"[^\w+=,.@-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Environment:
    """Values of the SDK's and the platform's variables, None if a variable is unset or empty."""

    region: str | None
    endpoint: str | None
    holder: str
    on_fly: bool
    role_arn: str | None = None
    token_file: str | None = None
    session_name: str = "sidecar"
    sts_endpoint: str | None = None
    static_keys: tuple[str, ...] = ()  # names of variables, never their values


def read_variable(environ: Mapping[str, str], name: str) -> str:
    """A variable's value without surrounding white space, "" if it is unset. Raises `ConfigurationError`.

    A value that was read from a file or pasted into a form often ends in a newline. Taken literally it would name another
    directory, or lead to a header that no server accepts.
    """
    value = environ.get(name, "").strip()
    if _CONTROL.search(value):
        raise ConfigurationError(
            f"{name} contains a control character, such as a line break",
            "set it to one line; separate several values by commas",
        )
    if found := _INVISIBLE.search(value):
        raise ConfigurationError(
            f"{name} contains an invisible character, U+{ord(found[0]):04X}",
            "type the value instead of copying it from a page or a document",
        )
    return value


def read_environment(environ: Mapping[str, str]) -> Environment:
    """The SDK's and the platform's variables. botocore itself reads only AWS_DEFAULT_REGION for the region."""
    values = {name: environ.get(name, "").strip() for name in SDK_VARIABLES}
    machine = read_variable(environ, "FLY_MACHINE_ID")
    holder = machine or socket.gethostname()
    session = _SESSION_NAME.sub("-", values["AWS_ROLE_SESSION_NAME"] or f"sidecar-{holder}")
    shared = values["AWS_ENDPOINT_URL"]
    return Environment(
        region=next((values[name] for name in _REGIONS if values[name]), None),
        endpoint=values["AWS_ENDPOINT_URL_S3"] or shared or None,
        holder=holder,
        on_fly="FLY_MACHINE_ID" in environ,
        role_arn=values["AWS_ROLE_ARN"] or None,
        token_file=values["AWS_WEB_IDENTITY_TOKEN_FILE"] or None,
        session_name=session[:64].ljust(2, "-"),
        sts_endpoint=values["AWS_ENDPOINT_URL_STS"] or shared or None,
        static_keys=tuple(name for name in STATIC_KEYS if values[name]),
    )


def require_credentials(environment: Environment, environ: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` for problems that the SDK would resolve silently or report only during a request."""
    for name in SDK_VARIABLES:
        read_variable(environ, name)
    for name in (*_IN_HEADERS, *_REGIONS):
        _require_header_value(name, read_variable(environ, name))
    for name in _ENDPOINTS:
        require_endpoint(name, read_variable(environ, name))
    role, keys = environment.role_arn, environment.static_keys
    if role and keys:
        raise ConfigurationError(
            f"both AWS_ROLE_ARN and {' and '.join(keys)} are set, and only one of them can be used",
            f"unset {', '.join(keys)} to use the role, or AWS_ROLE_ARN to use the keys",
        )
    if environment.token_file and not role and not keys:
        raise ConfigurationError(
            "AWS_WEB_IDENTITY_TOKEN_FILE is set without AWS_ROLE_ARN", "set AWS_ROLE_ARN to the role's ARN"
        )
    if role and not _ROLE.fullmatch(role):
        raise ConfigurationError(
            f"AWS_ROLE_ARN: {role!r} is not the ARN of a role", "it looks like arn:aws:iam::123456789012:role/NAME"
        )
    if role and not environment.region and not environment.sts_endpoint:
        raise ConfigurationError(
            "AWS_ROLE_ARN is set, but no region for its token service", "set AWS_REGION to the bucket's region"
        )


def _require_header_value(name: str, value: str) -> None:
    """Raise `ConfigurationError`, without the value, for what no header can carry: the SDK would fail in each request."""
    if found := _NOT_IN_HEADERS.search(value):
        raise ConfigurationError(
            f"{name} contains a character that is not ASCII, U+{ord(found[0]):04X}",
            "type the value instead of copying it from a page or a document",
        )


_LEASE_CREDENTIALS = tuple(f"SIDECAR_LEASE_{name}" for name in CREDENTIAL_VARIABLES)


def app_environment(*, withhold: bool, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The app's environment: ours, without the credential variables if `withhold` is set."""
    environ = os.environ if environ is None else environ
    withheld = (*CREDENTIAL_VARIABLES, *_LEASE_CREDENTIALS) if withhold else ()
    return {name: value for name, value in environ.items() if name not in withheld}


def is_passthrough(environ: Mapping[str, str] | None = None) -> bool:
    """Whether this is a release command or a test machine, which must not touch databases or the store."""
    environ = os.environ if environ is None else environ
    return environ.get("RELEASE_COMMAND") == "1" or environ.get("FLY_TEST_COMMAND") == "1"
