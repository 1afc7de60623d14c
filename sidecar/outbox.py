"""What is worth telling people, and when: no repetition, no flood, and never a failure without its end (pure)."""

from collections import OrderedDict, deque
from dataclasses import dataclass, replace

from sidecar.quantities import format_size
from sidecar.status import Event, Kind

TOLD = frozenset({Kind.FAILURE, Kind.RECOVERY, Kind.DIVERGENCE, Kind.SUSPICION, Kind.DRILL, Kind.DAMAGED, Kind.GROWTH})
QUEUE = 50
BURST = 10
REFILL = 60.0  # seconds for one more message, up to `BURST`
REPEAT = 3600.0  # seconds for which the same words are not said again
REMIND = 6 * 3600.0  # seconds after which a failure that goes on is said again
REMEMBERED = 200


@dataclass(frozen=True, slots=True)
class Message:
    """An event to be told; `left_out` counts those since the last one that were not: repeated, or too many."""

    event: Event
    left_out: int = 0


class Outbox:
    """The queue of one receiver. Times are seconds of a monotonic clock.

    Failures are a state of their database: told when it begins, again every `REMIND`, and when it ends. An end whose
    beginning was never sent cancels it, and the other way round, so that what is told last is always how things are.
    Everything else is told once in `REPEAT`.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._queue: deque[Event] = deque()
        self._left_out = 0
        self._failing: dict[str, float] = {}
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
        if len(self._queue) >= QUEUE:
            lost = self._queue.popleft()  # the newest says how things are
            self._failing.pop(lost.database, None) if lost.kind is Kind.FAILURE else None
            self.dropped += 1
            self._left_out += 1
        self._queue.append(event)

    def take(self, now: float) -> Message | None:
        """The oldest one, if it may be sent now."""
        self._refill(now)
        if not self._queue or self._tokens < 1.0:
            return None
        self._tokens -= 1.0
        return self._message(self._queue.popleft())

    def take_newest(self) -> Message | None:
        """The newest one, whatever the rate: for the last seconds."""
        return self._message(self._queue.pop()) if self._queue else None

    def wait(self, now: float) -> float | None:
        """Seconds until `take` may have one; None when there is nothing to send."""
        self._refill(now)
        return max(0.0, (1.0 - self._tokens) * REFILL) if self._queue else None

    def undelivered(self, message: Message) -> None:
        """It could not be delivered, and will not be: what follows from it is forgotten, so that it is said again."""
        self.dropped += 1
        self._left_out += message.left_out + 1
        if message.event.kind is Kind.FAILURE:
            self._failing.pop(message.event.database, None)

    def _message(self, event: Event) -> Message:
        left_out, self._left_out = self._left_out, 0
        return Message(event, left_out)

    def _is_news(self, event: Event, now: float) -> bool:
        if event.kind is Kind.RECOVERY:
            return self._has_recovered(event)
        if event.kind is Kind.FAILURE and event.database:
            return self._fails(event, now)
        return self._is_new(event, now)

    def _fails(self, event: Event, now: float) -> bool:
        if self._unsent(Kind.RECOVERY, event.database):
            self._failing[event.database] = now
            return False  # the receiver still believes that it fails, which is right again
        told = self._failing.get(event.database)
        if told is not None and now - told < REMIND:
            return False
        self._failing[event.database] = now
        return True

    def _has_recovered(self, event: Event) -> bool:
        if self._unsent(Kind.FAILURE, event.database):
            self._failing.pop(event.database, None)
            return False
        return self._failing.pop(event.database, None) is not None

    def _unsent(self, kind: Kind, database: str) -> bool:
        """Whether there was one in the queue, which is taken out."""
        for event in self._queue:
            if (event.kind, event.database) == (kind, database):
                self._queue.remove(event)
                self._left_out += 1
                return True
        return False

    def _is_new(self, event: Event, now: float) -> bool:
        words = (event.database, event.message)
        said = self._said.get(words)
        if said is not None and now - said < REPEAT:
            return False
        self._said[words] = now
        self._said.move_to_end(words)
        while len(self._said) > REMEMBERED:
            self._said.popitem(last=False)
        return True

    def _refill(self, now: float) -> None:
        if self._refilled is not None:
            self._tokens = min(float(BURST), self._tokens + (now - self._refilled) / REFILL)
        self._refilled = now


@dataclass(frozen=True, slots=True)
class Growth:
    """`alert_growth`: a size that a database must not reach, or a factor by which no publish may make it larger."""

    limit: int | None = None
    factor: float | None = None

    def __str__(self) -> str:
        """As it is written in settings."""
        return f"{100 * self.factor:g}%" if self.factor is not None else format_size(self.limit or 0)

    def exceeded(self, before: int | None, size: int) -> bool:
        """Whether this size, after the one before, is to be told: once when the limit is passed, not ever after."""
        if self.limit is not None:
            return size >= self.limit and (before is None or before < self.limit)
        if self.factor is not None and before:
            return size > before * (1.0 + self.factor)
        return False


def said_in(message: Message, holder: str, store: str) -> dict[str, object]:
    """The JSON of a notification. `text` is what Slack and its like show; a name in it can neither link nor mention."""
    event = message.event
    what = f"{event.database}: {event.message}" if event.database else event.message
    more = f" ({message.left_out} more were left out)" if message.left_out else ""
    hint = f"\n{event.hint}" if event.hint else ""
    text = f"sidecar {event.kind} on {holder}: {what}{more}{hint}"
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
