"""The SDK's own configuration: its variables, files and certificates. An error names the variable or the file at fault.

Waiting does not repair a missing profile, so none of these errors is retried. `require_configuration` reads everything once
before the first request. `explain` translates the errors that only a request reveals.

https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html
"""

import os
import ssl
from collections.abc import Mapping
from json import JSONDecodeError
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from botocore import exceptions as boto
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES, DEFAULT_S3_CONFIG_VARS, ConfigChainFactory
from botocore.utils import get_environ_proxies

from sidecar.errors import AccessDenied, ConfigurationError, SidecarError, TokenUnavailable
from sidecar.storage.urls import require_endpoint

PROCESS = "custom-process"  # the SDK's name for the provider behind credential_process
_CHECKSUM_CHOICES = ("when_supported", "when_required")
_CHOICES = {
    "retry_mode": ("legacy", "standard", "adaptive"),
    "request_checksum_calculation": _CHECKSUM_CHOICES,
    "response_checksum_validation": _CHECKSUM_CHOICES,
}
_PROCESS_HINT = "run the command of credential_process in {} by hand, as this user"
_PROXIES = {"HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"}
_FILES = {"AWS_CONFIG_FILE": "config_file", "AWS_SHARED_CREDENTIALS_FILE": "credentials_file"}
# The variable of the SDK that an error is about, by its name in the SDK's own table.
_SUBJECTS = {
    boto.ProfileNotFound: "profile",
    boto.InvalidRetryModeError: "retry_mode",
    boto.InvalidMaxRetryAttemptsError: "max_attempts",
    boto.InvalidDefaultsMode: "defaults_mode",
    boto.InvalidSTSRegionalEndpointsConfigError: "sts_regional_endpoints",
    boto.InvalidS3UsEast1RegionalEndpointConfigError: "us_east_1_regional_endpoint",
    boto.InvalidIMDSEndpointError: "ec2_metadata_service_endpoint",
    boto.InvalidIMDSEndpointModeError: "ec2_metadata_service_endpoint_mode",
}
_NO_CREDENTIALS = (
    boto.NoCredentialsError,
    boto.PartialCredentialsError,
    boto.SSOError,
    boto.TokenRetrievalError,
    boto.NoAuthTokenError,
)
# Errors of the SDK whose cause is outside this machine's configuration. All of its other errors are about configuration.
_NETWORK = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.ChecksumError,
    boto.FlexibleChecksumError,
    boto.MetadataRetrievalError,
    boto.CapacityNotAvailableError,
)


def read_environ() -> dict[str, str]:
    """The environment for the SDK: AWS_* variables without surrounding white space, and without empty ones."""
    aws = {name: value.strip() for name, value in os.environ.items() if name.startswith("AWS_")}
    others = {name: value for name, value in os.environ.items() if name not in aws}
    return others | {name: value for name, value in aws.items() if value}


def use_variables(session: Any, environ: Mapping[str, str]) -> None:
    """Make a session read its settings from `environ` instead of the process's environment."""
    chains, store = ConfigChainFactory(session, environ=environ), session.get_component("config_store")
    for name, (keys, variables, default, convert) in BOTOCORE_DEFAUT_SESSION_VARIABLES.items():
        if variables:
            chain = chains.create_config_chain(
                instance_name=name,
                env_var_names=variables,
                config_property_names=keys,
                default=default,
                conversion_func=convert,
            )
            store.set_config_provider(name, chain)


def use_credential_variables(session: Any, environ: Mapping[str, str]) -> None:
    """Make a session's credential providers read `environ`. This creates them, so the session's settings must be valid."""
    found = session.get_component("credential_provider")
    found.get_provider("env").environ = environ
    found.get_provider("container-role")._environ = environ  # noqa: SLF001 - there is no public API


def is_configured(session: Any, name: str) -> bool:
    """Whether a setting of the SDK is set in the environment or the config file, rather than by default."""
    keys, variables, *_ = BOTOCORE_DEFAUT_SESSION_VARIABLES[name]
    chain = ConfigChainFactory(session, environ=read_environ())
    return chain.create_config_chain(env_var_names=variables, config_property_names=keys).provide() is not None


def configured_endpoint() -> str | None:
    """The endpoint of S3 that the SDK's config file names, which no variable overrides; None when it names none.

    Those of S3 and of the token service are checked. Raises `ConfigurationError` with the name of the file, never with
    the URL, which may contain a password. https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    if not Path(_config_file()).expanduser().is_file():
        return None
    from sidecar.storage.s3.session import new_session

    session = new_session()
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    profile = session.get_scoped_config()
    services = session.full_config.get("services", {}).get(profile.get("services"), {})
    found = {}
    for service in ("s3", "sts"):
        own = services.get(service)
        url = (own.get("endpoint_url") if isinstance(own, dict) else None) or profile.get("endpoint_url")
        found[service] = str(url).strip() if url else None
        require_endpoint(f"endpoint_url in {_config_file()}", found[service] or "")
    return found["s3"]


def require_configuration(session: Any) -> None:
    """Read all of the SDK's settings and files. Raises `ConfigurationError` for the first one that is wrong."""
    for variable in _FILES:
        _require_readable(variable, read_environ().get(variable))
    try:
        for name in BOTOCORE_DEFAUT_SESSION_VARIABLES:
            _require_value(name, session.get_config_variable(name))
    except ValueError as error:
        raise ConfigurationError(f"{_origin(name)} is not a number: {error}", "correct it, or leave it out") from error
    except boto.BotoCoreError as error:
        raise explain(error) or error from error
    _require_certificates(session)


