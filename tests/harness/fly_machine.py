"""A stand-in for a fly.io machine: the Unix socket that issues tokens, and the issuer's public keys.

Tokens are real: RS256, with the claims of https://fly.io/docs/security/openid-connect/; they can be
verified with the issuer's key set, which is served over plain HTTP on the loopback interface.
"""

import base64
import contextlib
import json
import socket
import tempfile
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from tests.harness.ports import LOOPBACK, free_port

ORGANIZATION = "acme"
APP = "shop"
AUDIENCE = "sts.amazonaws.com"
ISSUER = f"https://oidc.fly.io/{ORGANIZATION}"


class Key:
    """A signing key of an issuer."""

    def __init__(self) -> None:
        self.id = uuid.uuid4().hex[:8]
        self._private = rsa.generate_private_key(public_exponent=65537, key_size=2048)

    def public(self) -> dict[str, str]:
        """The public half as a JWK (RFC 7517)."""
        numbers = self._private.public_key().public_numbers()
        return {
            "kty": "RSA",
            "use": "sig",
            "alg": "RS256",
            "kid": self.id,
            "n": _base64(numbers.n.to_bytes(256)),
            "e": _base64(numbers.e.to_bytes(3)),
        }

    def sign(self, claims: dict[str, object]) -> str:
        """A JWT with these claims (RFC 7515, compact form)."""
        head = {"alg": "RS256", "typ": "JWT", "kid": self.id}
        signed = f"{_base64(json.dumps(head).encode())}.{_base64(json.dumps(claims).encode())}"
        return f"{signed}.{_base64(self._private.sign(signed.encode(), padding.PKCS1v15(), hashes.SHA256()))}"


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply of the socket instead of a token, after `hang` seconds."""

    status: int = 200
    body: str = ""
    content_type: str = "text/plain"
    hang: float = 0.0


class Issuer:
    """The issuer that signs the tokens of an organization's machines; serves its key set. A context manager."""

    def __init__(self, url: str = ISSUER) -> None:
        self.url = url
        self.key = Key()
        self._keys = [self.key]
        self._port = free_port()
        self._server = _Served(lambda: ThreadingHTTPServer((LOOPBACK, self._port), _handler(self._answer)))

    @property
    def keys_url(self) -> str:
        """The URL of the public keys."""
        return f"http://{LOOPBACK}:{self._port}/.well-known/jwks"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()

    def token(self, *, app: str = APP, audience: str = AUDIENCE, lifetime: float = 600.0, **changed: object) -> str:
        """A token of an app's machine; `lifetime` in seconds, negative for an expired one."""
        now = int(time.time())
        claims: dict[str, object] = {
            "iss": self.url,
            "sub": f"{ORGANIZATION}:{app}:winter-sun-7421",
            "aud": audience,
            "exp": now + int(lifetime),
            "iat": now - 5,
            "nbf": now - 5,
            "jti": uuid.uuid4().hex,
            "app_id": "1923476",
            "app_name": app,
            "image": f"registry.fly.io/{app}:deployment-01",
            "machine_id": "d8d9376b0de948",
            "machine_name": "winter-sun-7421",
            "machine_version": "01HJ9X2KQ",
            "org_id": "1",
            "org_name": ORGANIZATION,
            "region": "ams",
        }
        return self.key.sign({**claims, **changed})

    def rotate(self, *, publish: bool = True) -> None:
        """Sign with a new key from now on. The old key stays published, so that its tokens can still be verified."""
        self.key = Key()
        if publish:
            self._keys = [self.key, *self._keys]

    def publish(self) -> None:
        """Publish only the current key."""
        self._keys = [self.key]

    def _answer(self, _handler: BaseHTTPRequestHandler) -> Reply:
        return Reply(body=json.dumps({"keys": [key.public() for key in self._keys]}), content_type="application/json")


class FlyMachine:
    """The API of one machine, at `socket`. A context manager.

    `minted` counts the tokens that it issued; `reply`, when set, is sent instead of a token.
    """

    def __init__(self, issuer: Issuer, *, app: str = APP) -> None:
        self.app = app
        self.reply: Reply | None = None
        self.minted = 0
        self._issuer = issuer
        self._directory = tempfile.TemporaryDirectory(prefix="fly-")  # short: sun_path has 108 bytes
        self.socket = Path(self._directory.name, "api")
        self._server = _Served(lambda: _UnixServer(self.socket, _handler(self._answer)))

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.stop()
        self._directory.cleanup()

    def _answer(self, handler: BaseHTTPRequestHandler) -> Reply:
        body = handler.rfile.read(int(handler.headers.get("Content-Length", "0")))
        if self.reply:
            return self.reply
        if (handler.command, handler.path) != ("POST", "/v1/tokens/oidc"):
            return Reply(404, "404 page not found")
        self.minted += 1
        return Reply(body=self._issuer.token(app=self.app, audience=json.loads(body)["aud"]))


class _Served:
    """A server in a thread."""

    def __init__(self, make: Callable[[], ThreadingHTTPServer]) -> None:
        self._make = make
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        self._server = self._make()
        self._server.daemon_threads = True
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        if self._server:
            self._server.shutdown()
            self._server.server_close()
            self._server = None


def _handler(answer: Callable[[BaseHTTPRequestHandler], Reply]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            reply = answer(self)
            time.sleep(reply.hang)
            with contextlib.suppress(OSError):
                self.send_response(reply.status)
                self.send_header("Content-Type", reply.content_type)
                self.send_header("Content-Length", str(len(reply.body.encode())))
                self.end_headers()
                self.wfile.write(reply.body.encode())

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            """Suppress the access log."""

    return Handler


class _UnixServer(ThreadingHTTPServer):
    """HTTP over a Unix socket that only its owner can open, as only root can open fly.io's."""

    address_family = socket.AF_UNIX

    def __init__(self, path: Path, handler: type[BaseHTTPRequestHandler]) -> None:
        self._path = path
        super().__init__(("", 0), handler)

    def server_bind(self) -> None:
        self.socket.bind(str(self._path))
        self._path.chmod(0o600)
        self.server_name, self.server_port = "localhost", 0

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, _ = self.socket.accept()
        return connection, ("machine", 0)


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
