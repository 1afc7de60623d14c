"""Timestamps, durations, sizes and settings over whole ranges of values."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.errors import ConfigurationError
from sidecar.model import Timestamp
from sidecar.settings.fields import Settings
from sidecar.settings.load import load
from sidecar.units import format_duration, parse_duration, parse_size

LAST = datetime(9999, 12, 31, 23, 59, 59, 998_000)  # noqa: DTZ001 - Hypothesis wants its bounds naive
instants = st.datetimes(max_value=LAST, timezones=st.just(UTC))
milliseconds = st.integers(0, 3650 * 86_400_000)


@given(instants, instants | st.integers(-2_000, 2_000))
@settings(max_examples=300)
def test_the_order_of_timestamps_is_that_of_time(one: datetime, other: datetime | int) -> None:
    """Keys sort as text: the newest key is the newest state only if text sorts as time does, in every year."""
    if isinstance(other, int):
        try:
            other = one + timedelta(microseconds=other)
        except OverflowError:
            return
    first, second = sorted([one, other])
    assert Timestamp.of(first) <= Timestamp.of(second)
    assert str(Timestamp.of(first)) <= str(Timestamp.of(second))
    assert (Timestamp.of(first) < Timestamp.of(second)) == (Timestamp.of(first).instant < Timestamp.of(second).instant)


@given(instants)
def test_a_timestamp_is_its_instant_cut_to_milliseconds(instant: datetime) -> None:
    timestamp = Timestamp.of(instant)
    assert timedelta(0) <= instant - timestamp.instant < timedelta(milliseconds=1)
    assert Timestamp.of(timestamp.instant) == timestamp == Timestamp(str(timestamp))


@given(instants)
def test_nothing_lies_between_a_timestamp_and_its_next(instant: datetime) -> None:
    timestamp = Timestamp.of(instant)
    assert timestamp.next() > timestamp
    assert timestamp.next().instant - timestamp.instant == timedelta(milliseconds=1)


@given(st.text(max_size=24) | st.from_regex(r"\A\d{8}T\d{6}\.\d{3}Z\Z"))
@settings(max_examples=100)
def test_a_text_is_a_timestamp_exactly_when_it_is_written_back_as_it_was(text: str) -> None:
    try:
        timestamp = Timestamp(text)
    except ValueError:
        return
    assert str(Timestamp.of(timestamp.instant)) == text


@given(milliseconds)
@settings(max_examples=200)
def test_a_duration_is_read_back_as_it_was_written(count: int) -> None:
    duration = timedelta(milliseconds=count)
    assert parse_duration(format_duration(duration)) == duration


@given(st.text(alphabet="0123456789.smhd -+e", max_size=8))
@settings(max_examples=300)
def test_a_text_is_a_duration_within_ten_years_or_refused(text: str) -> None:
    try:
        duration = parse_duration(text)
    except ValueError:
        return
    assert timedelta(0) <= duration <= timedelta(days=3650)
    assert text.strip() == "0" or text.strip()[-1] in "smhd"


@given(st.integers(0, 1 << 40), st.sampled_from(["", "B", "K", "KB", "KiB", "MiB", "mib", "GB", "G", "TiB"]))
@settings(max_examples=200)
def test_a_whole_size_is_exact_however_large(number: int, unit: str) -> None:
    factor = 1024 if "i" in unit else 1000
    expected = number * factor ** (" KMGT".index(unit[0].upper()) if unit and unit[0] != "B" else 0)
    assert parse_size(f"{number}{unit}") == parse_size(f" {number} {unit} ") == expected


@given(st.integers(0, 10**15))
def test_a_size_with_a_fraction_is_exact(thousandths: int) -> None:
    assert parse_size(f"{thousandths // 1000}.{thousandths % 1000:03d}kB") == thousandths


@given(st.text(max_size=8))
@settings(max_examples=200)
def test_a_text_is_a_size_or_refused(text: str) -> None:
    try:
        assert parse_size(text) >= 0
    except ValueError as error:
        refusal = str(error)
        assert refusal == "not a size like 64MiB, 8MB or 1048576"


VALUES: dict[str, list[str]] = {
    "interval": ["1m", "2m", "3m"],
    "drain": ["1s", "2s", "0"],
    "concurrency": ["1", "2", "64"],
    "part_size": ["5MiB", "8MiB", "64MB"],
    "on_conflict": ["local", "remote", "fail"],
    "log_level": ["debug", "info", "error"],
    "store": ["s3://a", "s3://b/c", "file:///d"],
}
layer = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in VALUES.items()})


@given(layer, layer, layer)
@settings(max_examples=100)
def test_each_setting_comes_from_the_highest_layer_that_has_it(
    tmp_path_factory: pytest.TempPathFactory, toml: dict[str, str], environ: dict[str, str], flags: dict[str, str]
) -> None:
    """One setting in one layer changes nothing of the others."""
    file = tmp_path_factory.getbasetemp() / "layers.toml"
    file.write_text("".join(f'{name} = "{value}"\n' for name, value in toml.items()))
    variables = {f"SIDECAR_{name.upper()}": value for name, value in environ.items()}
    variables |= {"SIDECAR_CONFIG": str(file), "SIDECAR_DATABASES": "/data/app.db"}
    configuration = load(flags, variables)
    layers = [("flag", flags), ("environment", environ), (str(file), toml)]
    for name in VALUES:
        source, values = next(((source, values) for source, values in layers if name in values), ("default", None))
        assert configuration.sources[name] == source
        merged = {name: values[name]} if values else {}
        expected = Settings(databases=(Path("/data/app.db"),), **merged)  # type: ignore[arg-type]
        assert getattr(configuration.settings, name) == getattr(expected, name)


@given(st.text(alphabet="ABCDEFGHIJKLMNOPQRSTUVWXYZ_abc0", max_size=20))
@settings(max_examples=200)
def test_a_variable_with_our_prefix_is_a_setting_or_an_error(name: str) -> None:
    variable = f"SIDECAR_{name}"
    if variable == "SIDECAR_CONFIG" or (name.lower() in Settings.model_fields and name.isupper()):
        return
    with pytest.raises(ConfigurationError, match="is not a setting"):
        load({}, {"SIDECAR_DATABASES": "/data/app.db", variable: "x"})


@given(st.text(min_size=1, max_size=30).filter(lambda text: "\0" not in text))
@settings(max_examples=200)
def test_any_store_is_understood_or_refused_without_a_bug(store: str) -> None:
    try:
        load({"databases": ("/data/app.db",), "store": store}, {})
    except ConfigurationError as error:
        refusal = error
    else:
        return
    assert str(refusal).startswith("store: ")
