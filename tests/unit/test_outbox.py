"""Which notifications are sent, and when: failures and their ends, nothing twice, no flood; in virtual time."""

import pytest

from sidecar.errors import Reason
from sidecar.monitoring.outbox import (
    BURST,
    QUEUE,
    REFILL,
    REMIND,
    REPEAT,
    SENT,
    Message,
    Outbox,
    format_message,
    shorten,
)
from sidecar.policies import Growth
from sidecar.status.model import Event
from sidecar.status.problems import Kind
from tests.fakes import START


def event(kind: Kind, message: str = "words", database: str = "app.db", hint: str = "") -> Event:
    return Event(kind, START, database, message, hint)


def told(outbox: Outbox, now: float = 0.0) -> list[str]:
    """Take every message that may be sent at this time."""
    found = []
    while message := outbox.take(now):
        found.append(f"{message.event.kind} {message.event.database}".strip())
    return found


def fail(outbox: Outbox, now: float = 0.0, database: str = "app.db") -> None:
    outbox.add(event(Kind.FAILURE, f"at {now}", database), now)


def recover(outbox: Outbox, now: float = 0.0, database: str = "app.db") -> None:
    outbox.add(event(Kind.RECOVERY, f"at {now}", database), now)


def test_an_outage_is_sent_when_it_begins_and_when_it_ends_however_often_it_fails() -> None:
    outbox = Outbox()
    found = []
    for now in range(0, 600, 10):
        fail(outbox, now)
        found += told(outbox, now)
    recover(outbox, 600)
    assert found + told(outbox, 600) == ["failure app.db", "recovery app.db"]


def test_an_outage_that_persists_is_sent_again_after_hours() -> None:
    outbox = Outbox()
    fail(outbox)
    told(outbox)
    fail(outbox, REMIND - 1)
    assert told(outbox, REMIND - 1) == []
    fail(outbox, REMIND)
    assert told(outbox, REMIND) == ["failure app.db"]


def test_another_cause_is_sent_at_once_and_each_only_once() -> None:
    """The store was unreachable, and now denies access: the receiver was told to wait, and must know better now."""
    outbox = Outbox()
    causes = [Reason.UNAVAILABLE, Reason.UNAVAILABLE, Reason.ACCESS_DENIED, Reason.UNAVAILABLE, Reason.ACCESS_DENIED]
    found = []
    for now, cause in enumerate(causes):
        outbox.add(Event(Kind.FAILURE, START, "app.db", f"at {now}", reason=cause), float(now))
        found.append(told(outbox, float(now)))
    assert found == [["failure app.db"], [], ["failure app.db"], [], []]
    recover(outbox, 10.0)
    assert told(outbox, 10.0) == ["recovery app.db"]
    outbox.add(Event(Kind.FAILURE, START, "app.db", "again", reason=Reason.ACCESS_DENIED), 11.0)
    assert told(outbox, 11.0) == ["failure app.db"]


def test_databases_fail_and_recover_by_themselves() -> None:
    outbox = Outbox()
    fail(outbox, database="a.db")
    fail(outbox, database="b.db")
    assert told(outbox) == ["failure a.db", "failure b.db"]
    recover(outbox, database="b.db")
    fail(outbox, database="a.db")
    assert told(outbox) == ["recovery b.db"]


def test_a_recovery_without_a_failure_is_not_sent() -> None:
    outbox = Outbox()
    recover(outbox)
    assert told(outbox) == []


def test_a_failure_that_is_over_before_it_was_sent_is_not_sent() -> None:
    outbox = Outbox()
    fail(outbox)
    recover(outbox)
    assert told(outbox) == []


@pytest.mark.parametrize("ends_failing", [True, False])
def test_the_last_message_reflects_the_current_state_even_at_the_rate_limit(ends_failing: bool) -> None:
    """The database flaps faster than messages may be sent: the last one is still true."""
    outbox, believed = Outbox(), "recovery app.db"
    for now in range(200):
        (fail if now % 2 else recover)(outbox, now)
        believed = (told(outbox, now) or [believed])[-1]
    (fail if ends_failing else recover)(outbox, 200)
    believed = (told(outbox, 200 + 2 * REFILL) or [believed])[-1]
    assert believed == ("failure app.db" if ends_failing else "recovery app.db")


