"""URLs as people write them: which ones are HTTP, and how one is shown without the password in it."""

import re
from urllib.parse import urlsplit

# The second form: secret keys may have slashes, and begin like a port. Only a query after a port is known to be no key.
_USER = re.compile(r"(?<=://)(?:[^/]*@|[^/:]*:(?!\d+/[^@]*\?).*@)")


def without_password(url: str) -> str:
    """A URL that may be shown: user and password are replaced."""
    return _USER.sub("***@", url)


def is_http(url: str) -> bool:
    """Whether this is a URL of an HTTP server, with a host in it."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.hostname)
