"""Shutdown budget: whether the platform waits long enough, by comparing our settings with a fly.toml."""

import re
import tomllib
from datetime import timedelta
from pathlib import Path

from sidecar.cli.check.finding import Finding
from sidecar.errors import ConfigurationError
from sidecar.units import format_duration, parse_duration

DEFAULT = timedelta(seconds=5)  # https://fly.io/docs/reference/configuration/#runtime-options
LONGEST = timedelta(minutes=5)
# Time beside the settings when the store stops answering: giving up what was under way when the app ended (3 s) and
# when the time of the final backup was up (3 s), giving up a renewal of the lease (3 s), releasing the lease (13 s),
# sending the last notifications (5 s), closing the connections (3 s).
GIVING_UP = timedelta(seconds=30)


def shutdown_budget(grace: timedelta, drain: timedelta, final_backup: timedelta, fly_toml: Path | None) -> Finding:
    """Compare the longest shutdown with `kill_timeout`. Without `fly_toml`, a fly.toml in the working directory is read.

    Where `run` has no command, `drain` takes the place of `grace`: the longer one counts. Raises `ConfigurationError`
    when there is no time for a final backup at all, or when the file cannot be read.
    """
    needed = max(grace, drain) + final_backup + GIVING_UP
    first = ("drain", drain) if drain > grace else ("shutdown_grace", grace)
    steps = (first, ("final_backup_timeout", final_backup), ("to abandon requests and release the lease", GIVING_UP))
    listed = ", ".join(f"{name} {format_duration(time)}" for name, time in steps)
    budget = f"a shutdown may take {format_duration(needed)} ({listed})"
    file = fly_toml or Path("fly.toml")
    if fly_toml is None and not file.is_file():
        return Finding(f"{budget}; let the platform wait that long (no fly.toml here to compare with)")
    timeout, given = _kill_timeout(file)
    waits = f"{file}: kill_timeout is {given}"
    if timeout <= grace:
        raise ConfigurationError(
            f"{waits}, which the app's shutdown_grace of {format_duration(grace)} alone may take", _advice(needed)
        )
    if timeout < needed:
        return Finding(f"{waits}, and {budget}; {_advice(needed)}", "warning")
    if timeout > LONGEST:
        return Finding(f"{waits}, and fly.io waits {format_duration(LONGEST)} at most", "warning")
    return Finding(f"{budget}; {waits}")


def _advice(needed: timedelta) -> str:
    if needed > LONGEST:
        return "fly.io waits 5m at most: lower final_backup_timeout or shutdown_grace"
    return f"set kill_timeout to {needed.total_seconds():.0f} in fly.toml, or lower final_backup_timeout"


def _kill_timeout(file: Path) -> tuple[timedelta, str]:
    """The setting, and how fly.toml writes it: a number of seconds, or text like 120s."""
    try:
        value = tomllib.loads(file.read_text()).get("kill_timeout")
    except OSError as error:
        raise ConfigurationError(f"{file} cannot be read: {error.strerror}", "correct --fly-toml") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{file} is not TOML: {error}", "`fly config validate` says more") from error
    if value is None:
        return DEFAULT, "not set, so 5s"
    text = f"{value}s" if re.fullmatch(r"\d+", str(value)) else str(value)
    try:
        return parse_duration(text), text
    except ValueError as error:
        raise ConfigurationError(f"{file}: kill_timeout {value!r} is {error}", "write it like 120 or 120s") from error
