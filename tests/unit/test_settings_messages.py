"""Every setting, given what it cannot be: named, with its source and what it may be, in no library's words."""

import json
from pathlib import Path

import pytest

from sidecar.errors import ConfigurationError
from sidecar.settings.fields import Settings
from sidecar.settings.kinds import choices_of, kind_of
from sidecar.settings.load import load

SECRETS = {name for name, field in Settings.model_fields.items() if kind_of(field).secret}
PATTERNS = ("Input should", "pydantic", "Value error", "unable to", "valid ", "type=")
ANY_TEXT = {
    "staging_dir",
    "fly_api_socket",
    "control_socket",
}  # a path, or found out when it is used


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def refused(name: str, value: object) -> str:
    """What is said of this in sidecar.toml; a value that is none there is written as JSON, which TOML reads alike."""
    others = "" if name == "databases" else 'databases = ["app.db"]\n'
    Path("sidecar.toml").write_text(f"{others}{name} = {json.dumps(value)}\n")
    with pytest.raises(ConfigurationError) as caught:
        load({}, {})
    return str(caught.value)


NOT_TEXT: list[object] = [True, 1.5, [1, 2], ["a", ["b"]]]
NONSENSE = "\u2603 nonsense"
CASES = [
    *((name, value) for name in sorted(Settings.model_fields) for value in NOT_TEXT),
    *((name, NONSENSE) for name in sorted(Settings.model_fields) if name not in {*ANY_TEXT, "databases"}),
    *((name, "") for name in sorted(ANY_TEXT)),
    ("databases", "data/diverged"),
    ("lease_ttl", "10ms"),
    ("part_size", "1KiB"),
    ("app_metrics_url", "http://["),
    ("heartbeat_url", "http://["),
]
TEXTS = [(name, value) for name, value in CASES if isinstance(value, str)]


@pytest.mark.parametrize(("name", "value"), CASES, ids=str)
def test_what_a_setting_cannot_be(name: str, value: object) -> None:
    said = refused(name, value)
    assert said.startswith(f"{name}: "), said
    assert not [each for each in PATTERNS if each in said], said
    assert "(source: sidecar.toml)" in said
    assert name not in SECRETS or "nonsense" not in said


@pytest.mark.parametrize(("name", "value"), TEXTS, ids=str)
def test_where_it_was_set_and_what_was_given(name: str, value: str) -> None:
    """As it was written, not as it was understood; of a secret neither."""
    others = {} if name == "databases" else {"SIDECAR_DATABASES": "app.db"}
    flag = (value,) if kind_of(Settings.model_fields[name]).repeatable else value
    for source, flags, environ in (
        ("environment", {}, {**others, f"SIDECAR_{name.upper()}": value}),
        ("flag", {name: flag}, {"SIDECAR_DATABASES": "app.db"}),
    ):
        with pytest.raises(ConfigurationError) as caught:
            load(flags, environ)
        said = str(caught.value)
        assert said.startswith(f"{name}: "), said
        assert said.endswith(f"(source: {source})"), said
        assert (value in said) is (name not in SECRETS), said


def test_every_choice_is_in_the_description() -> None:
    """The table in README and --help have no other place for it."""
    for name, field in Settings.model_fields.items():
        missing = [each for each in choices_of(field) if f"`{each}`" not in (field.description or "")]
        assert not missing, name
        assert "README" not in (field.description or "")


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("lease", True, 'must be one of on, off: write "on", in quotes'),
        ("lease", False, 'write "off", in quotes'),
        ("lease", "yes", "must be one of on, off"),
        ("on_conflict", "merge", "must be one of remote, local, fail"),
        ("part_size", "1KiB", "must be a size from 5.0 MiB to 5.0 GiB"),
        ("part_size", "10GiB", "must be a size from 5.0 MiB to 5.0 GiB"),
        ("concurrency", "four", "must be a whole number from 1 to 64"),
        ("compression_level", 20, "must be a whole number from 1 to 19"),
        ("alert_growth", "20KiB", "a size must be at least 64.0 KiB"),
        ("alert_growth", "much", "neither a size like 2GiB nor a growth like 50%"),
        ("retention_days", "recent=0", "recent=0 is not a whole number of days from 1 to 36500"),
        ("retention_days", "daily=-5", "daily=-5 is not a whole number of days"),
        ("retention_days", "recent=1.5", "recent=1.5 is not a whole number of days"),
        ("retention_days", "recent", "'recent' is not days by tier, like recent=1,hourly=7"),
        ("retention_days", "35", "'35' is not days by tier, like recent=1,hourly=7"),
        ("retention_days", "daily=40000", "daily=40000 is not a whole number of days from 1 to 36500"),
        ("retention_days", "weekly=9", "'weekly' is not a tier: they are recent, hourly, daily, stream"),
        ("retention_days", "recent=2,recent=3", "names a tier twice"),
        ("retention_days", "recent=8", "recent <= hourly <= daily"),
        ("retention_days", "hourly=36", "recent <= hourly <= daily"),
        ("retention_days", "stream=36", "stream is longer than daily"),
        ("retention_days", "stream=6", "stream is shorter than 7 days"),
        ("retention_days", 35, "not days by tier"),
        ("store", 7, "must be a string: write it in quotes"),
        ("app_metrics_url", "localhost:8000", "not a URL like http://127.0.0.1:8000/metrics"),
    ],
)
def test_it_says_what_is_allowed(name: str, value: object, words: str) -> None:
    assert words in refused(name, value)
