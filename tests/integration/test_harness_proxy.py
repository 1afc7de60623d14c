"""Each fault of the proxy as a real S3 client sees it."""

import contextlib
import gc
import http.client
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionClosedError,
    EndpointConnectionError,
    IncompleteReadError,
    ResponseStreamingError,
)

from tests.harness.ports import LOOPBACK
from tests.harness.proxy import (
    SLOW_DOWN,
    DropReply,
    FaultProxy,
    Pass,
    Refuse,
    ResetMidBody,
    Stall,
    Throttle,
    TruncateReply,
)
from tests.harness.s3client import S3Client, s3_client
from tests.harness.seaweed import ADMIN, Seaweed

MEGABYTE = bytes(range(256)) * 4096


@pytest.fixture
def through(proxy: FaultProxy) -> Iterator[S3Client]:
    """A real S3 client behind the proxy."""
    with S3Client(proxy.endpoint, *ADMIN) as client:
        yield client


def error_code(call: Callable[[], object]) -> str:
    """The S3 error code that `call` ends in."""
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def test_proxy_passes_many_requests_over_one_connection(proxy: FaultProxy, through: S3Client, bucket: str) -> None:
    through.put(bucket, "key", MEGABYTE)
    through.put(bucket, "key", b"")
    through.put(bucket, "key", MEGABYTE)
    assert through.get(bucket, "key") == MEGABYTE
    assert through.head(bucket, "key") is not None
    assert through.head(bucket, "other") is None
    assert through.keys(bucket) == ["key"]
    through.delete(bucket, "key")
    assert [(method, outcome) for method, _, outcome in proxy.log] == [
        *[("PUT", "200")] * 3,
        *[("GET", "200"), ("HEAD", "200"), ("HEAD", "404"), ("GET", "200"), ("DELETE", "204")],
    ]
    assert [seen.path for seen in proxy.seen("DELETE")] == [f"/{bucket}/key"]
    assert len(proxy.seen("GET", query_contains="list-type=2")) == 1


def test_proxy_passes_checksums_and_refused_conditions(proxy: FaultProxy, through: S3Client, bucket: str) -> None:
    through.raw.put_object(Bucket=bucket, Key="key", Body=MEGABYTE, ChecksumAlgorithm="SHA256")
    assert error_code(lambda: through.put(bucket, "key", MEGABYTE, IfNoneMatch="*")) == "PreconditionFailed"
    assert through.get(bucket, "key") == MEGABYTE
    assert [outcome for _, _, outcome in proxy.log] == ["200", "412", "200"]


def test_proxy_passes_interim_replies(proxy: FaultProxy, bucket: str) -> None:
    """A client that waits for `100 Continue` gets it, also where a fault swallows the final reply."""
    proxy.rule(DropReply(), skip=1, times=1)
    with contextlib.closing(s3_client(proxy.endpoint, *ADMIN, timeout=5, expect=True)) as client:
        started = time.monotonic()
        client.put_object(Bucket=bucket, Key="key", Body=MEGABYTE)
        with pytest.raises(ConnectionClosedError):
            client.put_object(Bucket=bucket, Key="key", Body=MEGABYTE)
        assert time.monotonic() - started < 0.9, "the client gave up waiting"
    assert [seen.headers["expect"] for seen in proxy.seen("PUT")] == ["100-continue"] * 2


def test_answer_comes_before_a_body_that_waits(proxy: FaultProxy, bucket: str) -> None:
    proxy.rule(SLOW_DOWN, times=1)
    with contextlib.closing(s3_client(proxy.endpoint, *ADMIN, timeout=5, expect=True)) as client:
        assert error_code(lambda: client.put_object(Bucket=bucket, Key="key", Body=MEGABYTE)) == "SlowDown"
        client.put_object(Bucket=bucket, Key="key", Body=MEGABYTE)


