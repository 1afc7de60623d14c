"""An app that closes its database, puts another file in its place, and opens it again, in a process of its own.

    python tests/stress/replacer.py < PLAN

It prints "written" after its first commits, and goes on when it is told; then it prints what it saw, as JSON, and ends when it is
told. With `way` "", it only closes the database and opens it again.
"""

import json
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import closing
from importlib import import_module
from typing import Any

SLOWLY = 16384  # bytes at once
INSERT = "INSERT INTO t(origin, n, pad) VALUES (?, ?, zeroblob(?))"


def copied(path: str, new: str) -> None:
    """As `cp` does: the same inode, empty at first."""
    shutil.copyfile(new, path)


def renamed(path: str, new: str) -> None:
    """As `mv` does."""
    os.replace(new, path)


def rewritten(path: str, new: str) -> None:
    """The same inode, never empty, cut to size last."""
    with open(new, "rb") as source, open(path, "r+b") as target:
        shutil.copyfileobj(source, target)
        target.truncate()


def truncated(path: str, new: str) -> None:
    """The same inode, in many writes."""
    os.truncate(path, 0)
    with open(new, "rb") as source, open(path, "r+b", buffering=0) as target:
        while some := source.read(SLOWLY):
            target.write(some)


def created(path: str, new: str) -> None:
    """Removed, and made anew."""
    os.unlink(path)
    shutil.copyfile(new, path)


WAYS: dict[str, Callable[[str, str], None]] = {
    each.__name__: each for each in (copied, renamed, rewritten, truncated, created)
}


def insert(connection: Any, origin: str, first: int, count: int) -> None:
    """Commits of a row each, of several pages now and then."""
    for number in range(first, first + count):
        connection.execute(INSERT, (origin, number, 100 + 700 * (number % 5)))


def seen(connection: Any) -> dict[str, Any]:
    """What a program sees of its database."""
    rows = connection.execute("SELECT origin, n FROM t ORDER BY rowid").fetchall()
    return {
        "rows": [list(row) for row in rows],
        "check": connection.execute("PRAGMA integrity_check(3)").fetchone()[0],
        "mode": connection.execute("PRAGMA journal_mode").fetchone()[0],
    }


def go_on(sqlite: Any, path: str, plan: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """Open the database again, commit, and say what was seen at first and in the end."""
    connection, found = sqlite.connect(path, isolation_level=None, timeout=5), dict[str, Any]()
    try:
        found["first"] = seen(connection)
        if plan["mode"]:
            connection.execute(f"PRAGMA journal_mode={plan['mode']}")
        for part in range(plan["after"]):
            insert(connection, "after", 10 * part, 10)
            time.sleep(plan["pause"])
        found["last"] = seen(connection)
    except sqlite.Error as error:
        found["error"] = str(error)
    if plan["closes"]:
        connection.close()
    return connection, found


def replace(sqlite: Any, path: str, plan: dict[str, Any]) -> None:
    """Put the new file in the place of the database, which is closed."""
    if plan["deletes"]:
        for suffix in ("-wal", "-shm"):
            if os.path.exists(path + suffix):
                os.unlink(path + suffix)
    if plan["way"] == "restored":  # as `.restore` does: a transaction as any other
        with closing(sqlite.connect(plan["new"])) as source, closing(sqlite.connect(path, timeout=5)) as target:
            source.backup(target)
    elif plan["way"]:
        WAYS[plan["way"]](path, plan["new"])


def main() -> None:
    """Follow the plan."""
    plan = json.loads(sys.stdin.readline())
    sqlite: Any = import_module(plan["library"])
    path = plan["path"]
    connection = sqlite.connect(path, isolation_level=None, timeout=5)
    for statement in (f"PRAGMA page_size={plan['page_size']}", "PRAGMA journal_mode=WAL", "PRAGMA synchronous=NORMAL"):
        connection.execute(statement)
    connection.execute("CREATE TABLE t(origin, n, pad)")
    insert(connection, "old", 0, plan["before"])
    print("written", flush=True)
    sys.stdin.readline()
    for part in range(plan["parts"]):
        insert(connection, "old", plan["before"] + part * plan["part"], plan["part"])
        time.sleep(plan["pause"])
    closing_since = time.monotonic()
    connection.close()
    closed = time.monotonic()
    time.sleep(plan["delay"])
    replace(sqlite, path, plan)
    time.sleep(plan["wait"])
    connection, found = go_on(sqlite, path, plan)
    print(json.dumps(found | {"closed": [closing_since, closed]}), flush=True)
    sys.stdin.readline()
    connection.close()


if __name__ == "__main__":
    main()
