"""The sockets that the daemon listens on. Binding them does not need the HTTP server, which may be loaded later; see `server`."""

import errno
import os
import socket
from contextlib import ExitStack
from pathlib import Path

import anyio

from sidecar.errors import ConfigurationError

WAITING_CLIENTS = 128  # as aiohttp has it


async def listen(host: str, port: int) -> list[socket.socket]:
    """Listen on every address of the host. Raises `ConfigurationError` when that is not possible."""
    try:
        found = ((kind, address) for kind, *_, address in await _addresses(host, port))
        return _listen_on(list(dict.fromkeys(found)))  # /etc/hosts may give a name the same address twice
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host}:{port}: {error.strerror or error}", "set `listen` to a free port, or to off"
        ) from error


def listen_privately(path: Path) -> socket.socket:
    """Listen on a unix socket that only its owner can reach. Raises `ConfigurationError`."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_uid != os.getuid():
            raise ConfigurationError(f"{path.parent} belongs to another user", "set control_socket to another path")
        path.unlink(missing_ok=True)
        bound = _listen_on([(socket.AF_UNIX, str(path))])[0]
        path.chmod(0o600)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on the control socket {path}: {error}", "set control_socket to a short path, or to off"
        ) from error
    return bound


async def _addresses(host: str, port: int) -> list[tuple[socket.AddressFamily, int, int, str, tuple[object, ...]]]:
    numeric = socket.AI_PASSIVE | socket.AI_NUMERICHOST
    try:
        return [*socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=numeric)]
    except socket.gaierror:  # a name: asking for it may take a while
        return [*await anyio.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)]


def _listen_on(addresses: list[tuple[socket.AddressFamily, object]]) -> list[socket.socket]:
    """Listen on all addresses, but for those of a name that this machine does not have. Raises OSError."""
    sockets, missing = [], None
    with ExitStack() as stack:
        for family, address in addresses:
            try:
                sockets.append(stack.enter_context(_listening(family, address)))
            except OSError as error:
                if error.errno != errno.EADDRNOTAVAIL:
                    raise
                missing = error
        if missing and not sockets:
            raise missing
        stack.pop_all()
    return sockets


def _listening(family: socket.AddressFamily, address: object) -> socket.socket:
    with ExitStack() as stack:
        bound = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
        bound.setblocking(False)
        if family != socket.AF_UNIX:
            bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        bound.bind(address)  # type: ignore[arg-type]
        bound.listen(WAITING_CLIENTS)
        stack.pop_all()
    return bound