@contextlib.contextmanager
def echo_server() -> Iterator[tuple[int, list[bytes]]]:
    """A server that takes two chunked requests and answers in chunks: its port, and what it got."""
    got: list[bytes] = []

    def serve() -> None:
        for _ in range(2):
            connection, _ = listener.accept()
            with connection, connection.makefile("rb") as stream:
                lines = iter(stream.readline, b"0\r\n")
                got.append(b"".join(lines).partition(b"\r\n\r\n")[2])
                assert stream.readline() == b"\r\n"
                connection.sendall(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n4;x=y\r\nfour\r\n"
                )
                connection.sendall(b"0\r\nX-Trailer: last\r\n\r\n")

    with socket.create_server((LOOPBACK, 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield listener.getsockname()[1], got
        thread.join()


def test_proxy_passes_chunked_requests_and_replies_over_one_connection() -> None:
    with (
        echo_server() as (port, got),
        FaultProxy(port) as proxy,
        contextlib.closing(http.client.HTTPConnection(LOOPBACK, proxy.port, timeout=5)) as connection,
    ):
        connection.connect()
        first = connection.sock
        for _ in range(2):
            connection.request("PUT", "/key", iter([b"one", b"three"]), encode_chunked=True)
            assert connection.getresponse().read() == b"onefour"
        assert connection.sock is first, "the connection was kept"
        assert got == [b"3\r\none\r\n5\r\nthree\r\n"] * 2


def test_rules_choose_requests(proxy: FaultProxy, through: S3Client, bucket: str) -> None:
    rule = proxy.rule(SLOW_DOWN, method="PUT", path_contains="/b", skip=1, times=2)
    through.put(bucket, "a", b"")
    through.put(bucket, "b", b"first")
    assert error_code(lambda: through.put(bucket, "b", b"second")) == "SlowDown"
    assert error_code(lambda: through.put(bucket, "b", MEGABYTE)) == "SlowDown"
    through.put(bucket, "b", b"third")
    assert rule.hits == 2
    assert [outcome for _, _, outcome in proxy.log] == ["200", "200", "Answer", "Answer", "200"]
    proxy.clear()
    assert proxy.log == []


def test_refused_request_never_reaches_the_server(
    proxy: FaultProxy, through: S3Client, seaweed: Seaweed, bucket: str
) -> None:
    proxy.rule(Refuse(), times=1)
    with pytest.raises(ConnectionClosedError):
        through.put(bucket, "key", b"value")
    assert seaweed.s3.keys(bucket) == []
    through.put(bucket, "key", b"value")


@pytest.mark.parametrize("fault", [Stall(60), Stall(60, after_bytes=100_000), Stall(60, direction="reply")])
def test_stalled_request_times_out(proxy: FaultProxy, through: S3Client, bucket: str, fault: Stall) -> None:
    proxy.rule(fault, times=1)
    with S3Client(proxy.endpoint, *ADMIN, timeout=0.3) as impatient, pytest.raises(BotoCoreError):
        impatient.put(bucket, "key", MEGABYTE)
    assert proxy.log == [("PUT", f"/{bucket}/key", "Stall")]
    through.put(bucket, "key", MEGABYTE)


def test_short_stall_only_delays(proxy: FaultProxy, through: S3Client, seaweed: Seaweed, bucket: str) -> None:
    seaweed.s3.put(bucket, "key", MEGABYTE)
    proxy.rule(Stall(0.2, after_bytes=1000), times=1)
    started = time.monotonic()
    assert through.get(bucket, "key") == MEGABYTE
    assert time.monotonic() - started >= 0.2


def test_reset_upload_leaves_nothing(proxy: FaultProxy, through: S3Client, seaweed: Seaweed, bucket: str) -> None:
    proxy.rule(ResetMidBody(after_bytes=100_000), times=1)
    with pytest.raises(BotoCoreError):
        through.put(bucket, "key", MEGABYTE)
    assert seaweed.s3.keys(bucket) == []


def test_reset_download_fails(proxy: FaultProxy, through: S3Client, seaweed: Seaweed, bucket: str) -> None:
    seaweed.s3.put(bucket, "key", MEGABYTE)
    proxy.rule(ResetMidBody(after_bytes=100_000), times=1)
    with pytest.raises((ConnectionClosedError, ResponseStreamingError)):
        through.get(bucket, "key")


def test_throttle_slows_both_directions(proxy: FaultProxy, through: S3Client, bucket: str) -> None:
    proxy.rule(Throttle(500_000))
    body = MEGABYTE[:100_000]
    for call in (lambda: through.put(bucket, "key", body), lambda: through.get(bucket, "key")):
        started = time.monotonic()
        call()
        assert time.monotonic() - started >= 0.15


def test_truncated_reply_is_noticed(proxy: FaultProxy, through: S3Client, seaweed: Seaweed, bucket: str) -> None:
    seaweed.s3.put(bucket, "key", MEGABYTE)
    proxy.rule(TruncateReply(after_bytes=1000), method="GET", times=1)
    with pytest.raises((IncompleteReadError, ResponseStreamingError)):
        through.get(bucket, "key")


def test_dropped_reply_leaves_the_work_done(
    proxy: FaultProxy, through: S3Client, seaweed: Seaweed, bucket: str
) -> None:
    """What makes a client's retry of a conditional write ambiguous."""
    proxy.rule(DropReply(), times=1)
    with pytest.raises(ConnectionClosedError):
        through.put(bucket, "key", b"value", IfNoneMatch="*")
    assert seaweed.s3.get(bucket, "key") == b"value"
    assert proxy.seen()[0].status == 200
    assert error_code(lambda: through.put(bucket, "key", b"value", IfNoneMatch="*")) == "PreconditionFailed"


def test_network_goes_down_and_comes_back(proxy: FaultProxy, through: S3Client, bucket: str) -> None:
    through.put(bucket, "key", b"value")
    proxy.down()
    with pytest.raises(EndpointConnectionError):
        through.get(bucket, "key")
    proxy.up()
    assert through.get(bucket, "key") == b"value"


@pytest.mark.parametrize("fault", [Pass(), Stall(60), Stall(60, direction="reply")])
def test_proxy_stops_in_the_middle_of_a_request(seaweed: Seaweed, fault: Pass | Stall) -> None:
    with FaultProxy(seaweed.port) as proxy, socket.create_connection((LOOPBACK, proxy.port)) as client:
        proxy.rule(fault)
        client.sendall(b"PUT /nowhere/key HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nten bytes.")
        proxy.wait_seen("PUT", count=1)
        proxy.stop()
        with pytest.raises(ConnectionError):
            socket.create_connection((LOOPBACK, proxy.port))


def test_stopping_leaves_no_connection_open_whenever_it_came(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those just accepted, whose task has not begun: the collector would complain in some later test."""
    complaints: list[str] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda found: complaints.append(repr(found.exc_value)))
    gc.collect()
    gc.freeze()  # the collector looks at what is new, not at the modules of all tests
    try:
        for _ in range(30):
            with FaultProxy(upstream_port=1) as proxy:
                clients = [socket.create_connection((LOOPBACK, proxy.port)) for _ in range(6)]
            for client in clients:
                client.close()
            del proxy
            gc.collect()
    finally:
        gc.unfreeze()
    assert not complaints
