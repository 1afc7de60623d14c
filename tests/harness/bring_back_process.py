"""Brings rows back in a process of its own, which dies, or finds no room, at a given moment.

python -m tests.harness.bring_back_process DATABASE KEY MOMENT
"""

import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio

import sidecar.states.bring_back
from sidecar.compare.transaction import _Work
from sidecar.errors import SidecarError
from sidecar.states.bring_back import LiveDatabase
from tests.harness.bringing_back import session_of


def die(*_: object, **__: object) -> None:
    """End this process without any clean-up."""
    os.kill(os.getpid(), signal.SIGKILL)


def replace(owner: Any, name: str, act: Callable[..., None], *, after: bool = False) -> None:
    """Do this before or after what is called so."""
    original = getattr(owner, name)

    def changed(*arguments: Any, **named: Any) -> Any:
        if not after:
            act()
        result = original(*arguments, **named)
        if after:
            act()
        return result

    setattr(owner, name, changed)


def half_copied(source: Any, target: Any, size: int) -> None:
    """Copy a part, and die."""
    target.write(source.read(1000))
    target.flush()
    die()


def no_room() -> None:
    """From now on no file of this process may grow beyond the first page."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))


def once_saved(act: Callable[[], None]) -> None:
    """Do this when the rows are saved, and the live database is about to be written to: no longer the copy."""
    replace(LiveDatabase, "_do", act)


MOMENTS: dict[str, Callable[[], None]] = {
    "saving": lambda: setattr(shutil, "copyfileobj", half_copied),
    "saved": lambda: replace(sidecar.states.bring_back, "save", die, after=True),
    "uncommitted": lambda: once_saved(lambda: replace(_Work, "run", die, after=True)),
    "committed": lambda: replace(LiveDatabase, "_do", die, after=True),
    "no room to save": lambda: replace(sidecar.states.bring_back, "save", no_room),
    "no room in the log": lambda: once_saved(no_room),
    "whole": lambda: None,
}


async def main(path: Path, key: str, moment: str) -> int:
    async with session_of(path) as session:
        MOMENTS[moment]()
        try:
            await session.tables("orders", state=key).bring_back(rows="exact")
        except SidecarError as error:
            print(error, flush=True)
            return int(error.exit_code)
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.exit(anyio.run(main, Path(sys.argv[1]), sys.argv[2], sys.argv[3]))
