"""Rows with long values are held in memory one or two at a time, however many differ."""

import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from pathlib import Path

import pytest

from sidecar.compare.exported import in_threads
from sidecar.compare.image import Entry
from sidecar.compare.matching import Match, Matcher
from sidecar.compare.reading import opened_result
from sidecar.compare.result import Compared, ResultWriter
from sidecar.compare.rows import Change, Found, Side
from sidecar.compare.schema import read_schema
from sidecar.compare.tables import Pair, Table
from sidecar.database import default_driver

MIB = 1 << 20
ROWS = 60


@pytest.fixture
def table() -> Table:
    """One whose rows have no key: all of them wait for their counterparts."""
    return read_schema(default_driver(), [Entry("table", "t", "t", 2, "CREATE TABLE t(a)")]).tables["t"]


def peak(work: Callable[[], object]) -> float:
    """How many MiB Python needed more at the same time."""
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1] / MIB
    finally:
        tracemalloc.stop()


def record(number: int) -> bytes:
    """A record with one blob of a MiB."""
    serial = 12 + 2 * MIB
    groups = [serial >> 21 & 0x7F | 0x80, serial >> 14 & 0x7F | 0x80, serial >> 7 & 0x7F | 0x80, serial & 0x7F]
    return bytes([5, *groups]) + number.to_bytes(4, "big") * (MIB // 4)


def test_a_result_is_written_row_by_row(table: Table, tmp_path: Path) -> None:
    changes = (Change("added", None, None, (bytes(MIB),)) for _ in range(ROWS))
    compared = Compared("t", "both", "whole", table, table, None, {})
    with closing(ResultWriter(default_driver(), tmp_path / "result", keep=None, whole_values=False)) as writer:
        assert peak(lambda: writer.table(compared, changes)) < 10


def test_rows_wait_for_their_counterparts_on_disk(table: Table) -> None:
    def rows() -> Iterator[Found]:
        for number in range(ROWS):
            yield Side(number % 2), number, record(number)

    def text(raw: bytes) -> str:
        return raw.decode()

    matcher = Matcher(Match(Pair(table, table), None, frozenset()), (text, text))
    with closing(matcher.changes(default_driver(), rows(), lambda: None)) as changes:
        assert peak(lambda: [each.kind for each in changes]) < 15


@pytest.mark.anyio
async def test_a_result_is_read_a_few_rows_at_a_time(table: Table, tmp_path: Path) -> None:
    path = tmp_path / "result"
    with closing(ResultWriter(default_driver(), path, keep=None, whole_values=True)) as writer:
        changes = (Change("added", None, None, (bytes(MIB),)) for _ in range(ROWS))
        writer.table(Compared("t", "both", "whole", table, table, None, {}), changes)
        writer.finish()
    async with opened_result(default_driver(), path) as result:
        (found,) = await result.tables()
        tracemalloc.start()
        try:
            async with aclosing(result.changes(found)) as read:
                assert len([each.kind async for each in read]) == ROWS
            assert tracemalloc.get_traced_memory()[1] / MIB < 20
        finally:
            tracemalloc.stop()


@pytest.mark.anyio
async def test_the_library_gets_rows_a_few_at_a_time() -> None:
    items = (bytes(MIB) for _ in range(ROWS))
    tracemalloc.start()
    try:
        async with aclosing(in_threads(items)) as found:
            assert len([len(each) async for each in found]) == ROWS
        assert tracemalloc.get_traced_memory()[1] / MIB < 10
    finally:
        tracemalloc.stop()
