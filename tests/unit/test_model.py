"""Values: timestamps that sort as time does, signatures that are only trusted when they may be, spans."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from sidecar.model import FileStamp, Signature, Span, Timestamp

NOON = datetime(2026, 11, 20, 14, 55, 3, 123456, UTC)
DATABASE = FileStamp(inode=7, size=4096, mtime_ns=1_000)
WAL = FileStamp(inode=8, size=0, mtime_ns=2_000)


@pytest.mark.parametrize(("microsecond", "text"), [(999_999, "999"), (123_999, "123"), (999, "000"), (1_000, "001")])
def test_a_timestamp_is_cut_to_milliseconds_not_rounded(microsecond: int, text: str) -> None:
    """Rounding up would name an instant that has not come yet."""
    assert str(Timestamp.of(NOON.replace(microsecond=microsecond))) == f"20261120T145503.{text}Z"


def test_a_timestamp_is_in_utc_whatever_the_zone() -> None:
    there = NOON.astimezone(timezone(timedelta(hours=-11)))
    assert Timestamp.of(there) == Timestamp.of(NOON)


def test_the_instant_of_a_timestamp_is_aware_and_exact_to_the_millisecond() -> None:
    assert Timestamp.of(NOON).instant == NOON.replace(microsecond=123_000)
    assert Timestamp.of(NOON).instant.utcoffset() == timedelta(0)


@pytest.mark.parametrize(
    ("text", "following"),
    [
        ("20261120T145503.123Z", "20261120T145503.124Z"),
        ("20261120T145503.999Z", "20261120T145504.000Z"),
        ("20261231T235959.999Z", "20270101T000000.000Z"),
        ("20280228T235959.999Z", "20280229T000000.000Z"),
        ("00091231T235959.999Z", "00100101T000000.000Z"),
    ],
)
def test_next_is_the_smallest_timestamp_above(text: str, following: str) -> None:
    assert Timestamp(text).next() == Timestamp(following)
    assert Timestamp(text) < Timestamp(following)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "20261120T145503.123",
        "20261120T145503Z",
        "20261120T145503.1234Z",
        "2026-11-20T14:55:03.123Z",
        "20261120t145503.123z",
        "20261120T145503.123Z\n",
        " 20261120T145503.123Z",
        "20261320T145503.123Z",
        "20260230T145503.123Z",
        "20261120T245503.123Z",
        "20261120T145560.123Z",
        "20261120T145561.123Z",
        "00001120T145503.123Z",
        "٢٠٢٦1120T145503.123Z",
    ],
)
def test_what_is_no_timestamp_is_refused(text: str) -> None:
    """Digits of other scripts too: they would not sort as time does."""
    with pytest.raises(ValueError, match=r"timestamp|day|month|hour|second|year|time data|unconverted"):
        Timestamp(text)


def test_equal_stamps_prove_that_nothing_changed() -> None:
    assert Signature(DATABASE, WAL, racy=True).proves_unchanged_since(Signature(DATABASE, WAL, racy=False))


def test_a_racy_earlier_signature_proves_nothing() -> None:
    """Within the clock's granularity a later write may leave the same stamp behind."""
    assert not Signature(DATABASE, WAL, racy=False).proves_unchanged_since(Signature(DATABASE, WAL, racy=True))


def test_without_an_earlier_signature_nothing_is_proven() -> None:
    assert not Signature(DATABASE, WAL, racy=False).proves_unchanged_since(None)


@pytest.mark.parametrize(
    "changed",
    [
        Signature(FileStamp(9, 4096, 1_000), WAL, racy=False),
        Signature(FileStamp(7, 8192, 1_000), WAL, racy=False),
        Signature(FileStamp(7, 4096, 1_001), WAL, racy=False),
        Signature(DATABASE, FileStamp(8, 32, 2_000), racy=False),
        Signature(DATABASE, FileStamp(8, 0, 2_001), racy=False),
        Signature(DATABASE, None, racy=False),
    ],
)
def test_any_difference_in_any_stamp_is_a_change(changed: Signature) -> None:
    assert not changed.proves_unchanged_since(Signature(DATABASE, WAL, racy=False))


@pytest.mark.parametrize(("start", "end"), [(0, 0), (5, 5), (6, 5), (-1, 5), (-1, 0)])
def test_an_empty_or_mixed_span_is_refused(start: int, end: int) -> None:
    with pytest.raises(ValueError, match="span"):
        Span(start, end)


@pytest.mark.parametrize("span", [(0, 1), (0, None), (-5, None), (10, None)])
def test_a_span_from_start_to_end_or_from_the_end_is_fine(span: tuple[int, int | None]) -> None:
    assert (Span(*span).start, Span(*span).end) == span
