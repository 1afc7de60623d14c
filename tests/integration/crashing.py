"""A machine that is killed at a marked step: `python crashing.py STEP DIRECTORY_STORE DATABASE`.

SIGKILL, so that nothing is cleaned up. Boots, and if the step is one of a backup, runs a cycle.
"""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import anyio

from sidecar.backup.history import Start
from sidecar.database.lineage import Lineage
from sidecar.host import files
from sidecar.repository import reader as restore
from sidecar.storage.file.objects import Objects
from sidecar.storage.file.store import FileStore, _FileUpload
from tests.integration.wiring import Machine


def _die(*_: object, **__: object) -> NoReturn:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def _before(owner: Any, name: str, *, skip: int = 0) -> Callable[[], None]:
    """Die when the function is called, the first `skip` times excepted."""

    def install() -> None:
        original, calls = getattr(owner, name), [0]

        def function(*arguments: Any, **named: Any) -> Any:
            calls[0] += 1
            if calls[0] > skip:
                _die()
            return original(*arguments, **named)

        setattr(owner, name, function)

    return install


def _after(owner: Any, name: str) -> Callable[[], None]:
    """Die when the function has returned."""

    def install() -> None:
        original = getattr(owner, name)

        def function(*arguments: Any, **named: Any) -> None:
            original(*arguments, **named)
            _die()

        setattr(owner, name, function)

    return install


BACKUP = {
    "before the pending marker": _before(Lineage, "pending"),
    "after the pending marker": _after(Lineage, "pending"),
    "before a part": _before(_FileUpload, "put_part"),
    "before complete": _before(Objects, "publish"),
    "after complete": _before(Lineage, "descends"),
    "while the marker is written": _before(os, "replace", skip=2),
    "after the marker": _after(Lineage, "descends"),
}
RESTORE = {
    "in the middle of the download": _before(restore, "_write_run", skip=1),
    "before the rename": _before(files, "put_in_place"),
    "after the rename": _after(files, "put_in_place"),
    "before the marker": _before(Lineage, "descends"),
    "after the marker of a restore": _after(Lineage, "descends"),
}
CONFLICT = {
    "before the local one is moved": _before(files, "move_aside"),
    "after the local one was moved": _after(files, "move_aside"),
    "before the winner is renamed": _before(files, "put_in_place"),
    "after the winner is renamed": _after(files, "put_in_place"),
}


async def main(step: str, store: str, database: str) -> None:
    """Do it."""
    machine = Machine(FileStore(Path(store)), Path(database), staging=Path(database).parent)
    if step in BACKUP:
        await machine.boot()
        BACKUP[step]()
        machine.backup.cycle.start_from(Start(publish="test"))
        await machine.backup.cycle.run()
    else:
        {**RESTORE, **CONFLICT}[step]()
        await machine.boot()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], sys.argv[2], sys.argv[3])
