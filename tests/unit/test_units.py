"""Durations and sizes as people write them; nonsense is refused with an example of what is meant."""

from datetime import timedelta

import pytest

from sidecar.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("90s", 90),
        ("500ms", 0.5),
        ("1h30m", 5400),
        ("1.5h", 5400),
        ("2d", 172_800),
        ("0", 0),
        ("0s", 0),
        (" 10S ", 10),
        ("1d2h3m4s5ms", 93_784.005),
        ("3650d", 315_360_000),
    ],
)
def test_a_duration_is_read_as_people_write_it(text: str, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "5",
        "-5m",
        "+5m",
        "5 m",
        "m",
        "5min",
        "5m later",
        "1e3s",
        "nan",
        "inf",
        "5,5s",
        ".5s",
        "5.s",
        "5mm",
        "True",
    ],
)
def test_a_duration_that_is_none_is_refused_with_an_example(text: str) -> None:
    """A bare number too: seconds or minutes is anybody's guess."""
    with pytest.raises(ValueError, match="5m, 90s, 1h30m or 500ms"):
        parse_duration(text)


@pytest.mark.parametrize("text", ["3651d", "9999999h", "9" * 400 + "s"])
def test_a_duration_beyond_ten_years_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="ten years"):
        parse_duration(text)


@pytest.mark.parametrize("value", [5, 1.5, None, True, ["5m"]])
def test_a_duration_of_another_type_is_refused(value: object) -> None:
    with pytest.raises(ValueError, match="not a duration"):
        parse_duration(value)


def test_a_timedelta_stays_as_it_is() -> None:
    assert parse_duration(timedelta(minutes=5)) == timedelta(minutes=5)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (300, "5m"), (5400, "1h30m"), (1.5, "1s500ms"), (86_400, "1d"), (90_061.001, "1d1h1m1s1ms")],
)
def test_a_duration_is_written_without_units_that_are_zero(seconds: float, text: str) -> None:
    assert format_duration(timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("1048576", 1 << 20),
        ("64MiB", 64 << 20),
        ("64 mib", 64 << 20),
        ("8MB", 8_000_000),
        ("8M", 8_000_000),
        ("1.5GiB", 3 << 29),
        ("2TiB", 2 << 40),
        ("10B", 10),
        ("1.001MB", 1_001_000),
        ("9007199254740993", 9_007_199_254_740_993),
    ],
)
def test_a_size_is_read_exactly(text: str, size: int) -> None:
    """No byte is lost to binary fractions: 1.001 MB are 1001000 bytes."""
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "MiB", "8 M B", "8MiBs", "1e6", "8,5MB", "0x10", "nan", "inf", "8PiB", "ten"]
)
def test_a_size_that_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="64MiB, 8MB or 1048576"):
        parse_size(text)


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (12_897_485, "12.3 MiB"),
        (5 << 30, "5.0 GiB"),
        (3 << 40, "3.0 TiB"),
        (5000 << 40, "5000.0 TiB"),
    ],
)
def test_a_size_is_shown_in_binary_units(size: int, text: str) -> None:
    assert format_size(size) == text
