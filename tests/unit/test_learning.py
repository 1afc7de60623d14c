"""What the daemon finds out about an unknown store in the background: once, and never at the cost of anything else."""

import anyio
import pytest

from sidecar.daemon.learning import RETRY_SECONDS, SETTLE_SECONDS, keep_learning
from sidecar.errors import AccessDenied, SidecarError, StoreUnavailable
from sidecar.storage.traits import Traits
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio


class FakeLearner:
    """Implements `base.Learner`. Each call raises the next of `errors`, if there is one; `corrections` come one by one."""

    known = False

    def __init__(self, *errors: SidecarError, remembered: bool = False, corrections: int = 0) -> None:
        self.calls: list[str] = []
        self._errors = list(errors)
        self._remembered = remembered
        self._corrections = corrections
        self.idle = anyio.Event()

    async def recall(self) -> bool:
        """See `base.Learner`."""
        self._call("recall")
        return self._remembered

    async def probe(self) -> Traits:
        """See `base.Learner`."""
        self._call("probe")
        return Traits("a store")

    async def qualify(self) -> Traits:
        """See `base.Learner`."""
        raise NotImplementedError

    async def remember(self) -> None:
        """See `base.Learner`."""
        self._call("remember")

    async def until_corrected(self) -> None:
        """See `base.Learner`."""
        if self._corrections == 0:
            self.idle.set()
            await anyio.sleep_forever()
        self._corrections -= 1

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self._errors:
            raise self._errors.pop(0)


async def calls_of(learner: FakeLearner, clock: FakeClock) -> list[str]:
    """What is called until there is nothing more to do."""

    async def learn() -> None:
        await keep_learning(learner, clock)
        learner.idle.set()

    async with anyio.create_task_group() as group:
        group.start_soon(learn)
        await learner.idle.wait()
        group.cancel_scope.cancel()
    return learner.calls


async def test_a_store_is_tried_once_and_the_result_is_remembered() -> None:
    assert await calls_of(FakeLearner(), FakeClock()) == ["recall", "probe", "remember"]


async def test_what_is_remembered_is_not_tried_again() -> None:
    assert await calls_of(FakeLearner(remembered=True), FakeClock()) == ["recall"]


async def test_a_store_that_does_not_answer_is_left_alone_for_minutes() -> None:
    clock = FakeClock()
    learner = FakeLearner(StoreUnavailable("down"), StoreUnavailable("down"))
    assert await calls_of(learner, clock) == ["recall", "recall", "recall", "probe", "remember"]
    assert clock.sleeps == [RETRY_SECONDS, RETRY_SECONDS]


async def test_a_store_that_denies_it_is_not_asked_again() -> None:
    assert await calls_of(FakeLearner(AccessDenied("no")), FakeClock()) == ["recall"]


async def test_a_correction_is_remembered_together_with_those_that_follow() -> None:
    clock = FakeClock()
    assert await calls_of(FakeLearner(remembered=True, corrections=2), clock) == ["recall", "remember", "remember"]
    assert clock.sleeps == [SETTLE_SECONDS, SETTLE_SECONDS]
