"""The S3 server, and what it says was asked of it.

Bytes on the wire and requests are the server's own counters (its Prometheus metrics), read before and after: exact,
per bucket, the same for every tool, and without anything in between that would slow the transfer down. Bytes are the
bodies that went over the connection, headers and TCP left out; what the server copies by itself is none. `sent` and
`received` are as the client sees them. SeaweedFS counts a HEAD as a GET, which S3 prices alike.

The server runs on the same machine: its CPU competes with whoever is measured, and its disk is the same disk.
"""

import re
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from tests.benchmarks.measure import Values
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.seaweed import Seaweed

# S3 Standard, us-east-1, in dollars for one request; deleting is free.
PRICES = {"PUT": 5e-6, "POST": 5e-6, "COPY": 5e-6, "LIST": 5e-6, "GET": 0.4e-6, "HEAD": 0.4e-6, "DELETE": 0.0}

_SAMPLE = re.compile(r"^SeaweedFS_s3_(\w+)\{([^}]*)\} ([-+.\de]+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')
_BYTES = {"bucket_traffic_received_bytes_total": "sent", "bucket_traffic_sent_bytes_total": "received"}
_SETTLE = 0.05


class Server:
    """One SeaweedFS with its metrics; a context manager."""

    def __init__(self, directory: Path) -> None:
        self._metrics_port = free_port()
        directory.mkdir(parents=True)
        options = f"metricsPort={self._metrics_port}\nmetricsIp={LOOPBACK}\n"
        (directory / "mini.options").write_text(options)  # where `weed mini` looks for what its command line lacks
        self.seaweed = Seaweed(directory)

    def __enter__(self) -> Self:
        self.seaweed.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.seaweed.kill()

    @contextmanager
    def metered(self, bucket: str, into: Values) -> Iterator[None]:
        """Add to `into` what was transferred and asked in between, and the requests' price."""
        before = self._settled(bucket)
        yield
        after = self._settled(bucket)
        spent = {name: value - before.get(name, 0.0) for name, value in after.items() if value != before.get(name)}
        into.update({"sent": 0.0, "received": 0.0, "requests": 0.0, "price": 0.0})
        for name, value in spent.items():
            into[name] = value
            if name.startswith("requests."):
                into["requests"] += value
                into["price"] += value * PRICES.get(name.removeprefix("requests."), PRICES["PUT"])

    def copy(self, bucket: str, key: str, *, part: int = 64 << 20, at_once: int = 4) -> tuple[int, float]:
        """How much the store copies, by parts, in how many seconds: the floor of any publish that reuses an object."""
        raw = self.seaweed.s3.raw
        size = raw.head_object(Bucket=bucket, Key=key)["ContentLength"]
        target = f"{key}.copy"
        upload = raw.create_multipart_upload(Bucket=bucket, Key=target)["UploadId"]

        def one(number: int) -> dict[str, Any]:
            first = (number - 1) * part
            span = f"bytes={first}-{min(first + part, size) - 1}"
            source = {"Bucket": bucket, "Key": key}
            reply = raw.upload_part_copy(
                Bucket=bucket, Key=target, UploadId=upload, PartNumber=number, CopySource=source, CopySourceRange=span
            )
            return {"PartNumber": number, "ETag": reply["CopyPartResult"]["ETag"]}

        started = time.monotonic()
        with ThreadPoolExecutor(at_once) as pool:
            parts = list(pool.map(one, range(1, -(-size // part) + 1)))
        raw.complete_multipart_upload(Bucket=bucket, Key=target, UploadId=upload, MultipartUpload={"Parts": parts})
        seconds = time.monotonic() - started
        self.seaweed.s3.delete(bucket, target)
        return size, seconds

    def _settled(self, bucket: str) -> Values:
        """The counters once they stand still: a request is counted a moment after it was answered."""
        counters = self._counters(bucket)
        while True:
            time.sleep(_SETTLE)
            again = self._counters(bucket)
            if again == counters:
                return again
            counters = again

    def _counters(self, bucket: str) -> Values:
        with urllib.request.urlopen(f"http://{LOOPBACK}:{self._metrics_port}/metrics", timeout=10) as reply:
            text = reply.read().decode()
        counters: Values = {}
        for name, labelled, value in _SAMPLE.findall(text):
            labels = dict(_LABEL.findall(labelled))
            if labels.get("bucket") != bucket:
                continue
            if name in _BYTES:
                counters[_BYTES[name]] = float(value)
            elif name == "request_total":
                kind = f"requests.{labels['type']}"
                counters[kind] = counters.get(kind, 0.0) + float(value)
        return counters
