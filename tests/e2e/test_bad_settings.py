"""Settings and command lines that make no sense: one line, the right exit code, nothing started, nothing touched."""

import pytest

from tests.e2e.machine import Machine, complaint, write_note

BAD_SETTINGS: list[tuple[dict[str, str], str]] = [
    ({"SIDECAR_INTERVALL": "5m"}, "SIDECAR_INTERVAL"),
    ({"SIDECAR_INTERVAL": "-5s"}, "interval"),
    ({"SIDECAR_INTERVAL": "soon"}, "interval"),
    ({"SIDECAR_RESTORE_TIMEOUT": ""}, "restore_timeout"),
    ({"SIDECAR_STORE": "ftp://host/dir"}, "ftp://"),
    ({"SIDECAR_DATABASES": ""}, "databases"),
    ({"SIDECAR_DATABASES": "one/app.db,two/app.db"}, "app.db"),
    ({"SIDECAR_ON_CONFLICT": "merge"}, "on_conflict"),
    ({"SIDECAR_PART_SIZE": "1KiB"}, "part_size"),
    ({"SIDECAR_LISTEN": "9180"}, "listen"),
    ({"SIDECAR_APP_METRICS_URL": "localhost:8000"}, "app_metrics_url"),
    ({"SIDECAR_CONFIG": "no-such-file.toml"}, "no-such-file.toml"),
    ({"SIDECAR_CONFIG": "."}, "is a directory"),
    ({"SIDECAR_STORE": "file:///a\nb"}, "SIDECAR_STORE"),
    ({"SIDECAR_STORE": "s3://bucket", "AWS_SECRET_ACCESS_KEY": "a\rb"}, "AWS_SECRET_ACCESS_KEY"),
]
BAD_USAGE: list[tuple[list[str], str]] = [
    (["backupp"], "backupp"),
    (["run", "--intervall", "5m"], "--intervall"),
    (["restore", "--at", "yesterday"], "yesterday"),
    (["restore", "--at", "2026-01-01", "--key", "app.db/x"], "--key"),
    (["list", "surplus"], "surplus"),
    (["backup", "--interval"], "`sidecar backup --help`"),
    (["restore", "--intervall"], "`sidecar restore --help`"),
]
BAD_FILES = [
    ("intervall = '5m'\n", "interval"),
    ("interval = \n", "TOML"),
    ("databases = 7\n", "databases"),
]


@pytest.mark.parametrize(("env", "named"), BAD_SETTINGS, ids=lambda value: "" if isinstance(value, str) else str(value))
def test_bad_setting_is_78(env: dict[str, str], named: str, local: Machine) -> None:
    """The line names the culprit; the app is not started; neither disk nor store is touched."""
    write_note(local.database, "precious")
    before = local.disk()
    done = local.cli("run", "--", "touch", str(local / "marker"), env=env)
    assert done.returncode == 78, done.stderr
    assert named in complaint(done.stderr)
    assert not (local / "marker").exists()
    assert not (local / "store").exists()
    assert local.disk() == before


@pytest.mark.parametrize(("content", "named"), BAD_FILES)
def test_bad_configuration_file_is_78(content: str, named: str, local: Machine) -> None:
    """A typo in sidecar.toml is no more ignored than one in the environment."""
    (local / "sidecar.toml").write_text(content)
    environment = {name: value for name, value in local.env.items() if not name.startswith("SIDECAR_")}
    done = local.with_env(**environment).cli("check", databases="" if named == "databases" else "app.db")
    assert done.returncode == 78, done.stderr
    assert named in complaint(done.stderr)


@pytest.mark.parametrize(("arguments", "named"), BAD_USAGE, ids=lambda value: "-".join(value) if value else "")
def test_bad_usage_is_64(arguments: list[str], named: str, local: Machine) -> None:
    """One line that names the word and where help is."""
    done = local.cli(*arguments)
    assert done.returncode == 64, done.stderr
    assert named in complaint(done.stderr)
    assert local.files() == []
