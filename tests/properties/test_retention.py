"""Which restore points may expire: for any history, and any daemon that lives through it."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from sidecar.model import Timestamp
from sidecar.policies import RetentionDays
from sidecar.repository.retention import (
    EXPIRING,
    GRACE,
    PROOF,
    SPARED,
    Tagged,
    Tier,
    derive,
    lifetime,
    plan_prune,
    tier_of,
)
from sidecar.repository.suspicion import SIGNIFICANT_BYTES, SIGNIFICANT_ROWS, Extent, loss
from tests.fakes import START

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
KEEP = RetentionDays()
instants = st.integers(0, 200 * 86_400_000).map(lambda milliseconds: START + timedelta(milliseconds=milliseconds))
tiers = st.sampled_from([None, *Tier])
gaps = st.one_of(
    st.integers(1, 600),
    st.integers(600, 86_400),
    st.integers(86_400, 5 * 86_400),
    st.sampled_from([1, 59 * 60, 3600, 86_399, 86_400, 14 * 86_400, 21 * 86_400, 80 * 86_400]),
)


@st.composite
def keeps(draw: st.DrawFn) -> RetentionDays:
    """Any days that the setting allows, often short ones."""
    days = st.one_of(st.just(1), st.integers(1, 40))
    recent, hourly, daily = sorted(draw(st.tuples(days, days, days)))
    daily = max(daily, 7)
    return RetentionDays(recent, min(hourly, daily), daily, draw(st.integers(7, daily)))


@st.composite
def histories(draw: st.DrawFn) -> list[datetime]:
    """Instants at which restore points are published: minutes apart, days, or months of sleep."""
    history = [draw(instants)]
    for gap in draw(st.lists(gaps, max_size=60)):
        history.append(history[-1] + timedelta(seconds=gap))
    return history


@st.composite
def stores(draw: st.DrawFn) -> list[Tagged]:
    """Restore points in any order, with any tiers, over months: mostly without a gap that would make us distrustful."""
    steps = draw(st.lists(st.integers(1, 7 * 86_400), max_size=40))
    if draw(st.integers(0, 4)) == 0:
        steps.append(20 * 86_400)
    times = [Timestamp.of(START + timedelta(seconds=sum(steps[:count]))) for count in range(1, len(steps) + 1)]
    return draw(st.permutations([Tagged(str(time), time, draw(tiers)) for time in times]))


@st.composite
def looks(draw: st.DrawFn) -> tuple[list[Tagged], datetime]:
    """Restore points, and a clock that is often right: at most a week after the newest, or before it."""
    points = draw(stores())
    newest = max((point.timestamp.instant for point in points), default=START)
    return points, newest + timedelta(seconds=draw(st.integers(0, 7 * 86_400) | st.integers(-90 * 86_400, 90 * 86_400)))


def superseded(history: Iterable[datetime], keep: RetentionDays = KEEP) -> list[Tagged]:
    """What a daemon makes of a history: each gets its tier by the next one, the newest none."""
    times = [Timestamp.of(instant) for instant in history]
    return [
        *(Tagged(str(older), older, tier_of(older, newer, keep)) for older, newer in pairwise(times)),
        Tagged(str(times[-1]), times[-1], None),
    ]


@given(instants, gaps)
def test_the_tier_says_what_the_restore_point_is_the_last_of(instant: datetime, gap: int) -> None:
    older, newer = Timestamp.of(instant), Timestamp.of(instant + timedelta(seconds=gap))
    tier = tier_of(older, newer, KEEP)
    if older.instant.date() != newer.instant.date():
        midnight = newer.instant.replace(hour=0, minute=0, second=0, microsecond=0)
        assert tier is (Tier.DAILY if midnight - older.instant <= 21 * DAY else None)
    elif older.instant.hour != newer.instant.hour:
        assert tier is Tier.HOURLY
    else:
        assert tier is Tier.RECENT


@given(instants, gaps, gaps, keeps())
def test_an_earlier_successor_never_gives_a_longer_life(
    instant: datetime, one: int, other: int, keep: RetentionDays
) -> None:
    """The longer a restore point was the newest, the more data only it holds."""

    def life(gap: int) -> timedelta:
        tier = tier_of(Timestamp.of(instant), Timestamp.of(instant + timedelta(seconds=gap)), keep)
        return lifetime(tier, keep) if tier else timedelta.max

    assert life(min(one, other)) <= life(max(one, other))


@given(instants, st.integers(1, 50 * 86_400), keeps())
@settings(max_examples=300)
def test_nothing_expires_at_the_moment_it_is_superseded(instant: datetime, gap: int, keep: RetentionDays) -> None:
    """An app that slept for months and publishes garbage must not take the good one with it."""
    newer = Timestamp.of(instant + timedelta(seconds=gap))
    tier = tier_of(Timestamp.of(instant), newer, keep)
    if tier:
        life, within = lifetime(tier, keep), {Tier.RECENT: timedelta(0), Tier.HOURLY: timedelta(hours=1)}.get(tier, DAY)
        superseded_for = newer.instant - instant
        left = life - superseded_for
        assert left >= timedelta(hours=11)
        assert left + within >= min(GRACE, life / 2) or tier is Tier.RECENT


@given(looks())
@settings(max_examples=300)
def test_pruning_takes_only_what_has_expired(look: tuple[list[Tagged], datetime]) -> None:
    """Never the newest, a held one or one without a tier, whatever the tags say; and some always stay."""
    points, now = look
    expired = plan_prune(points, now, KEEP)
    by_key = {point.key: point for point in points}
    assert len(set(expired)) == len(expired)
    for key in expired:
        point = by_key[key]
        assert point.tier in EXPIRING
        assert now - point.timestamp.instant > lifetime(point.tier, KEEP)
    if points:
        assert max(by_key) not in expired
    assert not expired or len(points) - len(expired) >= SPARED + 1
    assert expired == sorted(expired), "oldest first: what is cut off by a crash is the newer ones"


@given(looks())
def test_the_tier_of_the_newest_does_not_matter(look: tuple[list[Tagged], datetime]) -> None:
    points, now = look
    assume(points)
    newest = max(points, key=lambda point: point.timestamp)
    for tier in (None, *Tier):
        changed = [Tagged(p.key, p.timestamp, tier) if p == newest else p for p in points]
        assert newest.key not in plan_prune(changed, now, KEEP)
        assert plan_prune(changed, now, KEEP) == plan_prune(points, now, KEEP)


@given(stores(), st.integers(1, 200 * 86_400))
def test_a_clock_behind_the_newest_prunes_nothing(points: list[Tagged], behind: int) -> None:
    assume(points)
    now = max(point.timestamp for point in points).instant - timedelta(seconds=behind)
    assert plan_prune(points, now, KEEP) == []


@given(histories(), st.integers(8, 40_000), st.lists(st.integers(1, 86_399), max_size=20))
def test_a_clock_that_leapt_ahead_prunes_nothing_for_a_day(history: list[datetime], days: int, more: list[int]) -> None:
    """Nor after it has stamped restore points of its own: its history must last a day first."""
    leapt = history[-1] + days * DAY
    assume(leapt.year < 9000)
    assert plan_prune(superseded(history), leapt, KEEP) == []
    after = [leapt + timedelta(seconds=seconds) for seconds in sorted(set(more))]
    assert plan_prune(superseded([*history, leapt, *after]), leapt + PROOF - timedelta(seconds=1), KEEP) == []


@given(histories(), st.booleans())
@settings(max_examples=150)
def test_every_day_of_the_last_35_keeps_its_last_restore_point(history: list[datetime], crashing: bool) -> None:
    """Through a whole life of publishing and pruning, also when every other tag is forgotten in a crash."""
    there: list[Tagged] = []
    for number, instant in enumerate(history):
        tagged = superseded([*(point.timestamp.instant for point in there[-1:]), instant])
        if crashing and number % 2 and there:
            tagged[0] = there[-1]
        there = [*there[:-1], *tagged]
        expired = set(plan_prune(there, instant + timedelta(milliseconds=1), KEEP))
        there = [point for point in there if point.key not in expired]
        kept = {point.key for point in there}
        last_of_day = {Timestamp.of(each).text[:8]: Timestamp.of(each) for each in history[: number + 1]}
        for last in last_of_day.values():
            if instant - last.instant < lifetime(Tier.DAILY, KEEP):
                assert str(last) in kept
        assert str(Timestamp.of(instant)) in kept
        last_of_hour = {Timestamp.of(each).text[:11]: Timestamp.of(each) for each in history[: number + 1]}
        for last in last_of_hour.values():
            if instant - last.instant < lifetime(Tier.HOURLY, KEEP):
                assert str(last) in kept


@given(looks())
def test_pruning_twice_is_pruning_once(look: tuple[list[Tagged], datetime]) -> None:
    """A restore point that was kept once is not deleted in the next run, when the history is shorter."""
    points, now = look
    expired = set(plan_prune(points, now, KEEP))
    rest = [point for point in points if point.key not in expired]
    assert plan_prune(rest, now, KEEP) == []


def test_what_has_expired_is_taken() -> None:
    """A year of days: each tier goes when its time has come, and no other."""
    days = [Timestamp.of(START + number * DAY) for number in range(365)]
    for tier in (None, *Tier):
        points = [Tagged(str(day), day, tier) for day in days]
        kept = lifetime(tier, KEEP).days if tier in EXPIRING else 364
        assert plan_prune(points, days[-1].instant, KEEP) == [str(day) for day in days[: 364 - max(kept, SPARED)]]


def test_a_busy_directory_comes_to_rest_at_a_bounded_number() -> None:
    """Every five minutes for three months: a day of these, a week of hours, five weeks of days."""
    times = [START + number * timedelta(minutes=5) for number in range(90 * 288)]
    points = superseded(times)
    expired = plan_prune(points, times[-1], KEEP)
    assert len(points) - len(expired) <= 288 + 7 * 24 + 35 + 3


@pytest.mark.parametrize("days", [1, 6, 7])
def test_an_ordinary_pause_does_not_stop_pruning(days: int) -> None:
    old = [START, START + timedelta(minutes=1), START + timedelta(minutes=2), START + timedelta(minutes=3)]
    pauses = [START + number * days * DAY for number in range(1, 8)]
    assert plan_prune(superseded([*old, *pauses]), pauses[-1] + timedelta(minutes=1), KEEP)


@st.composite
def extents(draw: st.DrawFn) -> Extent:
    size = draw(st.integers(1, 1 << 40))
    live = draw(st.none() | st.integers(0, size) | st.sampled_from([size // 2, size // 11, size // 100]))
    bare = draw(st.none() | st.integers(0, live)) if live is not None else None
    rows = draw(st.none() | st.integers(0, 1000))
    return Extent(size, draw(st.none() | st.integers(0, 5)), live, bare, rows)


@given(extents(), extents())
def test_suspicion_is_of_loss_alone(previous: Extent, now: Extent) -> None:
    """No table where there may have been some, or less than a tenth of something; never of a database that stays as it is."""
    left = now.size if previous.live is None else now.in_use
    fewer_rows = (
        (previous.rows or 0) >= SIGNIFICANT_ROWS and now.rows is not None and now.rows * 10 < (previous.rows or 0)
    )
    known = previous.bare is not None and now.bare is not None
    emptied = known and previous.content >= SIGNIFICANT_BYTES and now.content * 10 < previous.content
    lost = previous.tables != 0 and (now.tables == 0 or left * 10 < previous.in_use or fewer_rows or emptied)
    assert bool(loss(previous, now)) == lost
    assert loss(now, now) is None or now.tables is None


@given(extents(), st.integers(0, 1 << 30), st.integers(0, 1000), st.integers(0, 100))
def test_a_database_that_grows_is_not_suspicious(now: Extent, more: int, rows: int, tables: int) -> None:
    """By whatever: rows, new tables and their empty pages, or both."""
    bare = None if now.bare is None else now.bare + (tables << 12)
    live = None if now.live is None else now.live + (tables << 12) + more
    grown = Extent(
        now.size + more + (tables << 12),
        (now.tables or 0) + tables + 1,
        live,
        bare,
        None if now.rows is None else now.rows + rows,
    )
    assert loss(now, grown) is None


@given(st.integers(1, 1000), st.integers(0, 1 << 20), st.integers(SIGNIFICANT_ROWS, 1000))
def test_deleting_all_rows_is_suspicious_however_many_tables_there_are(tables: int, content: int, rows: int) -> None:
    """Empty tables keep a page each, which may be most of what there was."""
    bare = (tables + 1) << 12
    full, empty = Extent(bare + content, tables, bare + content, bare, rows), Extent(bare, tables, bare, bare, 0)
    assert loss(full, empty)
    large = replace(full, rows=None)
    assert bool(loss(large, replace(empty, rows=None))) == (content >= SIGNIFICANT_BYTES or bare * 10 < bare + content)


@given(extents())
def test_what_a_restore_point_has_is_read_as_it_was_written(extent: Extent) -> None:
    assert Extent.written(extent.to_metadata(), 7) == extent
    assert Extent.written({}, 7) == Extent(7, None)
    assert Extent.written({"size": "x", "rows": "-1", "live": "²"}, 7) == Extent(7, None)


@given(extents(), st.integers(0, 1 << 40))
def test_unused_pages_are_no_loss_and_hide_none(now: Extent, unused: int) -> None:
    """However large the file is: a VACUUM is no loss, and deleted rows are one with and without it."""
    tables = now.tables or 1
    before = Extent(now.in_use + unused, tables, now.in_use)
    vacuumed = Extent(now.in_use, tables, now.in_use)
    assert loss(before, vacuumed) is None
    for left in (0, now.in_use // 11, now.in_use // 2):
        deleted, compact = Extent(before.size, tables, left), Extent(left, tables, left)
        assert loss(before, deleted) == loss(before, compact)


@given(extents(), st.integers(0, 1 << 40))
def test_an_older_sidecar_s_restore_point_is_compared_by_size_alone(now: Extent, live: int) -> None:
    """A restore point whose unused pages are unknown."""
    before = Extent(now.size, now.tables or 1)
    assert loss(before, Extent(now.size, 1, min(live, now.size))) is None


@given(histories(), keeps(), st.integers(0, 3 * 86_400))
@example(  # its successor expires weeks before it does, and another one of that day takes its place
    [START, START + 20 * DAY + 20 * HOUR, *(START + 21 * DAY + HOUR + number * DAY for number in range(16))], KEEP, 0
)
@settings(max_examples=300)
def test_names_alone_lead_to_the_same_decisions_as_tags(
    history: list[datetime], keep: RetentionDays, later: int
) -> None:
    """Through a whole life of publishing and pruning: what was superseded by something that is gone by now, too."""
    tagged: list[Tagged] = []
    named: list[Timestamp] = []
    for instant in history:
        tagged = [*tagged[:-1], *superseded([*(each.timestamp.instant for each in tagged[-1:]), instant], keep)]
        named = [*named, Timestamp.of(instant)]
        for now in (instant + timedelta(milliseconds=1), instant + timedelta(seconds=later)):
            expired = set(plan_prune(tagged, now, keep))
            tagged = [each for each in tagged if each.key not in expired]
            derived = [Tagged(str(one), one, tier) for one, tier in zip(named, derive(named, keep), strict=True)]
            gone = set(plan_prune(derived, now, keep))
            named = [each for each in named if str(each) not in gone]
            assert [str(each) for each in named] == [each.key for each in tagged]
