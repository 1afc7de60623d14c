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


def test_an_app_that_sets_o_nonblock_on_the_shared_pipe_costs_no_line(pipe: tuple[int, int]) -> None:
    """A write to a full pipe fails with EAGAIN then: it is waited for, not lost without being counted."""
    os.set_blocking(pipe[1], False)
    stream = QueuedStream(pipe[1])
    lines = "".join(f"{number:99}\n" for number in range(5000))  # seven times what a pipe holds
    for line in lines.splitlines(keepends=True):
        stream.write(line)
    assert not stream.drain(0.2)
    assert read_all(pipe[0], len(lines)).decode() == lines
    assert stream.drain(5)
    assert stream.dropped == 0


def test_a_bug_in_the_report_of_dropped_lines_does_not_end_the_output(pipe: tuple[int, int]) -> None:
    stream = QueuedStream(pipe[1], limit=10_000)
    called: list[int] = []

    def fail(lines: int) -> None:
        called.append(lines)
        raise ZeroDivisionError

    stream.on_resumed = fail
    read_all(pipe[0], fill(stream) * len(LINE))
    eventually(lambda: bool(called), timeout=5)
    stream.write("on again\n")
    assert stream.drain(5)


def test_no_thread_for_now_means_later_output_not_an_error(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The system may be out of threads when the first line is logged."""

    def refuse(_thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    stream = QueuedStream(pipe[1])
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        stream.write("first\n")
    stream.write("second\n")
    assert read_all(pipe[0], 13) == b"first\nsecond\n"
