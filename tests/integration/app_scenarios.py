"""The app as a child, in a process of its own: the reaper collects every child, the test runner's among them.

`python app_scenarios.py NAME` prints what happened, as JSON.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio

from sidecar.errors import SidecarError
from sidecar.host import process
from sidecar.host.process import App, Reaper
from sidecar.host.process_table import Proc

_SET_CHILD_SUBREAPER = 36
READY = Path(os.environ.get("TMPDIR", "/tmp"), "ready")


@asynccontextmanager
async def reaping() -> AsyncIterator[Reaper]:
    """A reaper that hears of every death, as in `run`."""
    reaper = Reaper()
    with anyio.open_signal_receiver(signal.SIGCHLD) as received:

        async def listen() -> None:
            async for _ in received:
                reaper.collect()

        async with anyio.create_task_group() as group:
            group.start_soon(listen)
            yield reaper
            group.cancel_scope.cancel()


def shell(script: str, reaper: Reaper) -> App:
    """An app that is a shell script."""
    return App(["sh", "-c", script], reaper)


def become_subreaper() -> None:
    """Orphans end up with us, as they do with PID 1 (prctl(2))."""
    ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def started(*command: str, group: int | None = None) -> subprocess.Popen[bytes]:
    """A child beside the app, in our process group unless another is given."""
    return subprocess.Popen(command, process_group=group)


def wait_dead(pid: int) -> None:
    """Wait until a child is dead, and leave it unreaped."""
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)


async def ready() -> None:
    """Wait until the app has touched the file."""
    while not READY.exists():
        await anyio.sleep(0.01)


def alive(pid: int) -> bool:
    """Whether a process exists, zombies included."""
    return Path(f"/proc/{pid}").exists()


async def statuses() -> object:
    """What a shell would say of each end."""
    async with reaping() as reaper:
        ends = ["exit 0", "exit 1", "exit 7", "exit 255", "kill -TERM $$", "kill -KILL $$", "kill -SEGV $$"]
        return [await shell(script, reaper).wait() for script in ends]


async def many_at_once() -> object:
    """Each status goes to its own app, however the deaths are bundled."""
    async with reaping() as reaper:
        apps = [shell(f"exit {number}", reaper) for number in range(40)]
        return [await app.wait() for app in apps]


async def quick_death() -> object:
    """Over before anybody waits, the loop blocked meanwhile; asked twice."""
    async with reaping() as reaper:
        app = shell("exit 3", reaper)
        time.sleep(0.3)  # noqa: ASYNC251 - the loop is blocked on purpose
        return [await app.wait(), await app.wait()]


async def signals() -> object:
    """A signal reaches the app alone, and nobody once it is gone."""
    async with reaping() as reaper:
        app = shell(f"trap 'exit 9' USR1; sleep 60 & touch {READY}; while :; do wait; done", reaper)
        await ready()
        app.signal(signal.SIGUSR1)
        status = await app.wait()
        app.signal(signal.SIGTERM)
        app.kill_group()
        return status


async def group() -> object:
    """What the app leaves running is ended with its group: politely at first, and not without end."""
    become_subreaper()
    async with reaping() as reaper:
        left = f"sleep 60 & echo $! >> {READY}.pids;"
        stubborn = f"(trap '' TERM; echo $$ > /dev/null; touch {READY}; while :; do sleep 1; done) &"
        app = shell(f"{left} {stubborn} while ! [ -e {READY} ]; do :; done; exit 4", reaper)
        status = await app.wait()
        started = time.monotonic()
        await app.stop_group(0.5)
        seconds = time.monotonic() - started
        child = int(Path(f"{READY}.pids").read_text())
        return [status, 0.5 <= seconds < 5, alive(child), app._group_exists()]


async def polite_group() -> object:
    """A group that ends on SIGTERM costs none of the grace."""
    async with reaping() as reaper:
        app = shell("sleep 60 & exit 0", reaper)
        await app.wait()
        started = time.monotonic()
        await app.stop_group(30)
        return time.monotonic() - started < 5


async def orphans() -> object:
    """Processes that end up with us are reaped, and take nobody's status."""
    become_subreaper()
    async with reaping() as reaper:
        detached = f"(setsid sh -c 'echo $$ > {READY}.pid; sleep 0.2; exit 77' &) ; sleep 0.6; exit 5"
        app = shell(detached, reaper)
        status = await app.wait()
        orphan = int(Path(f"{READY}.pid").read_text())
        return [status, alive(orphan)]


async def status_is_kept() -> object:
    """A later child with the app's number, as a small pid space gives out, does not change the app's status."""
    async with reaping() as reaper:
        app = shell("exit 5", reaper)
        await app.wait()
        later = shell("exit 6", reaper)
        await later.wait()
        return [await app.wait(), app.pid in reaper._watched]


async def helper_is_left_to_its_owner() -> object:
    """Whoever starts a process of ours learns how it ended, and it hides neither an app's end nor an orphan's."""
    become_subreaper()
    table = Proc()
    async with reaping() as reaper:
        helper = started("sh", "-c", "exit 7")
        wait_dead(helper.pid)
        app = shell(f"(setsid sh -c 'echo $$ > {READY}.pid; exit 77' &) ; sleep 0.3; exit 5", reaper)
        status = await app.wait()
        reaper.collect()
        orphan = int(Path(f"{READY}.pid").read_text())
        return [status, alive(orphan), table.is_childless(), helper.wait()]


async def helper_is_no_descendant() -> object:
    """It lives on while everybody else is ended; one that we had before we began is the app's, as any other."""
    become_subreaper()
    table = Proc()
    helper = started("sleep", "60")
    among_others = Proc()
    with started("sleep", "60", group=0) as app:
        seen = [[each.pid for each in one.descendants()] for one in (table, among_others)]
        childless = [table.is_childless()]
        app.kill()
    childless += [table.is_childless(), among_others.is_childless()]
    helper.kill()
    helper.wait()
    return [seen == [[app.pid], sorted((helper.pid, app.pid))], childless, table.is_childless()]


async def orphan_in_our_group_is_reaped_in_the_end() -> object:
    """A helper's child that nobody waits for."""
    become_subreaper()
    process.LEFT_SECONDS = 0.0
    async with reaping() as reaper:
        helper = started("sh", "-c", f"(sleep 0.1; exit 3) & echo $! > {READY}.pid")
        helper.wait()
        orphan = int(Path(f"{READY}.pid").read_text())
        while alive(orphan):
            reaper.collect()
            await anyio.sleep(0.01)
        return True


async def no_such_command() -> object:
    """Errors of starting are ours."""
    plain, folder = Path(f"{READY}.txt"), READY.parent
    plain.write_text("no program")
    plain.chmod(0o755)
    words = []
    for command in ("no-such-command", str(plain), str(folder)):
        try:
            App([command], Reaper())
        except SidecarError as error:
            words.append(f"{type(error).__name__} {int(error.exit_code)}")
    return words


SCENARIOS: dict[str, Any] = {
    each.__name__: each
    for each in (
        statuses,
        many_at_once,
        quick_death,
        signals,
        group,
        polite_group,
        orphans,
        status_is_kept,
        helper_is_left_to_its_owner,
        helper_is_no_descendant,
        orphan_in_our_group_is_reaped_in_the_end,
        no_such_command,
    )
}

if __name__ == "__main__":
    print(json.dumps(anyio.run(SCENARIOS[sys.argv[1]])))
