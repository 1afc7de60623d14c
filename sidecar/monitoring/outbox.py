"""The queue of one receiver of notifications: no repetition, no flood, and no failure without its recovery (pure)."""

from collections import OrderedDict, deque
from dataclasses import dataclass, replace

from sidecar.errors import Reason
from sidecar.status import Event, Kind

SENT = frozenset(Kind) - {Kind.NOTICE, Kind.PUBLISHED, Kind.PROTECTED, Kind.FIRST_START}
QUEUE = 50
BURST = 10
REFILL = 60.0  # seconds for one more message, up to `BURST`
REPEAT = 3600.0  # seconds for which the same message is not sent again
REMIND = 6 * 3600.0  # seconds after which a failure that persists is sent again
REMEMBERED = 200
AGAIN = 300.0  # seconds until an undelivered message is sent again; doubled after each failure
LONGEST_AGAIN = 3600.0
STATES = frozenset({Kind.FAILURE, Kind.RECOVERY})


@dataclass(frozen=True, slots=True)
class Message:
    """An event to be sent. `left_out` counts the events since the last message that were not sent.

    `again` means that delivery failed before, and that the message is late.
    """

    event: Event
    left_out: int = 0
    again: bool = False


class Outbox:
    """The queue of one receiver. Times are seconds of a monotonic clock.

    A failure is a state of its database. It is sent when it begins, once for each new reason, again every `REMIND`, and
    when it ends. A recovery cancels an unsent failure, and vice versa, so the last message always reflects the current
    state. All other events are sent at most once in `REPEAT`.

    Undelivered messages are kept: they are sent again when another message gets through, else after `AGAIN`, and then at
    growing intervals. Failures are not kept, because they are reported again for as long as they last.
    """

    def __init__(self) -> None:
        self.dropped = 0
        self._queue: deque[Event] = deque()
        self._kept: deque[Event] = deque()
        self._again = 0.0
        self._pause = AGAIN
        self._left_out = 0
        self._failing: dict[str, float] = {}
        self._reasons: dict[str, set[Reason | None]] = {}  # reasons sent, by failing database
        self._last_sent: dict[str, Kind | None] = {}  # by database; None when it is not known what arrived
        self._sent: OrderedDict[tuple[str, str], float] = OrderedDict()
        self._tokens = float(BURST)
        self._refilled: float | None = None

    def add(self, event: Event, now: float) -> None:
        """Queue an event if it is news."""
        if event.kind not in SENT:
            return
        if not self._is_news(event, now):
            self._left_out += 1
            return
        self._put(self._queue, event)

    def take(self, now: float) -> Message | None:
        """Return the oldest message if one may be sent now; messages that failed before come last."""
        self._refill(now)
        due = bool(self._queue) or (bool(self._kept) and now >= self._again)
        if not due or self._tokens < 1.0:
            return None
        self._tokens -= 1.0
        return self._message(self._queue.popleft()) if self._queue else self._message(self._kept.popleft(), again=True)

    def take_newest(self) -> Message | None:
        """Return the newest message whatever the rate, for the last seconds before the process ends."""
        if self._queue:
            return self._message(self._queue.pop())
        return self._message(self._kept.pop(), again=True) if self._kept else None

    def wait(self, now: float) -> float | None:
        """Seconds until `take` may return a message; None when there is nothing to send."""
        self._refill(now)
        if not self._queue and not self._kept:
            return None
        return max(0.0, (1.0 - self._tokens) * REFILL, 0.0 if self._queue else self._again - now)

    def delivered(self, message: Message) -> None:
        """Record a delivery: the receiver works, so kept messages may be sent now."""
        self._again, self._pause = 0.0, AGAIN

    def undelivered(self, message: Message, now: float) -> None:
        """Record a delivery that failed and may succeed later."""
        self._again = now + self._pause
        self._pause = min(LONGEST_AGAIN, 2 * self._pause)
        event = message.event
        self._mark_unsure(event)
        if event.kind is Kind.FAILURE and event.database:
            self.refused(message)
        elif event.kind is Kind.RECOVERY and event.database in self._failing:
            self._left_out += message.left_out + 1  # it fails again by now
        else:
            self._left_out += message.left_out
            self._put(self._kept, event)

    def refused(self, message: Message) -> None:
        """Record a message that will never be delivered. A failure is forgotten, so that it is sent again while it lasts."""
        self._left_out += message.left_out
        self._mark_unsure(message.event)
        self._forget(message.event)

    def _put(self, queue: deque[Event], event: Event) -> None:
        """Append an event; when the queue is full, drop the oldest one that is not a database's state, else the oldest."""
        queue.append(event)
        if len(queue) > QUEUE:
            lost = next((each for each in queue if each.kind not in STATES), queue[0])
            queue.remove(lost)
            self._forget(lost)

    def _mark_unsure(self, event: Event) -> None:
        """Note that the message may have arrived although no reply came."""
        if event.kind in STATES:
            self._last_sent[event.database] = None

    def _forget(self, event: Event) -> None:
        self.dropped += 1
        self._left_out += 1
        if event.kind is Kind.FAILURE:
            self._failing.pop(event.database, None)

    def _message(self, event: Event, *, again: bool = False) -> Message:
        left_out, self._left_out = self._left_out, 0
        if event.kind is Kind.FAILURE:
            self._last_sent[event.database] = Kind.FAILURE
        elif event.kind is Kind.RECOVERY:
            self._last_sent.pop(event.database, None)
        return Message(event, left_out, again)

    def _is_news(self, event: Event, now: float) -> bool:
        if event.kind is Kind.RECOVERY:
            return self._is_new_recovery(event)
        if event.kind is Kind.FAILURE and event.database:
            return self._is_new_failure(event, now)
        return self._is_new(event, now)

    def _is_new_failure(self, event: Event, now: float) -> bool:
        database, reasons = event.database, self._reasons.setdefault(event.database, set())
        sent = self._failing.get(database)
        if self._withdraw(self._queue, Kind.RECOVERY, database) and self._last_sent.get(database) is Kind.FAILURE:
            sent = now  # the last message is true again
        elif sent is None:
            reasons.clear()
        self._withdraw(self._kept, Kind.RECOVERY, database)
        if sent is not None and now - sent < REMIND and event.reason in reasons:
            self._failing[database] = sent
            return False
        reasons -= {each.reason for each in self._withdraw(self._queue, Kind.FAILURE, database)}
        reasons.add(event.reason)
        self._failing[database] = now
        return True

    def _is_new_recovery(self, event: Event) -> bool:
        self._withdraw(self._queue, Kind.FAILURE, event.database)
        self._failing.pop(event.database, None)
        return event.database in self._last_sent

    def _withdraw(self, queue: deque[Event], kind: Kind, database: str) -> list[Event]:
        """Remove the matching events from a queue and return them."""
        found = [each for each in queue if (each.kind, each.database) == (kind, database)]
        for each in found:
            queue.remove(each)
        self._left_out += len(found)
        return found

    def _is_new(self, event: Event, now: float) -> bool:
        key = (event.database, event.message)
        sent = self._sent.get(key)
        if sent is not None and now - sent < REPEAT:
            return False
        self._kept = deque(each for each in self._kept if (each.database, each.message) != key)
        self._sent[key] = now
        self._sent.move_to_end(key)
        while len(self._sent) > REMEMBERED:
            self._sent.popitem(last=False)
        return True

    def _refill(self, now: float) -> None:
        if self._refilled is not None:
            self._tokens = min(float(BURST), self._tokens + (now - self._refilled) / REFILL)
        self._refilled = now


def format_message(message: Message, holder: str, store: str) -> dict[str, object]:
    """The JSON of a notification. Slack and similar services show `text`; a name in it can neither link nor mention."""
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


def shorten(event: Event, limit: int = 1000) -> Event:
    """An event with its message and hint cut to `limit` characters each."""
    return replace(event, message=event.message[:limit], hint=event.hint[:limit])