def explain(error: BaseException) -> SidecarError | None:
    """Translate an error of the SDK that is about its configuration or credentials. None for any other error."""
    if isinstance(error, boto.CredentialRetrievalError):
        return _of_provider(error)
    if isinstance(error, _NO_CREDENTIALS):
        return AccessDenied(
            f"no credentials: {error}{_missing_files()}",
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_ROLE_ARN with AWS_WEB_IDENTITY_TOKEN_FILE",
        )
    if isinstance(error, JSONDecodeError):  # S3 speaks XML
        return AccessDenied(
            "the command of credential_process does not print JSON", _PROCESS_HINT.format(_config_file())
        )
    if isinstance(error, OSError) and error.filename and not isinstance(error, ConnectionError):
        return ConfigurationError(
            f"the SDK cannot use {error.filename}: {error.strerror}",
            f"it is named by an AWS_* variable or by the profile in {_config_file()}",
        )
    if not isinstance(error, boto.BotoCoreError) or isinstance(error, _NETWORK):
        return None
    if subject := next((name for kind, name in _SUBJECTS.items() if isinstance(error, kind)), None):
        return ConfigurationError(f"{_origin(subject)}: {error}{_missing_files()}", "correct it, or leave it out")
    return ConfigurationError(
        f"the SDK's configuration is wrong: {error}", f"check the AWS_* variables, and the profile in {_config_file()}"
    )


def _of_provider(error: Any) -> SidecarError:
    """The error for a credential provider that failed: a command configured on this machine, or a service, which may recover."""
    words = " ".join(str(error).split())
    if error.kwargs.get("provider") == PROCESS:
        return AccessDenied(words, _PROCESS_HINT.format(_config_file()))
    return TokenUnavailable(words, "sidecar tries again; check the AWS_CONTAINER_* variables")


def _require_value(name: str, value: object) -> None:
    allowed = _CHOICES.get(name)
    if allowed and str(value).lower() not in allowed:
        raise ConfigurationError(f"{_origin(name)}: {value!r} is not one of {', '.join(allowed)}", "correct it")


def _require_readable(variable: str, path: str | None) -> None:
    """Refuse a file that cannot be read: the SDK would treat it as empty. A missing file may be intended."""
    try:
        with open(os.path.expanduser(path), "rb") if path else open(os.devnull, "rb") as file:
            file.read(1)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigurationError(f"{variable}: {path} cannot be read: {error.strerror}", "correct it") from error


def _require_certificates(session: Any) -> None:
    name, path = "AWS_CA_BUNDLE", session.get_config_variable("ca_bundle")
    if path is None:
        name, path = "REQUESTS_CA_BUNDLE", os.environ.get("REQUESTS_CA_BUNDLE")
    elif not read_environ().get(name):
        name = f"ca_bundle in {_config_file()}"
    if not path:
        return
    try:
        if Path(path).is_dir():
            raise IsADirectoryError(0, "it is a directory")
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(path)
    except OSError as error:  # ssl.SSLError is one
        reason = "it contains no certificate in PEM format" if isinstance(error, ssl.SSLError) else error.strerror
        raise ConfigurationError(
            f"{name}: {path} cannot be used: {reason}", "name a file with the CA certificates in PEM format"
        ) from error


def _origin(name: str) -> str:
    """Where a setting of the SDK comes from: the variable that is set, else the key in the config file."""
    keys, variables, *_ = {**DEFAULT_S3_CONFIG_VARS, **BOTOCORE_DEFAUT_SESSION_VARIABLES}[name]
    environ = read_environ()
    names = [variables] if isinstance(variables, str) else variables or []
    if found := next((each for each in names if each in environ), None):
        return found
    return f"{keys if isinstance(keys, str) else name} in {_config_file()}"


def _config_file() -> str:
    return read_environ().get("AWS_CONFIG_FILE", "~/.aws/config")


def _missing_files() -> str:
    named = {name: read_environ().get(name) for name in _FILES}
    missing = [f"{name} names {path}" for name, path in named.items() if path and not Path(path).expanduser().exists()]
    return f"; {' and '.join(missing)}, which does not exist" if missing else ""


def require_proxy(endpoint: str) -> None:
    """Raise `ConfigurationError` if the proxy for this URL is not an HTTP proxy. The error omits its URL, which may have a password.

    The SDK and aiohttp only support HTTP proxies, from the variables for the URL's scheme; all requests would fail and be retried.
    """
    scheme = endpoint.partition(":")[0]
    proxy = get_environ_proxies(endpoint).get(scheme)
    if not proxy:
        return
    try:
        parts = urlsplit(proxy if "://" in proxy else f"http://{proxy.removeprefix('//')}")
        valid = parts.scheme in {"http", "https"} and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid:
        name = next((name for name in os.environ if name.lower() == f"{scheme}_proxy"), f"{scheme}_proxy")
        raise ConfigurationError(
            f"{name} is not the URL of an HTTP proxy",
            "it looks like http://proxy.example.com:3128; NO_PROXY lists the hosts that are reached without it",
        )


def unreachable_hint(error: BaseException) -> str:
    """What to check if a store cannot be reached because of this error."""
    if isinstance(error, boto.SSLError):
        return "check AWS_CA_BUNDLE, the certificate of the endpoint, and this machine's clock"
    proxies = sorted(name for name in os.environ if name.upper() in _PROXIES and os.environ[name])
    return f"check the network and {', '.join(('AWS_ENDPOINT_URL_S3', *proxies))}"
