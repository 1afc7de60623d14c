"""What SQLite reads from a row that is older than a column: its default, made by SQLite itself in memory."""

from sidecar.compare.values import Value
from sidecar.database import Driver
from sidecar.database.driver import Connection


class Defaults:
    """The defaults of columns. Close it."""

    def __init__(self, driver: Driver) -> None:
        self._error = driver.error
        self._memory: Connection = driver.in_memory()
        self._known: dict[tuple[str, str, bool], tuple[Value]] = {}

    def close(self) -> None:
        """Close what they are made in."""
        self._memory.close()

    def value(self, kind: str, sql: str, *, strict: bool) -> Value:
        """The value; None if SQLite cannot compute it without the app.

        `kind` is an affinity, or the type in a STRICT table. `sql` is what PRAGMA table_xinfo shows: without the parentheses of
        an expression, and a name that has none is text. A row that was inserted may have another value: 1e3 as text is
        read as it is written, but inserted as 1000.0. That is taken where no row can be older than the column, because
        ALTER TABLE adds none whose default has to be computed.
        """
        asked = kind, sql, strict
        if asked not in self._known:
            end = " STRICT" if strict else ""
            found = (
                self._tried(f"(y INT){end}", f"ADD COLUMN x {kind} DEFAULT {sql}")
                or self._tried(f"(y INT){end}", f"ADD COLUMN x {kind} DEFAULT ({sql})")
                or self._tried(f"(y INT, x {kind} DEFAULT ({sql})){end}")
            )
            self._known[asked] = found or (None,)
        return self._known[asked][0]

    def _tried(self, columns: str, alter: str = "") -> tuple[Value] | None:
        """The column x of a row of such a table, which is altered when the row is there; None if SQLite refuses that."""
        memory = self._memory
        try:
            memory.execute(f"CREATE TABLE made{columns}")
            memory.execute("INSERT INTO made(y) VALUES (1)")
            if alter:
                memory.execute(f"ALTER TABLE made {alter}")
            found: tuple[Value] = memory.execute("SELECT x FROM made").fetchone()
        except self._error:
            return None
        finally:
            memory.execute("DROP TABLE IF EXISTS made")
        return found
