"""A platform's part of a scrape: an endpoint with samples of its own, and the labels of fly.io."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from tests.harness.ports import LOOPBACK

FLY = {"app": "shop", "region": "ams", "instance": "148e1234567890"}


@dataclass
class Exporter:
    """A /metrics endpoint that returns `text`, which may be changed."""

    text: str
    port: int = 0


@contextmanager
def exporter(text: str = "") -> Iterator[Exporter]:
    """An endpoint that answers while the block runs."""
    exported = Exporter(text)

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = exported.text.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Suppress the access log."""

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        exported.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield exported
        finally:
            server.shutdown()
            thread.join()
