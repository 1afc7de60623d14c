"""A file that is open is never taken for unused, whichever process has it open."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.errors import DatabaseBusy
from sidecar.host.files import require_unused


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "app.db"
    path.write_bytes(b"rows")
    return path


def test_a_file_that_nobody_has_open_is_unused(database: Path) -> None:
    require_unused(database)
    require_unused(database, own=True)


def test_this_process_counts_where_it_is_asked_for(database: Path) -> None:
    """A daemon has its own databases open; a program that embeds us may have any."""
    with database.open("rb"):
        require_unused(database)
        with pytest.raises(DatabaseBusy, match=f"is open in process {os.getpid()}"):
            require_unused(database, own=True)
    require_unused(database, own=True)


def test_a_descriptor_that_is_closed_meanwhile_hides_no_other(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is gone between the listing and the look at it says nothing about those that follow."""
    listed = Path.iterdir

    def with_one_that_is_gone(path: Path) -> Iterator[Path]:
        yield path / "999999"
        yield from listed(path)

    monkeypatch.setattr(Path, "iterdir", with_one_that_is_gone)
    with database.open("rb"), pytest.raises(DatabaseBusy):
        require_unused(database, own=True)