def test_the_same_message_is_sent_once_an_hour() -> None:
    outbox = Outbox()
    found = []
    for now in (0, 10, REPEAT - 1, REPEAT):
        outbox.add(event(Kind.SUSPICION), now)
        found += [(now, each) for each in told(outbox, now)]
    assert found == [(0, "suspicion app.db"), (REPEAT, "suspicion app.db")]


@pytest.mark.parametrize("kind", [Kind.DIVERGENCE, Kind.SUSPICION, Kind.DRILL, Kind.DAMAGED, Kind.GROWTH, Kind.FINDING])
def test_another_message_is_sent_at_once(kind: Kind) -> None:
    outbox = Outbox()
    outbox.add(event(kind, "one"), 0)
    outbox.add(event(kind, "two"), 0)
    assert len(told(outbox)) == 2


@pytest.mark.parametrize("kind", [Kind.NOTICE, Kind.PUBLISHED, Kind.PROTECTED])
def test_events_that_are_not_for_people_are_not_sent(kind: Kind) -> None:
    outbox = Outbox()
    outbox.add(event(kind), 0)
    assert told(outbox) == []


def test_a_flood_is_sent_at_the_rate_and_counted() -> None:
    outbox = Outbox()
    for number in range(BURST + 5):
        outbox.add(event(Kind.DAMAGED, str(number)), 0)
    assert len(told(outbox)) == BURST
    assert outbox.wait(0) == pytest.approx(REFILL)
    assert outbox.wait(REFILL / 4) == pytest.approx(REFILL * 0.75)
    assert len(told(outbox, REFILL)) == 1
    assert len(told(outbox, 3 * REFILL)) == 2


def test_a_long_silence_accumulates_no_more_than_a_burst() -> None:
    outbox = Outbox()
    told(outbox)
    for number in range(BURST + 5):
        outbox.add(event(Kind.DAMAGED, str(number)), 1e6)
    assert len(told(outbox, 1e6)) == BURST


def test_a_full_queue_drops_the_oldest_and_says_how_many() -> None:
    outbox = Outbox()
    for number in range(QUEUE + 3):
        outbox.add(event(Kind.DAMAGED, str(number)), 0)
    assert outbox.dropped == 3
    message = outbox.take(0)
    assert message == Message(event(Kind.DAMAGED, "3"), left_out=3)
    assert outbox.take(0) == Message(event(Kind.DAMAGED, "4"), left_out=0)


def test_an_undelivered_failure_is_sent_when_it_happens_again() -> None:
    outbox = Outbox()
    fail(outbox)
    message = outbox.take(0)
    assert message is not None
    outbox.undelivered(message, 0)
    fail(outbox, 2)
    assert told(outbox, 2) == ["failure app.db"]
    assert outbox.dropped == 1


def test_a_flood_of_other_events_pushes_no_failure_out_of_the_queue() -> None:
    outbox = Outbox()
    fail(outbox)
    for number in range(2 * QUEUE):
        outbox.add(event(Kind.DAMAGED, str(number)), 0)
    assert outbox.dropped == QUEUE + 1
    assert told(outbox)[0] == "failure app.db"


@pytest.mark.parametrize("kind", sorted(SENT - {Kind.FAILURE, Kind.RECOVERY}))
def test_an_undelivered_message_is_sent_again_at_growing_intervals(kind: Kind) -> None:
    outbox, now, pauses = Outbox(), 0.0, []
    outbox.add(event(kind), now)
    for _ in range(8):
        message = outbox.take(now)
        assert message is not None
        outbox.undelivered(message, now)
        wait = outbox.wait(now)
        assert wait is not None
        assert outbox.take(now + wait - 1) is None
        pauses.append(wait)
        now += wait
    assert pauses == [300, 600, 1200, 2400, 3600, 3600, 3600, 3600]
    last = outbox.take(now)
    assert last == Message(event(kind), again=True)
    assert outbox.dropped == 0


def test_an_undelivered_message_is_sent_as_soon_as_another_one_gets_through() -> None:
    outbox = Outbox()
    outbox.add(event(Kind.SUSPICION), 0)
    lost = outbox.take(0)
    assert lost is not None
    outbox.undelivered(lost, 0)
    outbox.add(event(Kind.GROWTH, "other"), 1)
    other = outbox.take(1)
    assert other is not None
    assert outbox.take(1) is None
    outbox.delivered(other)
    assert told(outbox, 1) == ["suspicion app.db"]


