"""A receiver of webhooks and heartbeats: a real HTTP server whose replies the test chooses."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.harness.eventually import eventually
from tests.harness.ports import LOOPBACK

SECRET = "T0P-S3CRET"


class Receiver:
    """What a receiver was sent, and `status`, its reply. While it is `slow`, replies wait for `released`."""

    def __init__(self, port: int) -> None:
        self.url = f"http://{LOOPBACK}:{port}/services/{SECRET}"
        self.status = 200
        self.slow = False
        self.released = threading.Event()
        self.calls = 0
        self.posts: list[dict[str, Any]] = []
        self.gets: list[str] = []

    def kinds(self) -> list[str]:
        """The kinds of the delivered events, in order."""
        return [str(each["kind"]) for each in self.posts]

    def wait(self, condition: "Callable[[Receiver], object]", timeout: float = 30.0) -> None:
        """Wait until the condition is true."""
        eventually(lambda: condition(self), timeout, f"not with {self.posts} and {len(self.gets)} beats")


@contextmanager
def receiving() -> Iterator[Receiver]:
    """A receiver on a free port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(receiver.gets, self.path)

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._answer(receiver.posts, json.loads(body))

        def _answer(self, kept: list[Any], content: object) -> None:
            """Keep the content before replying: the test may check as soon as the sender has the reply."""
            receiver.calls += 1
            if receiver.slow:
                receiver.released.wait(30)
            try:
                self.send_response(receiver.status)
                if receiver.status == 302:
                    self.send_header("Location", f"http://{LOOPBACK}:{server.server_port}/elsewhere")
                self.send_header("Content-Length", "0")
                if receiver.status < 300:
                    kept.append(content)
                self.end_headers()
            except OSError:
                if content in kept:
                    kept.remove(content)

        def log_message(self, *_: object) -> None:
            """Suppress the access log."""

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        receiver = Receiver(server.server_port)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield receiver
        finally:
            receiver.released.set()
            server.shutdown()
            thread.join()
