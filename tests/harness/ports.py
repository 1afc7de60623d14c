"""Free TCP ports of the loopback interface that stay free while a test restarts a server."""

import os
import random
import socket

LOOPBACK = "127.0.0.1"

# Below every platform's ephemeral range: an outgoing connection cannot take the port while its server is down.
_LOWEST, _HIGHEST = 11_000, 32_000
_given: set[int] = set()
_random = random.SystemRandom()  # a test that seeds the global generator would get the same ports again

# Tests run in several processes at once (pytest-xdist): each has a share of the ports.
_WORKERS = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))


def free_port(highest: int = _HIGHEST) -> int:
    """A port on which nothing listens; this process never returns one twice."""
    share = (highest - _LOWEST) // _WORKERS
    for _ in range(1000):
        port = _LOWEST + _WORKER * share + _random.randrange(share)
        if port not in _given and _is_free(port):
            _given.add(port)
            return port
    raise RuntimeError(f"no free TCP port between {_LOWEST} and {highest}")


def free_ports(count: int) -> list[int]:
    """`count` different free ports."""
    return [free_port() for _ in range(count)]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True
