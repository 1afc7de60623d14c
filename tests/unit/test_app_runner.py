"""Who is killed when the daemon ends early, and that nobody is after the end of the app was waited for."""

from datetime import UTC, datetime, timedelta
from typing import cast

import anyio
import pytest

from sidecar.daemon.app import AppRunner
from sidecar.daemon.leftovers import Leftovers
from sidecar.daemon.signals import Signals
from sidecar.host.process import Child
from sidecar.status.model import Status


class Recorder:
    """An app that has ended with 0, and its leftovers; records who was killed."""

    def __init__(self) -> None:
        self.killed: list[str] = []
        self.status: int | None = None

    async def wait(self) -> int:
        return 0

    async def follow(self, _patience: float) -> None: ...

    async def end(self, _deadline: float) -> None: ...

    def pass_on(self, number: int) -> None: ...

    def kill_group(self) -> None:
        self.killed.append("group")

    def kill(self) -> None:
        self.killed.append("leftovers")


@pytest.fixture
def signals() -> Signals:
    return Signals()


@pytest.fixture
def app(signals: Signals) -> Recorder:
    recorder = Recorder()
    signals.app = cast("Child", recorder)
    return recorder


@pytest.fixture
def runner(signals: Signals, app: Recorder) -> AppRunner:
    nothing, left = timedelta(), cast("Leftovers", app)
    status = Status((), "file:///store", "1", lambda: datetime.now(UTC))
    return AppRunner(["app"], signals, status, lambda: None, None, nothing, nothing, left)


def test_everybody_is_killed_when_the_daemon_ends_early(runner: AppRunner, app: Recorder) -> None:
    runner.kill()
    assert app.killed == ["group", "leftovers"]


def test_group_of_a_launcher_that_has_ended_may_be_another_one_by_now(
    runner: AppRunner, app: Recorder, signals: Signals
) -> None:
    signals.launched = app.pass_on
    runner.kill()
    assert app.killed == ["leftovers"]


def test_nobody_is_killed_once_the_end_was_waited_for(runner: AppRunner, app: Recorder) -> None:
    assert anyio.run(runner.until_ended) == 0
    runner.kill()
    assert app.killed == []