def test_an_undelivered_recovery_is_not_sent_once_it_fails_again() -> None:
    """The new failure is sent: the recovery may have arrived, if only the reply was lost."""
    outbox = Outbox()
    fail(outbox)
    told(outbox)
    recover(outbox, 10)
    end = outbox.take(10)
    assert end is not None
    outbox.undelivered(end, 10)
    fail(outbox, 20)
    assert told(outbox, 10_000) == ["failure app.db"]


def test_a_recovery_that_may_not_have_arrived_is_sent_although_it_failed_again_meanwhile() -> None:
    outbox = Outbox()
    fail(outbox)
    told(outbox)
    recover(outbox, 10)
    end = outbox.take(10)
    assert end is not None
    outbox.undelivered(end, 10)
    fail(outbox, 20)
    recover(outbox, 30)
    assert told(outbox, 10_000) == ["recovery app.db"]


def test_a_recovery_that_is_being_sent_is_not_sent_again_when_it_fails_meanwhile() -> None:
    outbox = Outbox()
    fail(outbox)
    told(outbox)
    recover(outbox, 10)
    end = outbox.take(10)
    assert end is not None
    fail(outbox, 20)
    outbox.undelivered(end, 30)
    assert told(outbox, 10_000) == ["failure app.db"]


def test_a_reminder_that_was_not_sent_does_not_swallow_the_recovery() -> None:
    outbox = Outbox()
    fail(outbox)
    told(outbox)
    fail(outbox, REMIND)
    recover(outbox, REMIND + 1)
    assert told(outbox, REMIND + 1) == ["recovery app.db"]


def test_the_number_of_kept_messages_is_bounded() -> None:
    outbox = Outbox()
    for number in range(10 * QUEUE):
        outbox.add(event(Kind.DAMAGED, str(number)), 0)
        message = outbox.take_newest()
        assert message is not None
        outbox.undelivered(message, 0)
    assert len(outbox._kept) == QUEUE
    assert outbox.dropped > 0


def test_in_the_last_seconds_the_newest_comes_first_whatever_the_rate() -> None:
    outbox = Outbox()
    for number in range(BURST + 5):
        outbox.add(event(Kind.DAMAGED, str(number)), 0)
    told(outbox)
    newest = outbox.take_newest()
    assert newest is not None
    assert newest.event.message == str(BURST + 4)


def test_memory_of_sent_messages_is_bounded() -> None:
    outbox = Outbox()
    for number in range(10_000):
        outbox.add(event(Kind.DAMAGED, str(number)), 0)
        outbox.take_newest()
    assert len(outbox._sent) <= 200


def test_a_hostile_name_can_neither_link_nor_mention_anybody() -> None:
    """Slack reads <!channel> and <https://…> in `text`; everywhere else the name is unchanged."""
    content = format_message(Message(event(Kind.FAILURE, "no & never", "<!channel>.db", "do this"), 2), "m1", "s3://b")
    assert content["text"] == (
        "sidecar failure on m1: &lt;!channel&gt;.db: no &amp; never (2 more were left out)\ndo this"
    )
    assert (content["database"], content["kind"], content["store"]) == ("<!channel>.db", "failure", "s3://b")


def test_a_late_message_says_when_it_happened() -> None:
    content = format_message(Message(event(Kind.SUSPICION), again=True), "m1", "s3://b")
    assert content["text"] == "sidecar suspicion on m1: app.db: words (late: it happened at 2026-11-20 14:55 UTC)"


def test_a_message_is_bounded() -> None:
    cut = shorten(event(Kind.FAILURE, "x" * 5000, hint="y" * 5000))
    assert (len(cut.message), len(cut.hint)) == (1000, 1000)


@pytest.mark.parametrize(
    ("growth", "before", "size", "exceeded"),
    [
        (Growth(limit=100), None, 99, False),
        (Growth(limit=100), None, 100, True),
        (Growth(limit=100), 99, 100, True),
        (Growth(limit=100), 100, 200, False),
        (Growth(factor=0.5), None, 10**9, False),
        (Growth(factor=0.5), 0, 10**9, False),
        (Growth(factor=0.5), 100, 150, False),
        (Growth(factor=0.5), 100, 151, True),
        (Growth(factor=0.5), 100, 10, False),
        (Growth(), 1, 10**9, False),
    ],
)
def test_growth(growth: Growth, before: int | None, size: int, exceeded: bool) -> None:
    assert growth.exceeded(before, size) is exceeded
