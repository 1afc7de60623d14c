"""A program that embeds the library while it has a transaction open in the database that is backed up.

    python tests/integration/embedding.py DIRECTORY MODULE

Prints as JSON what it saw: the POSIX locks of its own before and after, what another process met, and what came of it.
"""

import asyncio
import importlib
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from types import ModuleType

import sidecar

ANOTHER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], timeout=0)
try:
    connection.execute("BEGIN IMMEDIATE")
    print("may write")
except sqlite3.OperationalError as error:
    print(error)
"""


def locks(*paths: Path) -> list[list[str]]:
    """Kind and range of this process's locks on these files, as the kernel has them (proc(5))."""
    inodes = {path.stat().st_ino for path in paths}
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    mine = [line for line in lines if line[1] == "POSIX" and line[4] == str(os.getpid())]
    return sorted(line[3:4] + line[6:8] for line in mine if int(line[5].rpartition(":")[2]) in inodes)


def another_process(path: Path) -> str:
    """What another process that wants to write is told."""
    done = subprocess.run([sys.executable, "-c", ANOTHER, path], capture_output=True, text=True, check=True)
    return done.stdout.strip()


async def work(directory: Path, module: ModuleType) -> list[str]:
    """Everything that a session can do beside the open transaction; the texts in the copies that it restored."""
    path, copy = directory / "app.db", directory / "copy.db"
    async with sidecar.open(databases=[path], store=f"file://{directory}/store", sqlite=module) as session:
        await session.backup()
        await session.backup()
        await session.list()
        await session.verify(all=True)
        await session.status()
        await session.restore(output=copy)
    with closing(sqlite3.connect(copy)) as connection:
        return [text for (text,) in connection.execute("SELECT text FROM notes")]


def main(directory: Path, module: ModuleType) -> None:
    """The transaction, the work beside it, the commit."""
    path = directory / "app.db"
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("PRAGMA journal_mode=wal")
    connection.execute("CREATE TABLE notes (text)")
    connection.execute("INSERT INTO notes VALUES ('committed')")
    connection.execute("BEGIN IMMEDIATE")
    connection.execute("INSERT INTO notes VALUES ('open')")
    files = (path, directory / "app.db-shm")
    before = locks(*files)
    copied = asyncio.run(work(directory, module))
    seen = {"before": before, "after": locks(*files), "another": another_process(path), "copied": copied}
    connection.execute("COMMIT")
    connection.close()
    with closing(sqlite3.connect(path)) as again:
        texts = [text for (text,) in again.execute("SELECT text FROM notes")]
        checked = again.execute("PRAGMA integrity_check").fetchone()[0]
    print(json.dumps({**seen, "committed": texts, "checked": checked}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), importlib.import_module(sys.argv[2]))
