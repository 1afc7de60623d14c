"""Finds for each row that differs its counterpart in the other state, in a scratch database that may be larger than memory.

Rows are the same by their key. Rows without one, or with NULL in it, are compared as a whole: equal ones cancel out, however
often there are. Of what is left, rows with the same hidden rowid are shown as changed, because most likely they were.
"""

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import count, groupby
from operator import itemgetter
from typing import Any

from sidecar.compare.fileformat import decode_record
from sidecar.compare.rows import Change, Found, Side, differences
from sidecar.compare.tables import Pair, row_maker
from sidecar.compare.values import Row, Value, key_of
from sidecar.database import Driver
from sidecar.database.driver import Connection
from sidecar.errors import UsageError

_BATCH = 500  # rows that are written together
_LONG = 64 << 10  # bytes: a longer one does not wait for others
_SCRATCH = (
    "CREATE TABLE found(key BLOB, side INT, number INT, row INT, payload BLOB, PRIMARY KEY(key, side, number)) WITHOUT ROWID",
    "CREATE TABLE rest(known INT, row INT, side INT, number INT, payload BLOB, PRIMARY KEY(known, row, side, number)) WITHOUT ROWID",
)
_KEYED, _WHOLE = b"k", b"w"
Text = Callable[[bytes], Value]


@dataclass(frozen=True, slots=True)
class Match:
    """How rows of a table are matched: by the columns `key` of the later table, or as a whole if it is None.

    `chosen`: a person named the key, so it may not be one; that is noticed among the rows that are compared. Differences in `ignored` columns are none.
    """

    pair: Pair
    key: tuple[int, ...] | None
    ignored: frozenset[int]
    chosen: bool = False


