"""Settings: where each value comes from, and that nothing wrong is accepted silently."""

import os
import threading
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path

import pytest
from pydantic import ValidationError

from sidecar.errors import ConfigurationError, ExitCode
from sidecar.policies import RetentionDays
from sidecar.settings.configuration import Configuration
from sidecar.settings.fields import Settings
from sidecar.settings.load import load

DATABASE = {"SIDECAR_DATABASES": "/data/app.db"}


@pytest.fixture(autouse=True)
def _empty_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def environment(**values: str) -> dict[str, str]:
    return DATABASE | {f"SIDECAR_{name.upper()}": value for name, value in values.items()}


def refused(environ: Mapping[str, str], flags: Mapping[str, object] | None = None) -> str:
    with pytest.raises(ConfigurationError) as caught:
        load(flags or {}, environ)
    assert caught.value.exit_code == ExitCode.CONFIGURATION
    return str(caught.value)


def test_defaults_are_those_of_the_documentation() -> None:
    settings = load({}, DATABASE).settings
    shown = {name: str(getattr(settings, name)) for name in Settings.model_fields if name != "databases"}
    assert shown == {
        "store": "file://./sidecar-store",
        "interval": "0:05:00",
        "stream": "auto",
        "stream_interval": "0:00:01",
        "restore_points": "always",
        "restore_timeout": "0:02:00",
        "shutdown_grace": "0:00:10",
        "final_backup_timeout": "0:02:00",
        "drain": "0:00:05",
        "follow_descendants": "on",
        "on_empty_store": "start",
        "on_conflict": "remote",
        "on_lease_lost": "stop",
        "lease": "on",
        "lease_store": "None",
        "lease_ttl": "0:02:00",
        "lease_wait": "0:05:00",
        "lease_handoff": "wait",
        "listen": "0.0.0.0:9180",
        "app_metrics_url": "None",
        "staging_dir": "auto",
        "journal_mode": "wal",
        "integrity_check": "quick",
        "compression_level": "1",
        "part_size": str(8 << 20),
        "drill_interval": "1 day, 0:00:00",
        "retention_days": "recent=1,hourly=7,daily=35,stream=35",
        "prune": "off",
        "concurrency": "4",
        "durability": "auto",
        "fly_api_socket": "/.fly/api",
        "app_credentials": "inherit",
        "app_user": "None",
        "control_socket": "auto",
        "notify": "()",
        "heartbeat_url": "None",
        "alert_growth": "None",
        "log_format": "auto",
        "log_level": "info",
    }


def test_what_nobody_set_comes_from_the_default() -> None:
    configuration = load({}, DATABASE)
    assert configuration.sources["interval"] == "default"
    assert configuration.sources["databases"] == "environment"
    assert set(configuration.sources) == set(Settings.model_fields)


def layers(toml: str | None, variable: str | None, flag: str | None, name: str | None = None) -> Configuration:
    environ = dict(DATABASE)
    if toml:
        Path(name or "sidecar.toml").write_text(f'interval = "{toml}"')
    if name:
        environ["SIDECAR_CONFIG"] = name
    if variable:
        environ["SIDECAR_INTERVAL"] = variable
    return load({"interval": flag} if flag else {}, environ)


@pytest.mark.parametrize(
    ("toml", "variable", "flag", "minutes", "source"),
    [
        (None, None, None, 5, "default"),
        ("1m", None, None, 1, "sidecar.toml"),
        ("1m", "2m", None, 2, "environment"),
        (None, "2m", None, 2, "environment"),
        ("1m", "2m", "3m", 3, "flag"),
        ("1m", None, "3m", 3, "flag"),
        (None, "2m", "3m", 3, "flag"),
    ],
)
def test_flags_beat_the_environment_beats_the_file_beats_the_default(
    toml: str | None, variable: str | None, flag: str | None, minutes: int, source: str
) -> None:
    configuration = layers(toml, variable, flag)
    assert configuration.settings.interval == timedelta(minutes=minutes)
    assert configuration.sources["interval"] == source


@pytest.mark.parametrize("name", ["elsewhere.toml", "environment", "flag", "default"])
def test_sidecar_config_names_another_file_whatever_it_is_called(name: str) -> None:
    configuration = layers("1m", None, None, name)
    assert (configuration.settings.interval, configuration.sources["interval"]) == (timedelta(minutes=1), name)


def test_sidecar_config_replaces_the_default_file() -> None:
    Path("sidecar.toml").write_text('drain = "1s"')
    assert layers("1m", None, None, "other.toml").sources["drain"] == "default"


