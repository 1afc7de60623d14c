"""Whole tables, compared by SQLite itself: where nearly all pages differ, one merge is several times faster than reading rows here.

SQL takes 1 for 1.0, 0.0 for -0.0, and 'a' for 'A' under NOCASE: so each column is compared by bytes and by type, too.
"""

from collections.abc import Callable, Iterator
from contextlib import closing
from math import copysign
from pathlib import Path
from urllib.parse import quote as quote_path

from sidecar.compare.matching import Match
from sidecar.compare.pages import AT_ONCE, State
from sidecar.compare.rows import Change, differences
from sidecar.compare.schema import Schema, quote
from sidecar.compare.tables import Pair, Table
from sidecar.compare.values import InvalidText, Row, Value, same
from sidecar.database import Driver
from sidecar.database.driver import Connection
from sidecar.repository.format.index import CHUNK_SIZE

MOST_COLUMNS = 250  # of a table that SQL compares: each is some terms of one expression, which may be 1000 deep
_STEPS = 200_000  # of SQLite's virtual machine between two looks at the clock


def may_merge(match: Match, before: Schema, after: Schema) -> bool:
    """Whether SQL can compare the tables: every row has a key, and nothing of the app is needed."""
    pair = match.pair
    one, other = pair.before, pair.after
    return (
        match.key is not None
        and not match.chosen
        and not pair.old_names
        and one.columns == other.columns
        and len(one.columns) <= MOST_COLUMNS
        and one.without_rowid == other.without_rowid
        and _has_key_everywhere(other)
        and not (before.unknown or after.unknown or before.problems or after.problems)
    )


def _has_key_everywhere(table: Table) -> bool:
    return table.without_rowid or all(at == table.alias or table.columns[at].not_null for at in table.key)


def write_file(state: State, path: Path, tick: Callable[[], None]) -> None:
    """Write a whole state to a new file. Raises OSError, and what reading the state raises."""
    with path.open("xb") as file:
        for start in range(0, state.chunks, AT_ONCE):
            chunks = range(start, min(start + AT_ONCE, state.chunks))
            state.fetch(chunks)
            for chunk in chunks:
                tick()
                file.write(state.read(chunk * CHUNK_SIZE, CHUNK_SIZE))


class NotMerged(Exception):
    """SQLite cannot do it: one of the two is damaged, or it asks for something that only the app has."""


class Merge:
    """Two files, open in one connection."""

    def __init__(self, driver: Driver, before: Path, after: Path, tick: Callable[[], None]) -> None:
        """`tick` may raise to end the work. Raises `NotMerged`."""
        self._tick = tick
        self._error = driver.error
        self._stopped: BaseException | None = None
        self._connection: Connection = driver.connect(after, "ro&immutable=1")
        try:
            self._connection.execute("ATTACH ? AS former", (f"file:{quote_path(str(before))}?mode=ro&immutable=1",))
            self._connection.create_function("sign_of", 1, lambda value: copysign(1.0, value), deterministic=True)
            self._connection.set_progress_handler(self._look, _STEPS)
        except driver.error as error:
            self._connection.close()
            raise NotMerged(str(error)) from error

    def close(self) -> None:
        """Close both. A handler that is left would keep this object for ever."""
        self._connection.set_progress_handler(None, 0)
        self._connection.close()

    def changes(self, match: Match) -> Iterator[Change]:
        """What differs, in the order of the earlier table; then what was added. Raises `NotMerged`."""
        pair, key = match.pair, match.key or ()
        yield from self._common(pair, key, match.ignored)
        for row in self._alone("former", pair.before, "main", pair.after, key):
            yield Change("removed", tuple(row[at] for at in key), row, None)
        for row in self._alone("main", pair.after, "former", pair.before, key):
            yield Change("added", tuple(row[at] for at in key), None, row)

    def _common(self, pair: Pair, key: tuple[int, ...], ignored: frozenset[int]) -> Iterator[Change]:
        table, count = pair.after, len(pair.after.columns)
        compared = [at for at in range(count) if at not in ignored and at != table.alias]
        if not compared:
            return
        names = [f"{side}.{quote(name)}" for side in ("x", "y") for name in table.names]
        unlike = " OR ".join(_unlike(table.names[at]) for at in compared)
        statement = f"SELECT {', '.join(names)} FROM former.{quote(pair.before.name)} x CROSS JOIN main.{quote(table.name)} y ON {_on(table, key)} WHERE {unlike}"
        for row in self._rows(statement):
            before, after = row[:count], row[count:]
            if all(same(before[at], after[at]) for at in key):
                yield Change(
                    "changed", tuple(after[at] for at in key), before, after, differences(before, after, ignored)
                )
            else:  # equal by the key's collation, but not the same
                yield Change("removed", tuple(before[at] for at in key), before, None)
                yield Change("added", tuple(after[at] for at in key), None, after)

    def _alone(self, here: str, table: Table, there: str, other: Table, key: tuple[int, ...]) -> Iterator[Row]:
        names = ", ".join(f"x.{quote(name)}" for name in table.names)
        exists = f"SELECT 1 FROM {there}.{quote(other.name)} y WHERE {_on(table, key)}"
        yield from self._rows(f"SELECT {names} FROM {here}.{quote(table.name)} x WHERE NOT EXISTS ({exists})")

    def _rows(self, statement: str) -> Iterator[Row]:
        self._connection.text_factory = _text
        try:
            with closing(self._connection.execute(statement)) as rows:
                yield from rows
        except self._error as error:
            if self._stopped is not None:
                raise self._stopped from error
            raise NotMerged(str(error)) from error

    def _look(self) -> bool:
        """Whether SQLite is to stop."""
        try:
            self._tick()
        except BaseException as error:  # noqa: BLE001 - raised again where SQLite has stopped
            self._stopped = error
            return True
        return False


def _on(table: Table, key: tuple[int, ...]) -> str:
    return " AND ".join(f"x.{quote(table.names[at])} = y.{quote(table.names[at])}" for at in key)


def _unlike(name: str) -> str:
    one, other = f"x.{quote(name)}", f"y.{quote(name)}"
    zero = f"typeof({one}) = 'real' AND {one} = 0 AND typeof({other}) = 'real' AND {other} = 0 AND sign_of({one}) <> sign_of({other})"
    return f"{one} IS NOT {other} COLLATE BINARY OR typeof({one}) <> typeof({other}) OR ({zero})"


def _text(raw: bytes) -> Value:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return InvalidText(raw, "utf-8")