class Matcher:
    """Matches the rows of one table. `texts` decode the text of each state."""

    def __init__(self, match: Match, texts: tuple[Text, Text]) -> None:
        self._match = match
        self._makers = row_maker(match.pair.before), row_maker(match.pair.after)
        self._texts = texts
        self._as_after = match.pair.as_after()
        before, after = match.pair.before, match.pair.after
        # The key of most tables is the rowid: in its order, nothing has to be kept until its counterpart comes.
        aliases = [table.names[table.alias] for table in (before, after) if table.alias is not None]
        same = len(aliases) == 2 and aliases[0] == aliases[1]
        self._key_is_rowid = same and match.key == (after.alias,)

    def changes(self, driver: Driver, rows: Iterable[Found], tick: Callable[[], None]) -> Generator[Change, None, None]:
        """The changes, in the order of the keys. Raises `UsageError` if a chosen key is not one."""
        if self._key_is_rowid:
            yield from self._by_rowid(rows, tick)
            return
        with closing(driver.scratch()) as scratch:
            scratch.execute("PRAGMA cache_size = -16000")
            for table in _SCRATCH:  # in the order in which they are read: SQLite may sort in memory
                scratch.execute(table)
            scratch.execute("BEGIN")
            numbers = count()
            scratch.executemany(
                "INSERT INTO found VALUES (?, ?, ?, ?, ?)",
                ((self._key(each), each[0], next(numbers), each[1], each[2]) for each in rows),
            )
            ordered = scratch.execute("SELECT key, side, row, payload FROM found ORDER BY key, side, number")
            rest: list[tuple[int | None, int, bytes]] = []
            for key, group in groupby(ordered, itemgetter(0)):
                tick()
                sides: tuple[list[Any], list[Any]] = ([], [])
                for _, side, rowid, payload in group:
                    sides[side].append((rowid, payload))
                if key[:1] == _KEYED:
                    yield from self._keyed(*sides)
                else:
                    rest += _left(*sides)
                    if len(rest) >= _BATCH or len(rest[-1:] and rest[-1][2]) > _LONG:
                        _keep_rest(scratch, rest, numbers)
            _keep_rest(scratch, rest, numbers)
            yield from self._rest(
                scratch.execute(
                    "SELECT CASE WHEN known THEN row END, side, payload FROM rest ORDER BY known, row, side, number"
                )
            )

    def _by_rowid(self, rows: Iterable[Found], tick: Callable[[], None]) -> Iterator[Change]:
        """Rows that come in the order of their key: what has the same one follows at once."""
        for _, group in groupby(rows, itemgetter(1)):
            tick()
            sides: tuple[list[Any], list[Any]] = ([], [])
            for side, rowid, payload in group:
                sides[side].append((rowid, payload))
            yield from self._keyed(*sides)

    def _row(self, side: Side, rowid: int | None, payload: bytes) -> Row:
        return self._makers[side](rowid, decode_record(payload, self._texts[side]))

    def _key(self, found: Found) -> bytes:
        side, row = found[0], self._row(*found)
        seen = self._as_after(row) if side is Side.BEFORE else row
        if self._match.key is not None:
            values = [seen[at] for at in self._match.key]
            if all(value is not None for value in values):
                return _KEYED + key_of(values)
        return _WHOLE + key_of(value for at, value in enumerate(seen) if at not in self._match.ignored)

    def _keyed(
        self, before: Sequence[tuple[int | None, bytes]], after: Sequence[tuple[int | None, bytes]]
    ) -> Iterator[Change]:
        if self._match.chosen and max(len(before), len(after)) > 1:
            raise self._ambiguous(before, after)
        for one, other in zip(before, after, strict=False):
            yield from self._changed(one, other, keyed=True)
        common = min(len(before), len(after))
        yield from (self._removed(*each, keyed=True) for each in before[common:])
        yield from (self._added(*each, keyed=True) for each in after[common:])

    def _rest(self, rows: Iterable[tuple[int | None, int, bytes]]) -> Iterator[Change]:
        for rowid, group in groupby(rows, itemgetter(0)):
            sides: tuple[list[Any], list[Any]] = ([], [])
            for _, side, payload in group:
                sides[side].append((rowid, payload))
            if rowid is not None and len(sides[0]) == len(sides[1]) == 1:
                yield from self._changed(sides[0][0], sides[1][0], keyed=False)
                continue
            yield from (self._removed(*each, keyed=False) for each in sides[0])
            yield from (self._added(*each, keyed=False) for each in sides[1])

    def _changed(
        self, one: tuple[int | None, bytes], other: tuple[int | None, bytes], *, keyed: bool
    ) -> Iterator[Change]:
        before, after = self._row(Side.BEFORE, *one), self._row(Side.AFTER, *other)
        columns = differences(self._as_after(before), after, self._match.ignored)
        if columns:
            yield Change("changed", self._key_values(after, keyed=keyed), before, after, columns, one[0], other[0])

    def _removed(self, rowid: int | None, payload: bytes, *, keyed: bool) -> Change:
        row = self._row(Side.BEFORE, rowid, payload)
        return Change("removed", self._key_values(self._as_after(row), keyed=keyed), row, None, (), rowid, None)

    def _added(self, rowid: int | None, payload: bytes, *, keyed: bool) -> Change:
        row = self._row(Side.AFTER, rowid, payload)
        return Change("added", self._key_values(row, keyed=keyed), None, row, (), None, rowid)

    def _key_values(self, row: Row, *, keyed: bool) -> Row | None:
        return tuple(row[at] for at in self._match.key) if keyed and self._match.key is not None else None

    def _ambiguous(self, *sides: Sequence[tuple[int | None, bytes]]) -> UsageError:
        table = self._match.pair.after
        names = ",".join(table.names[at] for at in self._match.key or ())
        side = Side.BEFORE if len(sides[0]) > 1 else Side.AFTER
        row = self._row(side, *sides[side][0])
        row = self._as_after(row) if side is Side.BEFORE else row
        shown = ", ".join(repr(row[at])[:60] for at in self._match.key or ())
        return UsageError(
            f"{names} is not a key of {table.name}: {len(sides[side])} rows have {shown}",
            "name more columns, or leave the key out",
        )


def _keep_rest(scratch: Connection, rest: list[tuple[int | None, int, bytes]], numbers: Iterator[int]) -> None:
    rows = [(rowid is not None, rowid or 0, side, next(numbers), payload) for rowid, side, payload in rest]
    scratch.executemany("INSERT INTO rest VALUES (?, ?, ?, ?, ?)", rows)
    rest.clear()


def _left(
    before: Sequence[tuple[int | None, bytes]], after: Sequence[tuple[int | None, bytes]]
) -> Iterator[tuple[int | None, int, bytes]]:
    """What is left of equal rows once as many of each side as possible have cancelled out; those with the same rowid first."""
    common = ({rowid for rowid, _ in before} & {rowid for rowid, _ in after}) - {None} if before and after else set()
    both = [each for each in before if each[0] not in common], [each for each in after if each[0] not in common]
    cancelled = min(len(both[0]), len(both[1]))
    yield from ((rowid, 0, payload) for rowid, payload in both[0][cancelled:])
    yield from ((rowid, 1, payload) for rowid, payload in both[1][cancelled:])
