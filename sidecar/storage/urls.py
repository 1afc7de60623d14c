"""URLs as people write them: whether they are HTTP, and how to show them without a password."""

import re
from urllib.parse import urlsplit

from sidecar.errors import ConfigurationError

# The second form: secret keys may contain slashes and begin like a port. Only with a query after it is it certainly a port.
_USER = re.compile(r"(?<=://)(?:[^/]*@|[^/:]*:(?!\d+/[^@]*\?).*@)")


def without_password(url: str) -> str:
    """A URL that can be shown: user and password are replaced."""
    return _USER.sub("***@", url)


def is_http(url: str) -> bool:
    """Whether this is a URL of an HTTP server, with a host in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)


def require_endpoint(name: str, url: str) -> None:
    """Raise `ConfigurationError`, with the name of the setting, unless a URL is empty or that of an S3 or STS server."""
    if url and (fault := _endpoint_fault(url)):
        raise ConfigurationError(
            f"{name} is not a URL of a server: {fault}", "it looks like https://s3.example.com or http://[::1]:8333"
        )


def _endpoint_fault(url: str) -> str | None:
    """Why a URL is not that of an S3 or STS server, without showing it: it may contain a password. None if it is valid."""
    if re.search(r"\s|[\x00-\x1f\x7f]", url):
        return "it contains white space"
    if not re.match(r"https?://", url, re.IGNORECASE):
        return "it does not begin with http:// or https://"
    try:
        parts = urlsplit(url)
        host = parts.netloc.rpartition("@")[2]
        if host.count(":") > 1 and not host.startswith("["):
            return "an IPv6 address needs brackets, as in http://[::1]:8333"
        number = parts.port
    except ValueError:
        return "its port is not a number from 1 to 65535, or its host is not valid"
    if "@" in parts.netloc or "@" in url:
        return "it contains a user or a password, which the SDK does not send: use the AWS_* variables of credentials"
    if not parts.hostname:
        return "it has no host"
    if number == 0:
        return "its port is not a number from 1 to 65535"
    if "?" in url or "#" in url:
        return "it has a query or a fragment"
    return None
