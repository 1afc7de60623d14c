"""The difference of two databases by SQLite alone: ATTACH, and EXCEPT both ways for each table.

    python tests/benchmarks/attached.py BEFORE AFTER

It prints how many rows of each table only one of the two has. Columns that one of them lacks are left out.
"""

import sys
from typing import Any

from pysqlite3 import dbapi2 as sqlite3


def main(before: str, after: str) -> None:
    """Print a line for each table that differs."""
    connection = sqlite3.connect(f"file:{after}?mode=ro", uri=True)
    connection.execute("ATTACH ? AS former", (f"file:{before}?mode=ro",))
    names = connection.execute("SELECT name FROM main.sqlite_schema WHERE type = 'table' ORDER BY name").fetchall()
    for (table,) in names:
        columns = ", ".join(sorted(_columns(connection, "main", table) & _columns(connection, "former", table)))
        counts = [
            connection.execute(
                f'SELECT count(*) FROM (SELECT {columns} FROM {one}."{table}" EXCEPT SELECT {columns} FROM {other}."{table}")'
            ).fetchone()[0]
            for one, other in (("former", "main"), ("main", "former"))
        ]
        if any(counts):
            print(table, *counts)


def _columns(connection: Any, schema: str, table: str) -> set[str]:
    rows = connection.execute("SELECT name FROM pragma_table_info(?, ?)", (table, schema)).fetchall()
    return {f'"{name}"' for (name,) in rows}


if __name__ == "__main__":
    main(*sys.argv[1:])
