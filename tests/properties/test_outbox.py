"""Once a receiver is reachable again, it learns the true state, whatever was lost before. In virtual time."""

from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.errors import Reason
from sidecar.monitoring.outbox import QUEUE, Message, Outbox
from sidecar.status.model import Event
from sidecar.status.problems import Kind
from tests.fakes import START
from tests.properties.evenly import evenly

ARRIVES, LOST, REPLY_LOST, REFUSED = "arrives", "lost", "reply lost", "refused"
NAME = "app.db"
ONCE = (Kind.SUSPICION, Kind.DIVERGENCE, Kind.DAMAGED)


class World:
    """An outbox, the true state of its databases, and a receiver that remembers every message."""

    def __init__(self) -> None:
        self.outbox = Outbox()
        self.now = 0.0
        self.failing = False
        self.reason: Reason | None = None
        self.happened: list[str] = []
        self.heard: list[Event] = []
        self.flying: Message | None = None

    def cycle(self, reason: Reason | None) -> None:
        """Report every failure, and the end of one, as `Status` does."""
        was, self.failing, self.reason = self.failing, reason is not None, reason
        if reason:
            self._tell(Kind.FAILURE, f"{self.now}", reason)
        elif was:
            self._tell(Kind.RECOVERY, f"{self.now}")

    def happens(self, kind: Kind) -> None:
        self.happened.append(f"{kind} {len(self.happened)}")
        self._tell(kind, self.happened[-1])

    def take(self) -> bool:
        """Begin to send, unless a message is being sent."""
        self.flying = self.flying or self.outbox.take(self.now)
        return self.flying is not None

    def land(self, fate: str) -> None:
        """Decide how the delivery ends."""
        message, self.flying = self.flying, None
        if message is None:
            return
        if fate in (ARRIVES, REPLY_LOST):
            self.heard.append(message.event)
        if fate == ARRIVES:
            self.outbox.delivered(message)
        elif fate == REFUSED and message.event.kind is Kind.FAILURE:
            self.outbox.refused(message)
        else:
            self.outbox.undelivered(message, self.now)

    def believes_failing(self) -> bool:
        states = [each.kind for each in self.heard if each.kind not in ONCE]
        return bool(states) and states[-1] is Kind.FAILURE

    def heard_of(self) -> set[Reason | None]:
        """The reasons of the failure that the receiver believes in."""
        states = [each for each in self.heard if each.kind not in ONCE]
        last = max((number for number, each in enumerate(states) if each.kind is Kind.RECOVERY), default=-1)
        return {each.reason for each in states[last + 1 :]}

    def _tell(self, kind: Kind, words: str, reason: Reason | None = None) -> None:
        self.outbox.add(Event(kind, START, NAME, words, reason=reason), self.now)


Step = tuple[object, ...]
LANDINGS: list[list[Step]] = [[("land", fate)] for fate in (ARRIVES, ARRIVES, LOST, REPLY_LOST, REFUSED)]


STEPS: st.SearchStrategy[Step] = evenly(
    [("cycle", reason) for reason in (Reason.UNAVAILABLE, Reason.ACCESS_DENIED, None, None)],
    [("take",)],
    *LANDINGS,
    [("happens", kind) for kind in ONCE],
    [("wait", seconds) for seconds in (60.0, 400.0, 8 * 3600.0)],
)


DOWN, DENIED = ("cycle", Reason.UNAVAILABLE), ("cycle", Reason.ACCESS_DENIED)
WELL, ARRIVED = ("cycle", None), [("take",), ("land", ARRIVES)]


# Each is found by chance once in some thousand examples.
@settings(max_examples=400)
@given(st.lists(STEPS, min_size=6, max_size=18))
@example([DOWN, ("take",), ("land", REFUSED), WELL, DOWN])
@example([DOWN, ("take",), WELL, ("land", ARRIVES), ("take",), ("land", LOST), DOWN])
@example([DOWN, *ARRIVED, DENIED, *ARRIVED, WELL, *ARRIVED, DOWN, *ARRIVED, DENIED])
def test_once_it_works_again_a_receiver_believes_what_is_true(steps: list[Step]) -> None:
    """The state of each database, and all single events. A failure that persists is reported again."""
    world = World()
    for what, *arguments in steps:
        if what == "cycle":
            world.cycle(Reason(str(arguments[0])) if arguments[0] else None)
        elif what == "happens":
            world.happens(Kind(str(arguments[0])))
        elif what == "take":
            world.take()
        elif what == "land":
            world.land(str(arguments[0]))
        else:
            world.now += float(str(arguments[0]))
    world.land(ARRIVES)
    for _ in range(3):
        world.cycle(world.reason)
        while (wait := world.outbox.wait(world.now)) is not None:
            world.now += wait
            assert world.take()
            world.land(ARRIVES)
    assert world.believes_failing() is world.failing
    assert world.reason is None or world.reason in world.heard_of()
    assert {each.message for each in world.heard if each.kind in ONCE} == set(world.happened)


@given(st.lists(st.sampled_from([ARRIVES, LOST]), max_size=3 * QUEUE))
def test_an_unreachable_receiver_costs_bounded_memory_and_never_spins(fates: list[str]) -> None:
    world = World()
    for fate in fates:
        world.happens(Kind.SUSPICION)
        world.now += 1.0
        sent = world.take()
        world.land(fate)
        wait = world.outbox.wait(world.now)
        assert sent or wait is None or wait > 0
    assert len(world.outbox._queue) <= QUEUE
    assert len(world.outbox._kept) <= QUEUE
