"""A standard error that nobody reads: writing to it returns, what does not fit is counted, and nothing else is lost."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress

import pytest

from sidecar.host.stderr import QueuedStream
from tests.harness.eventually import eventually

LINE = "x" * 99 + "\n"


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reading, writing = os.pipe()
    yield reading, writing
    for end in (reading, writing):
        with suppress(OSError):
            os.close(end)


def read_all(descriptor: int, size: int) -> bytes:
    """Read so many bytes; a test that waits for more than was written runs into the suite's timeout."""
    found = b""
    while len(found) < size:
        found += os.read(descriptor, size - len(found))
    return found


def test_a_reader_gets_every_line_in_order(pipe: tuple[int, int]) -> None:
    stream = QueuedStream(pipe[1])
    lines = "".join(f"line {number}\n" for number in range(200))
    for line in lines.splitlines(keepends=True):
        print(line, end="", file=stream, flush=True)
    assert read_all(pipe[0], len(lines)).decode() == lines
    assert stream.drain(5)
    assert stream.dropped == 0


def fill(stream: QueuedStream) -> int:
    """Write until the pipe is full, and then more than the queue holds. Returns the number of lines that were taken."""
    written = 0
    while stream.drain(0.2):
        for _ in range(50):
            stream.write(LINE)
        written += 50
    for _ in range(300):
        stream.write(LINE)
    return written + 300 - stream.dropped


def test_without_a_reader_lines_are_dropped_and_counted_and_nobody_waits(pipe: tuple[int, int]) -> None:
    """Were the writing thread ours, this would never return."""
    stream = QueuedStream(pipe[1], limit=10_000)
    done: list[int] = []
    filling = threading.Thread(target=lambda: done.append(fill(stream)), daemon=True)
    filling.start()
    filling.join(30)
    assert done
    assert stream.dropped >= 200
    assert not stream.drain(0.05)
    assert read_all(pipe[0], done[0] * len(LINE)).decode() == LINE * done[0]


def test_when_it_flows_again_the_number_of_dropped_lines_is_reported_once(pipe: tuple[int, int]) -> None:
    stream = QueuedStream(pipe[1], limit=10_000)
    reported: list[int] = []
    stream.on_resumed = reported.append
    read_all(pipe[0], fill(stream) * len(LINE))
    eventually(lambda: reported == [stream.dropped], timeout=5)
    stream.write("on again\n")
    assert read_all(pipe[0], 9) == b"on again\n"
    assert stream.drain(5)
    assert reported == [stream.dropped]


def test_a_reader_that_has_gone_stops_nothing(pipe: tuple[int, int]) -> None:
    os.close(pipe[0])
    stream = QueuedStream(pipe[1])
    stream.write(LINE)
    stream.write(LINE)
    assert stream.drain(5)


def test_characters_that_the_encoding_lacks_are_escaped(pipe: tuple[int, int]) -> None:
    stream = QueuedStream(pipe[1], "ascii")
    stream.write("grün\ud800\n")
    assert read_all(pipe[0], len(b"gr\\xfcn\\ud800\n")) == b"gr\\xfcn\\ud800\n"