def test_a_named_file_that_does_not_exist_is_an_error() -> None:
    assert "missing.toml cannot be read: No such file" in refused(DATABASE | {"SIDECAR_CONFIG": "missing.toml"})


@pytest.mark.parametrize("content", [b"interval = ", b"\xff\xfe", b"[[", b"interval = 5m"])
def test_a_file_that_is_no_toml_is_an_error(content: bytes) -> None:
    Path("sidecar.toml").write_bytes(content)
    assert "sidecar.toml is not TOML" in refused(DATABASE)


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_a_typo_in_any_variable_is_an_error_with_a_suggestion(name: str) -> None:
    """A typo must never silently disable a backup."""
    right = f"SIDECAR_{name.upper()}"
    typo = right[:-2] + right[-1]
    text = refused(DATABASE | {typo: "5m"})
    assert text == f"{typo} is not a setting (did you mean {right}?)"


@pytest.mark.parametrize("name", sorted(Settings.model_fields))
def test_a_typo_in_any_name_of_the_file_is_an_error_with_a_suggestion(name: str) -> None:
    typo = f"{name}x"
    Path("sidecar.toml").write_text(f'{typo} = "5m"')
    assert refused(DATABASE) == f"sidecar.toml: {typo} is not a setting (did you mean {name}?)"


@pytest.mark.parametrize("variable", ["SIDECAR_", "SIDECAR_interval", "SIDECAR_QQQQQQQQQQQQQQQQQQ", "SIDECAR_CONFIGS"])
def test_any_other_variable_with_our_prefix_is_an_error(variable: str) -> None:
    assert f"{variable} is not a setting" in refused(DATABASE | {variable: ""})


@pytest.mark.parametrize("table", ["sidecar", "settings"])
def test_a_table_in_the_file_is_an_error_that_says_where_settings_stand(table: str) -> None:
    Path("sidecar.toml").write_text(f'[{table}]\ninterval = "1m"')
    said = refused(DATABASE)
    assert f"sidecar.toml: {table} is not a setting: [{table}] is a table" in said
    assert "write settings at the top level" in said


def test_names_in_the_file_are_read_exactly() -> None:
    """pydantic-settings matches names without regard to case."""
    Path("sidecar.toml").write_text('Interval = "1m"')
    assert refused(DATABASE) == "sidecar.toml: Interval is not a setting (did you mean interval?)"


def test_variables_in_lower_case_are_ignored_and_named() -> None:
    """pydantic-settings would take `sidecar_interval` for SIDECAR_INTERVAL; `check` prints those that were ignored."""
    environ = DATABASE | {"sidecar_interval": "7m", "Sidecar_Lease": "\n", "sidecar_config": "missing.toml"}
    configuration = load({}, environ)
    assert configuration.settings.interval == timedelta(minutes=5)
    assert configuration.sources["interval"] == "default"
    assert configuration.ignored == ("Sidecar_Lease", "sidecar_config", "sidecar_interval")


def test_a_directory_in_the_place_of_the_file_is_an_error() -> None:
    """pydantic-settings skips whatever is not a regular file."""
    Path("sidecar.toml").mkdir()
    assert "sidecar.toml is a directory, not a file of settings" in refused(DATABASE)
    assert "sidecar.toml is a directory" in refused(DATABASE | {"SIDECAR_CONFIG": " ./sidecar.toml\n"})


def test_a_pipe_is_read_as_a_file_is() -> None:
    """`SIDECAR_CONFIG=<(...)`: pydantic-settings would skip it."""
    os.mkfifo("pipe")
    writer = threading.Thread(target=lambda: Path("pipe").write_text('interval = "1m"'))
    writer.start()
    configuration = load({}, DATABASE | {"SIDECAR_CONFIG": "pipe"})
    writer.join()
    assert (configuration.settings.interval, configuration.sources["interval"]) == (timedelta(minutes=1), "pipe")


def test_surrounding_white_space_of_a_variable_is_not_part_of_its_value() -> None:
    """`$(cat file)` of some shells and many forms leave a newline: it would name another store, which is empty."""
    settings = load({}, environment(store="file://./store\n", interval="\t1m ", databases=" a.db ,b.db\r\n")).settings
    assert (settings.store, settings.interval) == ("file://./store", timedelta(minutes=1))
    assert [str(path) for path in settings.databases] == ["a.db", "b.db"]


@pytest.mark.parametrize("character", ["\n", "\t", "\x1b", "\x7f", "\x85"])
@pytest.mark.parametrize("name", ["databases", "store", "notify", "config"])
def test_a_control_character_within_a_variable_is_refused_by_name(name: str, character: str) -> None:
    said = refused(environment(**{name: f"a{character}b-secret"}))
    assert said.startswith(f"SIDECAR_{name.upper()} contains a control character")
    assert "secret" not in said


