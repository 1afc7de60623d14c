"""Carries a record out in a database that programs write to: all of it in one transaction, or nothing.

Every statement says what the row has to be before. Whoever has changed one meanwhile wins: then nothing is done.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from sidecar.compare.binding import SIGN, Inserts, Meeting, Statement, sign_of
from sidecar.compare.foreign_keys import orphans
from sidecar.compare.image import Entry
from sidecar.compare.reading import ComparedTable
from sidecar.compare.record import Record, Step
from sidecar.compare.schema import SEQUENCE, quote
from sidecar.compare.search_indexes import search_indexes
from sidecar.compare.tables import Table
from sidecar.database.driver import Connection
from sidecar.errors import RowsChanged, UsageError

BUSY_SECONDS = 5.0  # as long as apps commonly wait for each other
NAMED = 5  # rows in a message
_TICK_EVERY = 100


@dataclass(frozen=True, slots=True)
class Manner:
    """How it is done: with the `triggers` of the tables, and although rows would be `orphans`."""

    triggers: bool = False
    orphans: bool = False


@dataclass(slots=True)
class Commit:
    """How far the transaction came: `done` once it is committed. `held` is for how many seconds it had the lock.

    `conflicts` are rows that are not what they were, `clashes` those that a constraint keeps out, with the reason.
    """

    done: bool = False
    held: float = 0.0
    conflicts: list[str] = field(default_factory=list)
    clashes: list[str] = field(default_factory=list)


def carry_out(
    connection: Connection,
    record: Record,
    manner: Manner,
    commit: Commit,
    check: Callable[[], None],
    tick: Callable[[], None],
) -> None:
    """Do what the record says. `check` is called once the lock is held; it and `tick` may raise to give up.

    Raises `RowsChanged` if rows or the schema are not what they were, `UsageError` if that can not be done at all, and
    SQLite's errors.
    """
    connection.text_factory = lambda raw: raw.decode("utf-8", "surrogateescape")
    connection.create_function(SIGN, 1, sign_of, deterministic=True)
    connection.execute("PRAGMA foreign_keys = OFF")  # else ON DELETE CASCADE is carried out
    connection.execute("PRAGMA wal_autocheckpoint = 0")  # the app's own do, at its pace; ours might be too old to do it
    connection.execute(f"PRAGMA busy_timeout = {int(BUSY_SECONDS * 1000)}")
    record.load()
    connection.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    try:
        check()
        _Work(connection, record, manner, commit, tick).run()
        connection.execute("COMMIT")
        commit.done = True
    except BaseException:
        with suppress(Exception):
            connection.execute("ROLLBACK")
        raise
    finally:
        commit.held = time.monotonic() - began


class _Work:
    def __init__(
        self, connection: Connection, record: Record, manner: Manner, commit: Commit, tick: Callable[[], None]
    ) -> None:
        self._connection, self._record, self._manner, self._commit = connection, record, manner, commit
        self._tick_outside = tick
        self._ticks = 0
        self._tables = record.tables()
        self._encoding = str(record.meta()["encoding_before"])
        self._names = {each.name.lower() for each in self._tables}

    def run(self) -> None:
        before = _entries(self._connection, self._names)
        self._require_schema(before)
        indexes = search_indexes(_entries(self._connection), self._names)
        with self._without_triggers(before):
            for table in self._tables:
                if table.state == "added" and not self._record.inverse:
                    self._connection.execute(table.table.sql)
                self._write(table)
            self._finish_tables()
        for statement in indexes.statements():
            self._connection.execute(statement)
        self._require_done(before)
        if not self._manner.orphans:
            self._require_parents()

    def _require_schema(self, now: Sequence[Entry]) -> None:
        created = {each.name.lower() for each in self._tables if each.state == "added"}
        expected = _chosen(self._record.entries(0), self._names - created)
        found = [each for each in now if each.table.lower() not in created]
        if _facts(found) != _facts(expected):
            raise RowsChanged("the schema of the tables was changed meanwhile", "the comparison is made anew then")
        there = self._connection.execute("SELECT lower(name) FROM sqlite_schema").fetchall()
        taken = created & {name for (name,) in there}
        if taken and not self._record.inverse:
            raise RowsChanged(f"there is something named {', '.join(sorted(taken))} by now", "name another table")
        if self._record.inverse:
            self._require_own_tables(now, created - taken)

    def _require_own_tables(self, now: Sequence[Entry], gone: set[str]) -> None:
        """Whether tables that were created are there as they were made: what the app has added to them would go with them."""
        if gone:
            raise RowsChanged(
                f"the table {', '.join(sorted(gone))} is not there any more", "nothing of it is left to be undone"
            )
        found = {each.name.lower(): each.sql for each in now if each.type == "table"}
        for each in self._tables:
            if each.state == "added" and found.get(each.name.lower()) != each.table.sql:
                raise RowsChanged(
                    f"the table {each.name} was changed since it was brought back, so nothing was undone",
                    "drop it yourself if nothing in it is needed",
                )

    @contextmanager
    def _without_triggers(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Drop the triggers of the tables, and put them back in their order, which is the one that they fire in."""
        triggers = [each for each in entries if each.type == "trigger"] if not self._manner.triggers else []
        for each in triggers:
            self._connection.execute(f"DROP TRIGGER {quote(each.name)}")
        yield
        gone = {each.name.lower() for each in self._tables if each.state == "added"} if self._record.inverse else set()
        for each in triggers:
            if each.table.lower() not in gone:
                self._connection.execute(each.sql)

    def _write(self, compared: ComparedTable) -> None:
        """Removals first, insertions last. Where values may have been swapped, changed rows are removed and inserted."""
        table, triggers = compared.table, self._manner.triggers
        plain = (
            triggers and "CONFLICT" not in table.sql.upper()
        )  # a conflict clause would go for triggers' statements, too
        meeting = Meeting(table, self._encoding, plain=plain)
        inserts = Inserts(table, self._encoding, plain=plain)
        swaps = ("changed",) if table.unique and not triggers else ()
        for kind in ("removed", *swaps):
            for step in self._steps(compared, kind):
                self._remove(table, meeting, step)
        for step in self._steps(compared, "changed") if not swaps else ():
            columns = [at for at in step.columns if not table.columns[at].is_generated]
            if columns:
                self._one(table, step, meeting.update(step.before, step.after, columns, step.hidden_rowid))
        for kind in ("added", *swaps):
            for step in self._steps(compared, kind):
                self._one(table, step, inserts.of(step.after, self._free_rowid(table, step)))

    def _steps(self, compared: ComparedTable, kind: str) -> Iterator[Step]:
        for step in self._record.steps(compared, kind):
            self._ticks += 1
            if not self._ticks % _TICK_EVERY:
                self._tick_outside()
            yield step

    def _remove(self, table: Table, meeting: Meeting, step: Step) -> None:
        if not self._changed(meeting.delete(step.before, step.hidden_rowid)):
            self._conflict(table, step)  # never one that is merely equal: it may be the app's own

    def _free_rowid(self, table: Table, step: Step) -> int | None:
        """Its hidden rowid, if no other row has it by now."""
        if step.rowid is None or table.rowid is None or table.alias is not None:
            return None
        query = f"SELECT 1 FROM {quote(table.name)} WHERE {quote(table.rowid)} = ?"
        return None if self._connection.execute(query, (step.rowid,)).fetchone() else step.rowid

    def _one(self, table: Table, step: Step, statement: Statement) -> None:
        try:
            if not self._changed(statement):
                self._conflict(table, step)
        except Exception as error:
            if "constraint failed" not in str(error):
                raise
            self._conflict(table, step, str(error))

    def _changed(self, statement: Statement) -> bool:
        return self._connection.execute(*statement).rowcount == 1

    def _conflict(self, table: Table, step: Step, why: str = "") -> None:
        self._commit.conflicts.append(f"{table.name} {step.name}")
        if why:
            self._commit.clashes.append(f"{table.name} {step.name}: {why}")

    def _finish_tables(self) -> None:
        """Indexes and triggers of new tables; new tables that are to go, if they are empty; sequences."""
        for compared in self._tables:
            name = compared.name
            if compared.state != "added":
                self._raise_sequence(name)
            elif self._record.inverse:
                self._drop(name)
            else:
                for kind in ("index", "trigger"):
                    for each in _chosen(self._record.entries(1), {name.lower()}):
                        if each.type == kind and each.sql:
                            self._connection.execute(each.sql)
                self._raise_sequence(name)

    def _drop(self, name: str) -> None:
        if self._connection.execute(f"SELECT 1 FROM {quote(name)} LIMIT 1").fetchone():
            self._commit.conflicts.append(f"{name}, which has other rows by now")
        else:
            self._connection.execute(f"DROP TABLE {quote(name)}")

    def _raise_sequence(self, name: str) -> None:
        """Numbers that were given out are not given out again: the higher one stays."""
        number = None if self._record.inverse else self._record.sequences().get(name)
        if (
            number is None
            or not self._connection.execute("SELECT 1 FROM sqlite_schema WHERE name = ?", (SEQUENCE,)).fetchone()
        ):
            return
        known = self._connection.execute(f"SELECT seq FROM {SEQUENCE} WHERE name = ?", (name,)).fetchone()
        if known is None:
            self._connection.execute(f"INSERT INTO {SEQUENCE} VALUES (?, ?)", (name, number))
        elif isinstance(known[0], int) and known[0] < number:
            self._connection.execute(f"UPDATE {SEQUENCE} SET seq = ? WHERE name = ?", (number, name))

    def _require_done(self, before: Sequence[Entry]) -> None:
        conflicts = self._commit.conflicts
        if conflicts:
            more = f" and {len(conflicts) - NAMED} more" if len(conflicts) > NAMED else ""
            raise RowsChanged(
                f"rows were changed meanwhile: {'; '.join(conflicts[:NAMED])}{more}",
                "the comparison is made anew then",
            )
        created = {each.name.lower() for each in self._tables if each.state == "added"}
        now = [each for each in _entries(self._connection, self._names) if each.table.lower() not in created]
        if sorted(_facts(now)) != sorted(_facts([each for each in before if each.table.lower() not in created])):
            raise UsageError(
                "the triggers of the tables cannot be put back as they are", "`sidecar diff --sql` prints what to do"
            )

    def _require_parents(self) -> None:
        found = orphans(self._connection, self._record, self._encoding)
        if found:
            raise UsageError(
                "; ".join(found),
                "bring back that table together with this one, or allow orphans: `sidecar restore --orphans`",
            )


def _entries(connection: Connection, names: set[str] | None = None) -> list[Entry]:
    rows = connection.execute("SELECT type, name, tbl_name, rootpage, sql FROM sqlite_schema ORDER BY rowid")
    found = [Entry(kind, name, table, root, sql or "") for kind, name, table, root, sql in rows]
    return found if names is None else _chosen(found, names)


def _chosen(entries: Sequence[Entry], names: set[str]) -> list[Entry]:
    return [each for each in entries if each.table.lower() in names]


def _facts(entries: Sequence[Entry]) -> list[tuple[str, str, str]]:
    return [(each.type, each.name, each.sql) for each in entries]
