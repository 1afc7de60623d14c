"""Plain parallel transfers of one object's bytes: what the way to the store allows, with so many connections at once.

    python tests/benchmarks/plain.py GET|PUT CONNECTIONS < PIECES

Each line of the input is a signed URL and the first and last byte to get or put. Nothing is decoded, checked or written. It
prints bytes and seconds, from before the first connection to after the last reply.
"""

import http.client
import queue
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

SCRIPT = Path(__file__).resolve()

_BUFFER = 1 << 20


def transfer(method: str, pieces: list[tuple[str, int, int]], connections: int) -> tuple[int, float]:
    """Get or put all pieces; returns bytes and seconds. Raises `RuntimeError` when the server refuses one."""
    waiting: queue.SimpleQueue[tuple[str, int, int]] = queue.SimpleQueue()
    for piece in pieces:
        waiting.put(piece)
    counts: list[int] = []
    started = time.monotonic()
    threads = [threading.Thread(target=_work, args=(method, waiting, counts)) for _ in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - started
    if len(counts) != len(pieces):
        raise RuntimeError(f"{len(pieces) - len(counts)} of {len(pieces)} pieces were not transferred")
    return sum(counts), seconds


def _work(method: str, waiting: "queue.SimpleQueue[tuple[str, int, int]]", counts: list[int]) -> None:
    buffer, connection = memoryview(bytearray(_BUFFER)), None
    while True:
        try:
            url, first, last = waiting.get_nowait()
        except queue.Empty:
            return
        split = urlsplit(url)
        connection = connection or http.client.HTTPConnection(split.netloc, timeout=120)
        body = bytes(last - first + 1) if method == "PUT" else None
        headers = {} if body else {"Range": f"bytes={first}-{last}"}
        connection.request(method, f"{split.path}?{split.query}", body, headers)
        reply = connection.getresponse()
        count = len(body or b"")
        while read := reply.readinto(buffer):
            count += read if body is None else 0
        if reply.status not in (200, 206):
            raise RuntimeError(f"{method} {url}: {reply.status}")
        counts.append(count)


if __name__ == "__main__":
    lines = [line.split() for line in sys.stdin]
    print(*transfer(sys.argv[1], [(url, int(first), int(last)) for url, first, last in lines], int(sys.argv[2])))
