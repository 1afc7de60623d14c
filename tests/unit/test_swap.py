"""A swap that fails puts the old database back, and never replaces one that somebody else made meanwhile."""

from pathlib import Path

import pytest

from sidecar.errors import DatabaseBusy
from sidecar.host.files import Swap, swap
from sidecar.model import Timestamp

AT = Timestamp("20261120T145503.123Z")


def swapped(target: Path, *, appears: bool) -> Swap:
    target.write_text("old")
    restored = target.with_name("restored")
    restored.write_text("new")

    def before_rename(_restored: Path) -> None:
        if not appears:
            raise OSError("the disk is full")
        target.write_text("live")

    return Swap(restored, target, target.with_name("kept"), AT, durable=False, before_rename=before_rename)


def test_a_failure_puts_the_old_database_back(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="full"):
        swap(swapped(tmp_path / "app.db", appears=False))
    assert (tmp_path / "app.db").read_text() == "old"


def test_a_database_that_appeared_is_replaced_neither_by_the_new_nor_by_the_old_one(tmp_path: Path) -> None:
    with pytest.raises(DatabaseBusy):
        swap(swapped(tmp_path / "app.db", appears=True))
    assert (tmp_path / "app.db").read_text() == "live"
    assert (tmp_path / "kept").read_text() == "old"
