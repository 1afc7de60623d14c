"""What we take from the environment beside our own settings: the standard names of the SDK and of the platform."""

import os
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.errors import ConfigurationError

STATIC_KEYS = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
# What leads the SDK to credentials; region and endpoints are none of it.
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
)
_ROLE = re.compile(r"arn:[a-z-]+:iam::(\d*:)?role/[\w+=,.@/-]+", re.ASCII)
_URL = re.compile(r"https?://[^\s/]+(/\S*)?$", re.IGNORECASE)
_SESSION_NAME = re.compile(r"[^\w+=,.@-]", re.ASCII)


@dataclass(frozen=True, slots=True)
class Environment:
    """What we take from the environment beside our own settings; the standard names of the SDK and the platform."""

    region: str | None
    endpoint: str | None
    holder: str
    on_fly: bool
    role_arn: str | None = None
    token_file: str | None = None
    session_name: str = "sidecar"
    sts_endpoint: str | None = None
    static_keys: tuple[str, ...] = ()  # names of variables, never their values


def read_environment(environ: Mapping[str, str]) -> Environment:
    """The SDK's and the platform's variables. botocore itself reads only AWS_DEFAULT_REGION."""
    machine = environ.get("FLY_MACHINE_ID") or socket.gethostname()
    return Environment(
        region=environ.get("AWS_REGION") or environ.get("AWS_DEFAULT_REGION") or None,
        endpoint=environ.get("AWS_ENDPOINT_URL_S3") or environ.get("AWS_ENDPOINT_URL") or None,
        holder=machine,
        on_fly="FLY_MACHINE_ID" in environ,
        role_arn=environ.get("AWS_ROLE_ARN") or None,
        token_file=environ.get("AWS_WEB_IDENTITY_TOKEN_FILE") or None,
        session_name=_SESSION_NAME.sub("-", environ.get("AWS_ROLE_SESSION_NAME") or f"sidecar-{machine}")[:64].ljust(
            2, "-"
        ),
        sts_endpoint=environ.get("AWS_ENDPOINT_URL_STS") or environ.get("AWS_ENDPOINT_URL") or None,
        static_keys=tuple(name for name in STATIC_KEYS if environ.get(name)),
    )


def check_credentials(environment: Environment) -> None:
    """Refuse what the SDK would decide silently, or in the middle of a request. Raises `ConfigurationError`."""
    for name, url in (("S3", environment.endpoint), ("STS", environment.sts_endpoint)):
        if url and not _URL.match(url):  # it is not shown: it may have a password in it
            raise ConfigurationError(
                f"AWS_ENDPOINT_URL_{name} (or AWS_ENDPOINT_URL) is no URL", "it reads like https://s3.example.com:8333"
            )
    role, keys = environment.role_arn, environment.static_keys
    if role and keys:
        raise ConfigurationError(
            f"both AWS_ROLE_ARN and {' and '.join(keys)} are set, and only one can be meant",
            f"unset {', '.join(keys)} to use the role, or AWS_ROLE_ARN to use the keys",
        )
    if environment.token_file and not role and not keys:
        raise ConfigurationError(
            "AWS_WEB_IDENTITY_TOKEN_FILE is set without AWS_ROLE_ARN", "set AWS_ROLE_ARN to the role's ARN"
        )
    if role and not _ROLE.fullmatch(role):
        raise ConfigurationError(
            f"AWS_ROLE_ARN: {role!r} is not the ARN of a role", "it reads like arn:aws:iam::123456789012:role/NAME"
        )
    if role and not environment.region and not environment.sts_endpoint:
        raise ConfigurationError(
            "AWS_ROLE_ARN is set, and no region is known for its token service", "set AWS_REGION to the bucket's region"
        )


def app_environment(*, withhold: bool, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """What the app gets: our environment, without the credential variables where they are to be withheld."""
    environ = os.environ if environ is None else environ
    withheld = CREDENTIAL_VARIABLES if withhold else ()
    return {name: value for name, value in environ.items() if name not in withheld}


def is_passthrough(environ: Mapping[str, str] | None = None) -> bool:
    """Whether this is a release command or a test machine, which must not touch databases or the store."""
    environ = os.environ if environ is None else environ
    return environ.get("RELEASE_COMMAND") == "1" or environ.get("FLY_TEST_COMMAND") == "1"