@pytest.mark.parametrize("character", ["\u200b", "\u202a", "\ufeff", "\u00ad"])
@pytest.mark.parametrize("name", ["databases", "store", "config"])
def test_an_invisible_character_within_a_variable_is_refused_by_name(name: str, character: str) -> None:
    """Copied from a page, it would name another store, which is empty: nobody sees the difference."""
    said = refused(environment(**{name: f"file://./st{character}ore"}))
    assert said.startswith(f"SIDECAR_{name.upper()} contains an invisible character, U+{ord(character):04X}")


def test_lists_of_the_environment_are_not_json() -> None:
    """pydantic-settings reads tuples from JSON unless it is told not to."""
    assert [str(path) for path in load({}, environment(databases='["a.db"]')).settings.databases] == ['["a.db"]']


def test_a_table_as_a_value_is_not_merged_with_other_sources() -> None:
    """pydantic-settings merges mappings of several sources."""
    Path("sidecar.toml").write_text('databases = ["app.db"]\ninterval = {minutes = 1}')
    assert "interval: \"{'minutes': 1}\": not a duration" in refused({})
    assert load({}, {"SIDECAR_INTERVAL": "2m"}).settings.interval == timedelta(minutes=2)


def test_days_of_retention_are_written_alike_everywhere() -> None:
    """Tiers that are not named keep their default; of several sources the strongest has all."""
    expected = RetentionDays(daily=90, stream=60)
    text = "daily=90, stream=60"
    assert load({"retention_days": text}, DATABASE).settings.retention_days == expected
    assert load({}, environment(retention_days=text)).settings.retention_days == expected
    assert Settings(databases=(Path("app.db"),), retention_days=expected).retention_days == expected
    for wrong in (1.5, True, "1"):
        with pytest.raises(ValidationError, match=f"recent={wrong} is not a whole number of days"):
            Settings(databases=(Path("app.db"),), retention_days={"recent": wrong})  # type: ignore[arg-type]
    for line in (f'retention_days = "{text}"', "retention_days = {daily = 90, stream = 60}"):
        Path("sidecar.toml").write_text(line)
        assert load({}, DATABASE).settings.retention_days == expected
        assert load({}, environment(retention_days="recent=2")).settings.retention_days == RetentionDays(recent=2)


def test_settings_made_by_a_program_read_nothing_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("sidecar.toml").write_text("concurrency = 7")
    monkeypatch.setenv("SIDECAR_INTERVAL", "9m")
    settings = Settings(databases=(Path("app.db"),))
    assert (settings.interval, settings.concurrency) == (timedelta(minutes=5), 4)
    assert type(settings).__mro__[1].__name__ == "BaseModel"


def test_loaded_settings_are_settings() -> None:
    assert isinstance(load({}, DATABASE).settings, Settings)


def test_variables_of_others_are_none_of_our_business() -> None:
    load({}, DATABASE | {"SIDECARX": "1", "XSIDECAR_INTERVAL": "x", "INTERVAL": "x", "STORE": "x"})


def test_without_a_database_the_error_says_how_to_name_one() -> None:
    assert refused({}) == "no databases given (set SIDECAR_DATABASES or --database to the path of the SQLite file)"


@pytest.mark.parametrize("text", ["", ",", " , "])
def test_an_empty_list_of_databases_is_an_error(text: str) -> None:
    assert "databases: none given" in refused({"SIDECAR_DATABASES": text})


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        (lambda: load({}, {"SIDECAR_DATABASES": "/d/a.db, /d/b.db,"}), ("a.db", "b.db")),
        (lambda: load({"databases": ("/d/a.db", "/d/b.db")}, {}), ("a.db", "b.db")),
        (lambda: load({}, {"SIDECAR_DATABASES": "/d/my notes.db"}), ("my notes.db",)),
        (lambda: load({}, {"SIDECAR_DATABASES": "/d/größe-数据.db"}), ("größe-数据.db",)),
        (lambda: load({}, {"SIDECAR_DATABASES": "/d/lease.json.db"}), ("lease.json.db",)),
    ],
)
def test_databases_are_named_by_their_files(where: Callable[[], Configuration], expected: tuple[str, ...]) -> None:
    assert tuple(each.name for each in where().settings.database_list()) == expected


def test_databases_come_from_the_file_as_a_list() -> None:
    Path("sidecar.toml").write_text('databases = ["a.db", "x/b.db"]')
    assert [each.path for each in load({}, {}).settings.database_list()] == [Path.cwd() / "a.db", Path.cwd() / "x/b.db"]


