"""The demo app as an app under load: clients that keep whatever was acknowledged."""

import http.client
import json
import sys
import threading
from typing import Any, Self

from tests.e2e.machine import Machine
from tests.harness.eventually import eventually
from tests.harness.ports import LOOPBACK
from tests.harness.sidecar_process import SidecarProcess

APP = (sys.executable, "-m", "sidecar.demo")
_ADDRESS = r"guestbook listening on http://127\.0\.0\.1:(\d+)"


def serve(machine: Machine, settings: dict[str, str], **guestbook: str) -> SidecarProcess:
    """The guestbook under `sidecar run` on this machine; keyword arguments are GUESTBOOK_ variables."""
    variables = {f"GUESTBOOK_{name.upper()}": value for name, value in guestbook.items()}
    env = {"GUESTBOOK_DB": str(machine.database), "GUESTBOOK_PORT": "0", **variables}
    return machine.run(*APP, env=env, **settings)


def port_of(process: SidecarProcess) -> int:
    """Where the guestbook listens, once it does."""
    return int(process.wait_for_log(_ADDRESS)[1])


def ask(port: int, method: str, path: str, document: object = None) -> tuple[int, Any]:
    """Status and JSON of one request."""
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=10)
    try:
        return _ask(connection, method, path, document)
    finally:
        connection.close()


def entries(port: int) -> dict[int, str]:
    """Every entry's id and message."""
    found: dict[int, str] = {}
    while True:
        status, answer = ask(port, "GET", f"/api/entries?limit=1000&after={max(found, default=0)}")
        assert status == 200, answer
        if not answer["entries"]:
            assert len(found) == answer["count"]
            return found
        found |= {entry["id"]: entry["message"] for entry in answer["entries"]}


class Load:
    """Clients that sign the guestbook over HTTP as fast as they are answered, until it goes away."""

    def __init__(self, port: int, clients: int = 4) -> None:
        self.acked: dict[int, str] = {}
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._sign, args=(number,)) for number in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(15)

    def wait_acked(self, more: int) -> None:
        """Return once this many more entries than now are acknowledged."""
        wanted = len(self.acked) + more
        eventually(lambda: len(self.acked) >= wanted, 30, f"{wanted} acknowledged entries")

    def _sign(self, client: int) -> None:
        connection = http.client.HTTPConnection(LOOPBACK, self._port, timeout=10)
        number = 0
        try:
            while not self._stop.is_set():
                number += 1
                message = f"client {client} writes {number}"
                status, entry = _ask(connection, "POST", "/api/entries", {"name": "é", "message": message})
                if status == 201:
                    self.acked[entry["id"]] = entry["message"]
        except (OSError, http.client.HTTPException):
            pass  # the app has gone, which is what the tests do to it
        finally:
            connection.close()


def _ask(connection: http.client.HTTPConnection, method: str, path: str, document: object) -> tuple[int, Any]:
    body = None if document is None else json.dumps(document)
    connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())
