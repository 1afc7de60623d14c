"""What is worth telling people, and when: no repetition, no flood, and never a failure without its end (pure)."""

from collections import OrderedDict, deque
from dataclasses import dataclass, replace

from sidecar.errors import Reason
from sidecar.status.model import Event
from sidecar.status.problems import Kind

TOLD = frozenset({Kind.FAILURE, Kind.RECOVERY, Kind.DIVERGENCE, Kind.SUSPICION, Kind.DRILL, Kind.DAMAGED, Kind.GROWTH})
QUEUE = 50
BURST = 10
REFILL = 60.0  # seconds for one more message, up to `BURST`
REPEAT = 3600.0  # seconds for which the same words are not said again
REMIND = 6 * 3600.0  # seconds after which a failure that goes on is said again
REMEMBERED = 200
AGAIN = 300.0  # seconds until what could not be delivered is said again, twice as many after each failure
LONGEST_AGAIN = 3600.0
STATES = frozenset({Kind.FAILURE, Kind.RECOVERY})


@dataclass(frozen=True, slots=True)
class Message:
    """An event to be told; `left_out` counts those since the last one that were not: repeated, or too many.

    `again` says that it could not be delivered before, and that it is late.
    """

    event: Event
    left_out: int = 0
    again: bool = False


class Outbox:
    """The queue of one receiver. Times are seconds of a monotonic clock.

    Failures are a state of their database: told when it begins, for each other reason, again every `REMIND`, and when it ends. An end whose
    beginning was never tried cancels it, and the other way round, so that what is told last is always how things are.
    Everything else is told once in `REPEAT`.

    What could not be delivered is kept: said again when another message gets through, else after `AGAIN`, then ever
    later. But for failures: those are forgotten, and come again by themselves as long as they are true.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._queue: deque[Event] = deque()
        self._kept: deque[Event] = deque()
        self._again = 0.0
        self._pause = AGAIN
        self._left_out = 0
        self._failing: dict[str, float] = {}
        self._reasons: dict[str, set[Reason | None]] = {}  # of databases that fail: those that were told
        self._believed: dict[str, Kind | None] = {}  # of databases: what was said last; None is not sure
        self._said: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._tokens = float(BURST)
        self._refilled: float | None = None

    def add(self, event: Event, now: float) -> None:
        """Take an event, unless it is nothing new."""
        if event.kind not in TOLD:
            return
        if not self._is_news(event, now):
            self._left_out += 1
            return
        self._put(self._queue, event)

    def take(self, now: float) -> Message | None:
        """The oldest one, if it may be sent now; those that are said again come last."""
        self._refill(now)
        due = bool(self._queue) or (bool(self._kept) and now >= self._again)
        if not due or self._tokens < 1.0:
            return None
        self._tokens -= 1.0
        return self._message(self._queue.popleft()) if self._queue else self._message(self._kept.popleft(), again=True)

    def take_newest(self) -> Message | None:
        """The newest one, whatever the rate: for the last seconds."""
        if self._queue:
            return self._message(self._queue.pop())
        return self._message(self._kept.pop(), again=True) if self._kept else None

    def wait(self, now: float) -> float | None:
        """Seconds until `take` may have one; None when there is nothing to send."""
        self._refill(now)
        if not self._queue and not self._kept:
            return None
        return max(0.0, (1.0 - self._tokens) * REFILL, 0.0 if self._queue else self._again - now)

    def delivered(self, message: Message) -> None:
        """It got through: the receiver works, and what is kept may be said."""
        self._again, self._pause = 0.0, AGAIN

    def undelivered(self, message: Message, now: float) -> None:
        """It could not be delivered, for now."""
        self._again = now + self._pause
        self._pause = min(LONGEST_AGAIN, 2 * self._pause)
        event = message.event
        self._doubt(event)
        if event.kind is Kind.FAILURE and event.database:
            self.refused(message)
        elif event.kind is Kind.RECOVERY and event.database in self._failing:
            self._left_out += message.left_out + 1  # it is no longer so
        else:
            self._left_out += message.left_out
            self._put(self._kept, event)

    def refused(self, message: Message) -> None:
        """It will never be delivered. A failure is forgotten, so that it is said again while it goes on."""
        self._left_out += message.left_out
        self._doubt(message.event)
        self._forget(message.event)

    def _put(self, queue: deque[Event], event: Event) -> None:
        """Make room for it. How a database is matters more than what happened, and the newest most."""
        queue.append(event)
        if len(queue) > QUEUE:
            lost = next((each for each in queue if each.kind not in STATES), queue[0])
            queue.remove(lost)
            self._forget(lost)

    def _doubt(self, event: Event) -> None:
        """Without a reply it may have been heard all the same."""
        if event.kind in STATES:
            self._believed[event.database] = None

    def _forget(self, event: Event) -> None:
        self.dropped += 1
        self._left_out += 1
        if event.kind is Kind.FAILURE:
            self._failing.pop(event.database, None)

    def _message(self, event: Event, *, again: bool = False) -> Message:
        left_out, self._left_out = self._left_out, 0
        if event.kind is Kind.FAILURE:
            self._believed[event.database] = Kind.FAILURE
        elif event.kind is Kind.RECOVERY:
            self._believed.pop(event.database, None)
        return Message(event, left_out, again)

    def _is_news(self, event: Event, now: float) -> bool:
        if event.kind is Kind.RECOVERY:
            return self._has_recovered(event)
        if event.kind is Kind.FAILURE and event.database:
            return self._fails(event, now)
        return self._is_new(event, now)

    def _fails(self, event: Event, now: float) -> bool:
        database, reasons = event.database, self._reasons.setdefault(event.database, set())
        told = self._failing.get(database)
        if self._taken_back(self._queue, Kind.RECOVERY, database) and self._believed.get(database) is Kind.FAILURE:
            told = now  # which is right again
        elif told is None:
            reasons.clear()
        self._taken_back(self._kept, Kind.RECOVERY, database)
        if told is not None and now - told < REMIND and event.reason in reasons:
            self._failing[database] = told
            return False
        reasons -= {each.reason for each in self._taken_back(self._queue, Kind.FAILURE, database)}
        reasons.add(event.reason)
        self._failing[database] = now
        return True

    def _has_recovered(self, event: Event) -> bool:
        self._taken_back(self._queue, Kind.FAILURE, event.database)
        self._failing.pop(event.database, None)
        return event.database in self._believed

    def _taken_back(self, queue: deque[Event], kind: Kind, database: str) -> list[Event]:
        """Those in the queue, which are taken out."""
        found = [each for each in queue if (each.kind, each.database) == (kind, database)]
        for each in found:
            queue.remove(each)
        self._left_out += len(found)
        return found

    def _is_new(self, event: Event, now: float) -> bool:
        words = (event.database, event.message)
        said = self._said.get(words)
        if said is not None and now - said < REPEAT:
            return False
        self._kept = deque(each for each in self._kept if (each.database, each.message) != words)
        self._said[words] = now
        self._said.move_to_end(words)
        while len(self._said) > REMEMBERED:
            self._said.popitem(last=False)
        return True

    def _refill(self, now: float) -> None:
        if self._refilled is not None:
            self._tokens = min(float(BURST), self._tokens + (now - self._refilled) / REFILL)
        self._refilled = now


def said_in(message: Message, holder: str, store: str) -> dict[str, object]:
    """The JSON of a notification. `text` is what Slack and its like show; a name in it can neither link nor mention."""
    event = message.event
    what = f"{event.database}: {event.message}" if event.database else event.message
    more = f" ({message.left_out} more were left out)" if message.left_out else ""
    late = f" (late: it happened at {event.at:%Y-%m-%d %H:%M} UTC)" if message.again else ""
    hint = f"\n{event.hint}" if event.hint else ""
    text = f"sidecar {event.kind} on {holder}: {what}{late}{more}{hint}"
    return {
        "text": text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"),
        "kind": event.kind.value,
        "at": event.at.isoformat(),
        "database": event.database,
        "message": event.message,
        "hint": event.hint,
        "left_out": message.left_out,
        "holder": holder,
        "store": store,
    }


def shortened(event: Event, limit: int = 1000) -> Event:
    """An event that fits into a message."""
    return replace(event, message=event.message[:limit], hint=event.hint[:limit])
