"""A request that stalls is replaced by a second one."""

import anyio
import pytest

from sidecar.concurrency import hedged
from sidecar.errors import StoreUnavailable

pytestmark = pytest.mark.anyio


class Requests:
    """Each call does what its turn in the script says: a number of seconds to take, or an error to raise."""

    def __init__(self, *script: float | StoreUnavailable) -> None:
        self.script = list(script)
        self.cancelled = 0
        self.begun = 0

    async def __call__(self) -> int:
        step = self.script[self.begun]
        self.begun += 1
        number = self.begun
        try:
            if isinstance(step, StoreUnavailable):
                raise step
            await anyio.sleep(step)
        except anyio.get_cancelled_exc_class():
            self.cancelled += 1
            raise
        return number


async def test_a_quick_request_is_made_once() -> None:
    requests = Requests(0)
    assert await hedged(requests, 60) == 1
    assert requests.begun == 1


async def test_a_stalled_request_is_replaced_and_forgotten() -> None:
    requests = Requests(3600, 0)
    assert await hedged(requests, 0.01) == 2
    assert requests.cancelled == 1


async def test_the_first_may_still_win() -> None:
    requests = Requests(0.05, 3600)
    assert await hedged(requests, 0.01) == 1
    assert requests.cancelled == 1


async def test_a_failure_before_the_second_is_raised_at_once() -> None:
    with pytest.raises(StoreUnavailable, match="first"):
        await hedged(Requests(StoreUnavailable("first")), 60)


async def test_one_failure_of_two_does_not_matter() -> None:
    assert await hedged(Requests(0.05, StoreUnavailable("second")), 0.01) == 1


async def test_being_cancelled_cancels_both() -> None:
    requests = Requests(3600, 3600)
    with anyio.move_on_after(0.1):
        await hedged(requests, 0.01)
    assert requests.cancelled == 2