def test_a_comma_in_a_flag_is_part_of_the_path() -> None:
    names = [each.name for each in load({"databases": ("/d/a,b.db",)}, {}).settings.database_list()]
    assert names == ["a,b.db"]


def test_a_symbolic_link_keeps_its_name_and_leads_to_the_file() -> None:
    Path("real").mkdir()
    Path("real/v2.db").touch()
    Path("app.db").symlink_to("real/v2.db")
    (database,) = load({}, {"SIDECAR_DATABASES": "app.db"}).settings.database_list()
    assert (database.name, database.path) == ("app.db", Path.cwd() / "real/v2.db")


def test_two_databases_of_the_same_name_are_refused() -> None:
    """They would overwrite nothing, but nobody could tell their restore points apart."""
    assert "two files are named 'app.db'" in refused({"SIDECAR_DATABASES": "/a/app.db,/b/app.db"})


@pytest.mark.parametrize("name", ["diverged", "stream", "lease.json", ".sidecar"])
def test_names_that_the_store_needs_for_itself_are_refused(name: str) -> None:
    told = refused({"SIDECAR_DATABASES": f"/data/{name}"})
    assert "its name is reserved in the store" in told
    assert "symbolic link with another name" in told


@pytest.mark.parametrize("path", ["/", "."])
def test_a_path_without_a_name_is_refused(path: str) -> None:
    assert "databases:" in refused({"SIDECAR_DATABASES": path})


def test_a_name_that_is_not_utf8_is_refused() -> None:
    """Keys are UTF-8: better said at start than by the first backup."""
    assert "the name is not UTF-8" in refused({"SIDECAR_DATABASES": "/data/\udcff.db"})


@pytest.mark.parametrize("line", [r'store = "file:///a\u0000b"', r'databases = ["app.db", "a\u0000b"]'])
def test_a_nul_character_is_refused(line: str) -> None:
    """Only TOML can have one; no file can be called so."""
    Path("sidecar.toml").write_text(line)
    assert "contains a NUL character" in refused({})


@pytest.mark.parametrize("name", ["interval", "final_backup_timeout"])
@pytest.mark.parametrize("value", ["0", "0s", "0m"])
def test_durations_that_must_be_positive_refuse_zero(name: str, value: str) -> None:
    assert "must be longer than zero" in refused(environment(**{name: value}))


@pytest.mark.parametrize("name", ["shutdown_grace", "drain"])
def test_durations_that_may_be_zero_accept_it(name: str) -> None:
    assert getattr(load({}, environment(**{name: "0"})).settings, name) == timedelta(0)


@pytest.mark.parametrize("name", ["interval", "restore_timeout", "shutdown_grace", "final_backup_timeout", "drain"])
@pytest.mark.parametrize("value", ["-5m", "", "soon", "5", "5 minutes", "11y", "4000d"])
def test_a_nonsense_duration_names_setting_value_and_source(name: str, value: str) -> None:
    text = refused(environment(**{name: value}))
    assert text.startswith(f"{name}: {value!r}: ")
    assert text.endswith("(source: environment)")


@pytest.mark.parametrize("value", ["300", "true", "5.0", '["5m"]'])
def test_a_duration_without_a_unit_is_nonsense_in_the_file_too(value: str) -> None:
    Path("sidecar.toml").write_text(f"interval = {value}")
    assert "not a duration like 5m" in refused(DATABASE)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("part_size", "4MiB"),
        ("part_size", "6GiB"),
        ("part_size", "-8MiB"),
        ("part_size", "big"),
        ("concurrency", "0"),
        ("concurrency", "65"),
        ("concurrency", "1.5"),
        ("concurrency", "many"),
        ("compression_level", "0"),
        ("compression_level", "20"),
        ("on_empty_store", "stop"),
        ("on_conflict", "merge"),
        ("journal_mode", "delete"),
        ("integrity_check", "yes"),
        ("durability", "sometimes"),
        ("app_credentials", "share"),
        ("log_format", "xml"),
        ("log_level", "trace"),
        ("log_level", "x://[y"),
    ],
)
def test_a_value_out_of_range_names_setting_value_and_source(name: str, value: str) -> None:
    text = refused(environment(**{name: value}))
    assert text.startswith(f"{name}: '")
    assert text.endswith("(source: environment)")


def test_the_error_names_the_file_that_a_wrong_value_comes_from() -> None:
    Path("sidecar.toml").write_text("concurrency = 0")
    assert "(source: sidecar.toml)" in refused(DATABASE)
