"""docs/library.md: every example runs, in its order, with one session."""

import asyncio
import sqlite3
from collections.abc import Callable
from contextlib import closing
from inspect import CO_COROUTINE
from pathlib import Path
from typing import Any

import pytest

import sidecar
from tests.docs import DOCS
from tests.docs.markdown import Fence, Page

EXAMPLES = [fence for fence in Page(DOCS / "library.md").fences if fence.language == "python"]
STORE = "file:///backups/app"  # as it is written there


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where app.db is, the working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with closing(sqlite3.connect("app.db")) as connection, connection:
        connection.execute("CREATE TABLE notes (text)")
    return tmp_path


def compiled(example: Fence, directory: Path) -> Callable[..., Any]:
    """An example as a function of the session, with the store in this directory."""
    text = example.text.replace(STORE, f"file://{directory}/store")
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    namespace: dict[str, Any] = {"sidecar": sidecar}
    exec(compile(f"async def run(session):\n{lines}", example.where, "exec"), namespace)  # noqa: S102
    assert namespace["run"].__code__.co_flags & CO_COROUTINE
    function: Callable[..., Any] = namespace["run"]
    return function


def test_every_example_runs(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first is a whole program. The others run inside a session, and each that prints has something to print."""
    program, *snippets = EXAMPLES
    text = program.text.replace(STORE, f"file://{directory}/store")
    exec(compile(text, program.where, "exec"), {"__name__": "__main__"})  # noqa: S102
    assert "app.db published app.db/" in capsys.readouterr().out

    async def within_a_session() -> None:
        async with sidecar.open(databases=["app.db"], store=f"file://{directory}/store") as session:
            for example in snippets:
                await compiled(example, directory)(session)
                printed = capsys.readouterr().out
                assert ("print(" in example.text) <= bool(printed), example.where

    asyncio.run(within_a_session())
    assert len(snippets) >= 8
    for name in ("copy.db", "by-time.db", "by-key.db"):
        assert (directory / name).exists()
