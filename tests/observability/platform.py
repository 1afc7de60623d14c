"""What a platform or a later daemon adds to a scrape: an endpoint of fixed samples, and the labels of fly.io."""

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.harness.ports import LOOPBACK

FLY = {"app": "shop", "region": "ams", "instance": "148e1234567890"}


@contextmanager
def exporter(text: str) -> Iterator[int]:
    """The port of a /metrics that always says this."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(text.encode())))
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()
