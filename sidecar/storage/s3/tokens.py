"""Web-identity tokens: from a file that the platform keeps up to date, or issued by fly.io's machine API.

fly.io: https://fly.io/docs/security/openid-connect/. The socket belongs to root, and replies with the raw JWT. If
AWS_ROLE_ARN is in the environment, the machine's init also writes a token to a file, some time after the start and then
every few minutes. The file may be absent and, as it is not documented to be replaced atomically, empty or incomplete for a
moment.

Nothing is verified here, because the security token service does that. The claims of a token are for logs and errors.
"""

import base64
import errno
import json
import os
from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp

from sidecar.errors import AccessDenied, ConfigurationError, SidecarError, TokenUnavailable
from sidecar.host import Clock
from sidecar.model import Token

AUDIENCE = "sts.amazonaws.com"
URL = "http://localhost/v1/tokens/oidc"
API_TIMEOUT = aiohttp.ClientTimeout(total=5)
LIMIT = 64 << 10
PATIENCE = 1.0  # seconds for one read; the caller retries, and so knows the reason when its time is up
POLL = 0.1


class TokenFile:
    """Implements `base.TokenSource` with the file that AWS_WEB_IDENTITY_TOKEN_FILE names."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self.name = f"token file {path}"
        self._path = path
        self._clock = clock

    async def read(self) -> Token:
        """See `base.TokenSource`. Waits a second for a file that is absent or incomplete."""
        deadline = self._clock.monotonic() + PATIENCE
        while True:
            try:
                return self._read()
            except TokenUnavailable:
                if self._clock.monotonic() >= deadline:
                    raise
            await self._clock.sleep(POLL)

    def _read(self) -> Token:
        try:
            with open(self._path, "rb", opener=_without_waiting) as file:
                data = file.read(LIMIT) or b""
        except FileNotFoundError as error:
            raise TokenUnavailable(
                f"the {self.name} does not exist", "the platform writes it; check AWS_WEB_IDENTITY_TOKEN_FILE"
            ) from error
        except OSError as error:
            raise ConfigurationError(
                f"the {self.name} cannot be read: {error.strerror}", "check AWS_WEB_IDENTITY_TOKEN_FILE and its mode"
            ) from error
        token = decode(data)
        if token is None:
            what = f"holds {len(data)} bytes that are not a complete token" if data.strip() else "is empty"
            raise TokenUnavailable(f"the {self.name} {what}", "sidecar reads it again; the platform should rewrite it")
        return token


class MachineApi:
    """Implements `base.TokenSource` with fly.io's machine API, which issues a new token for each read."""

    def __init__(self, socket: Path) -> None:
        self.name = f"socket {socket}"
        self._socket = socket

    async def read(self) -> Token:
        """See `base.TokenSource`."""
        try:
            status, kind, body = await self._ask()
        except aiohttp.ClientConnectorError as error:
            raise self._unreachable(error.os_error) from error
        except (aiohttp.ClientError, OSError, ValueError) as error:  # TimeoutError is an OSError
            words = "no answer in time" if isinstance(error, TimeoutError) else type(error).__name__
            raise TokenUnavailable(
                f"the {self.name} gives no token: {words}", "check that fly_api_socket is fly.io's machine API"
            ) from error
        if status != 200:
            raise self._refused(status)
        token = decode(body)
        if token is None and not body.strip():
            raise TokenUnavailable(f"the {self.name} sends an empty answer", "sidecar tries again")
        if token is None:
            raise ConfigurationError(
                f"the {self.name} answers with something other than a token ({kind}, {len(body)} bytes)",
                "fly_api_socket must be fly.io's machine API",
            )
        return token

    async def _ask(self) -> tuple[int, str, bytes]:
        connector = aiohttp.UnixConnector(str(self._socket))
        async with (
            aiohttp.ClientSession(connector=connector, timeout=API_TIMEOUT) as session,
            session.post(URL, json={"aud": AUDIENCE}, allow_redirects=False) as reply,
        ):
            body = b""
            while len(body) < LIMIT and (more := await reply.content.read(LIMIT - len(body))):
                body += more
            return reply.status, reply.content_type, body

    def _unreachable(self, error: OSError) -> SidecarError:
        if error.errno == errno.ECONNREFUSED:
            return TokenUnavailable(f"no process listens on the {self.name}", "check that this is a fly.io machine")
        if error.errno in {errno.EACCES, errno.EPERM}:
            return ConfigurationError(
                f"the {self.name} cannot be used by this user: {error.strerror}",
                "run sidecar as root, and the app with app_user; or use AWS_WEB_IDENTITY_TOKEN_FILE",
            )
        return ConfigurationError(
            f"the {self.name} cannot be reached: {error.strerror}",
            "on fly.io correct fly_api_socket, elsewhere set AWS_WEB_IDENTITY_TOKEN_FILE",
        )

    def _refused(self, status: int) -> SidecarError:
        if status >= 500 or status == 429:
            return TokenUnavailable(f"the {self.name} answers with status {status}", "sidecar tries again")
        if status in {401, 403}:
            return AccessDenied(
                f"the {self.name} gives this machine no token (status {status})", "ask fly.io's support"
            )
        return ConfigurationError(
            f"the {self.name} answers with status {status}", "fly_api_socket must be fly.io's machine API"
        )


def _without_waiting(path: str, flags: int) -> int:
    """Open without waiting: if the file is a pipe, opening it must not block until a process writes to it."""
    return os.open(path, flags | os.O_NONBLOCK)


def decode(data: bytes) -> Token | None:
    """The claims of a JWT, unverified; None for anything that is not a complete JWT."""
    with suppress(ValueError, TypeError, OverflowError, OSError, RecursionError):
        text = data.decode("ascii").strip()
        head, payload, signature = text.split(".")
        claims = _object(payload)
        if _object(head).get("alg") and len(signature) >= 16 and _bytes(signature):
            expires = claims.get("exp")
            audience = claims.get("aud", "")
            return Token(
                text,
                issuer=str(claims.get("iss", "")),
                audience=" ".join(map(str, audience)) if isinstance(audience, list) else str(audience),
                subject=str(claims.get("sub", "")),
                expires=None if expires is None else datetime.fromtimestamp(float(expires), UTC),
            )
    return None


def _object(part: str) -> Mapping[str, Any]:
    value = json.loads(_bytes(part))
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - one type of error for anything that is not a token
    return value


def _bytes(part: str) -> bytes:
    return base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True)
