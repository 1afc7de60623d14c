"""The shutdown's time against a fly.toml."""

from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.cli.check.shutdown import shutdown_budget
from sidecar.errors import ConfigurationError

GRACE, DRAIN, FINAL = timedelta(seconds=10), timedelta(seconds=5), timedelta(minutes=2)


@pytest.fixture(autouse=True)
def _directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        ("kill_timeout = 160", "ok"),
        ('kill_timeout = "160"', "ok"),
        ('kill_timeout = "160s"', "ok"),
        ('kill_timeout = "5m"', "ok"),
        ("kill_timeout = 159", "warning"),
        ("kill_timeout = 11", "warning"),
        ("kill_timeout = 600", "warning"),
    ],
)
def test_what_is_long_enough(content: str, kind: str) -> None:
    """The grace, the longest final backup, and some seconds for giving up; more than fly.io waits is none."""
    Path("fly.toml").write_text(content)
    assert shutdown_budget(GRACE, DRAIN, FINAL, None).kind == kind


@pytest.mark.parametrize(
    "content", ["kill_timeout = 10", "app = 'x'", "kill_timeout = 'soon'", "kill_timeout = [1]", "kill ="]
)
def test_what_leaves_no_time_or_is_nonsense(content: str) -> None:
    """fly.io's default of 5 s is shorter than any grace."""
    Path("fly.toml").write_text(content)
    with pytest.raises(ConfigurationError) as caught:
        shutdown_budget(GRACE, DRAIN, FINAL, None)
    assert "fly.toml" in caught.value.message
    assert caught.value.hint


def test_the_advice_can_be_followed() -> None:
    Path("fly.toml").write_text("kill_timeout = 60")
    assert "set kill_timeout to 160" in shutdown_budget(GRACE, DRAIN, FINAL, None).text
    assert "lower final_backup_timeout" in shutdown_budget(GRACE, DRAIN, timedelta(hours=1), None).text


def test_drain_counts_where_it_is_longer() -> None:
    """A sidecar without a command waits that long instead of the app's grace."""
    Path("fly.toml").write_text("kill_timeout = 160")
    long = shutdown_budget(GRACE, timedelta(seconds=11), FINAL, None)
    assert long.kind == "warning"
    assert "2m41s (drain 11s, final_backup_timeout 2m" in long.text


def test_without_a_fly_toml_the_time_is_named() -> None:
    assert "2m40s" in shutdown_budget(GRACE, DRAIN, FINAL, None).text


def test_a_named_file_must_be_there() -> None:
    with pytest.raises(ConfigurationError, match=r"other\.toml cannot be read"):
        shutdown_budget(GRACE, DRAIN, FINAL, Path("other.toml"))
