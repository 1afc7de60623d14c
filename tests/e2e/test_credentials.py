"""The daemon with a role: tokens from a file or from the machine, renewed while it runs."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.e2e.machine import CALM_APP, Machine, notes, write_note
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually
from tests.harness.fly_machine import FlyMachine
from tests.harness.proxy import FaultProxy, Refuse
from tests.harness.roles import BUCKET
from tests.harness.sidecar_process import SidecarProcess
from tests.harness.token_service import SHORT, TokenService
from tests.harness.writers import fill

# Says what it sees of its environment, and lives on until it is told to stop.
CURIOUS_APP = ("sh", "-c", "trap 'exit 0' TERM; env > \"$0\"; while :; do sleep 0.05; done")


def machine_of(service: TokenService, root: Path, **more: str | Path) -> Machine:
    return Machine.make(root, f"s3://{BUCKET}/shop/{root.name}", clean_environment(root) | service.environment(**more))


@pytest.fixture
def machine(tmp_path: Path, token_service: TokenService) -> Machine:
    """A machine with a role, whose token file is not there yet."""
    return machine_of(token_service, tmp_path, AWS_WEB_IDENTITY_TOKEN_FILE=tmp_path / "token")


@pytest.fixture
def fly(token_service: TokenService) -> Iterator[FlyMachine]:
    with FlyMachine(token_service.issuer) as machine:
        yield machine


def secrets_of(service: TokenService) -> list[str]:
    """What must never be seen anywhere: the beginning of every token and of every session token."""
    return ["eyJ", service.issuer.token()[:20]]


def assert_shows_no_secret(process: SidecarProcess, service: TokenService) -> None:
    shown = process.output() + process.http("/status")[1] + process.http("/metrics")[1]
    assert not [secret for secret in secrets_of(service) if secret in shown]


def test_a_token_file_that_comes_late(machine: Machine, token_service: TokenService) -> None:
    """
    1. `run` starts before the platform has written the token: it waits, and starts no app.
    2. The file appears: boot goes on, the app starts, a restore point is published.
    3. Who we are is in the log, when the session ends in /status and /metrics, the token nowhere.
    """
    with machine.run(*CALM_APP, log_level="debug") as process:
        time.sleep(2)
        assert process.running
        assert "app started" not in process.output()
        (machine / "token").write_text(token_service.issuer.token())
        process.wait_ready()
        write_note(machine.database, "row")
        done = machine.cli("backup")
        assert done.returncode == 0, done.stderr
        status = json.loads(process.http("/status")[1])
        left = datetime.fromisoformat(status["credentials_expiry"]) - datetime.now(UTC)
        assert timedelta(minutes=55) < left < timedelta(minutes=61)
        expiry = process.metric("sidecar_credentials_expiry_timestamp_seconds")
        assert expiry == pytest.approx(datetime.fromisoformat(status["credentials_expiry"]).timestamp())
        assert '"sub": "acme:shop:winter-sun-7421"' in process.output()
        assert_shows_no_secret(process, token_service)
        assert process.terminate() == 0
    machine.lose_disk()
    assert notes(machine.restore_copy()) == ["row"]


def test_a_machine_without_a_token_file_mints_its_own(
    machine: Machine, fly: FlyMachine, token_service: TokenService
) -> None:
    """From boot to the final backup, by the socket alone."""
    minting = machine.with_env(AWS_WEB_IDENTITY_TOKEN_FILE="")
    with minting.run(*CALM_APP, fly_api_socket=fly.socket) as process:
        process.wait_ready()
        write_note(machine.database, "row")
        assert_shows_no_secret(process, token_service)
        assert process.terminate() == 0
    assert fly.minted == 1
    done = minting.cli("restore", "--output", str(machine / "copy.db"), fly_api_socket=fly.socket)
    assert done.returncode == 0, done.stderr
    assert notes(machine / "copy.db") == ["row"]


def test_sessions_and_tokens_change_while_the_daemon_runs(tmp_path: Path, short_sessions: TokenService) -> None:
    """
    Sessions end after some seconds, and a token is good for a few: the file is rewritten all the time, as init does.
    1. A row is written and backed up every second, over three sessions and a rotation of the issuer's key.
    2. No cycle fails, and the last row is in the store.
    """
    machine = machine_of(short_sessions, tmp_path, AWS_WEB_IDENTITY_TOKEN_FILE=tmp_path / "token")
    over = threading.Event()

    def rewrite() -> None:
        while not over.is_set():
            (tmp_path / "token.new").write_text(short_sessions.issuer.token(lifetime=4))
            (tmp_path / "token.new").rename(tmp_path / "token")
            over.wait(0.5)

    platform = threading.Thread(target=rewrite)
    platform.start()
    try:
        with machine.run(*CALM_APP, interval="1s") as process:
            process.wait_ready()
            ends: set[float | None] = set()
            until = time.monotonic() + 3 * SHORT
            while time.monotonic() < until:
                write_note(machine.database, str(len(ends)))
                ends.add(process.metric("sidecar_credentials_expiry_timestamp_seconds"))
                time.sleep(0.5)
                if len(ends) == 2:
                    short_sessions.issuer.rotate()
            assert len(ends) >= 3
            assert (process.metric("sidecar_backups_total", outcome="published") or 0) >= 5
            assert process.metric("sidecar_backups_total", outcome="failed") == 0, process.report()
            write_note(machine.database, "last")
            assert process.terminate() == 0
        assert notes(machine.restore_copy())[-1] == "last"
    finally:
        over.set()
        platform.join()


def test_the_token_service_is_down_for_a_while(tmp_path: Path, short_sessions: TokenService) -> None:
    """
    1. Down at boot: no app. It comes back: the app starts.
    2. Down for longer than the session: cycles fail, the app runs on, and what it wrote is unprotected meanwhile.
    3. Back again: the next cycle publishes, without anybody's help.
    """
    with FlyMachine(short_sessions.issuer) as fly, FaultProxy(short_sessions.server.port) as proxy:
        machine = machine_of(short_sessions, tmp_path).with_env(AWS_ENDPOINT_URL_STS=proxy.endpoint)
        down = proxy.rule(Refuse())
        with machine.run(*CALM_APP, interval="1s", fly_api_socket=fly.socket, restore_timeout="1m") as process:
            proxy.wait_seen("POST", count=2, timeout=20)
            assert "app started" not in process.output()
            proxy.remove(down)
            process.wait_ready()
            write_note(machine.database, "before")
            process.wait_metric("sidecar_backups_total", 1, outcome="published")
            down = proxy.rule(Refuse())

            def failing() -> bool:
                write_note(machine.database, "meanwhile")
                time.sleep(0.2)
                return bool(process.metric("sidecar_backups_total", outcome="failed"))

            eventually(failing, timeout=90, what="a cycle fails")
            assert process.http("/readyz")[0] == 200
            published = process.metric("sidecar_backups_total", outcome="published") or 0
            proxy.remove(down)
            write_note(machine.database, "after")
            process.wait_metric("sidecar_backups_total", published + 1, timeout=60, outcome="published")
            assert process.terminate() == 0
        machine = machine.with_env(SIDECAR_FLY_API_SOCKET=str(fly.socket))
        assert notes(machine.restore_copy())[-1] == "after"


@pytest.mark.parametrize("mode", ["inherit", "withhold"])
def test_the_app_is_given_credentials_or_not(mode: str, machine: Machine, token_service: TokenService) -> None:
    """Region and endpoint are none, and stay; the rest of its environment is as it was in either case."""
    (machine / "token").write_text(token_service.issuer.token())
    with machine.run(*CURIOUS_APP, str(machine / "env"), app_credentials=mode, env={"OWN": "x"}) as process:
        process.wait_ready()
        seen = eventually(lambda: (machine / "env").exists() and (machine / "env").read_text(), what="the app's word")
        assert process.terminate() == 0
    names = {line.partition("=")[0] for line in str(seen).splitlines()}
    assert {"OWN", "PATH", "HOME", "AWS_REGION", "AWS_ENDPOINT_URL_S3", "SIDECAR_STORE"} <= names
    assert ({"AWS_ROLE_ARN", "AWS_WEB_IDENTITY_TOKEN_FILE"} <= names) is (mode == "inherit")


def test_check_proves_the_whole_chain(machine: Machine, token_service: TokenService) -> None:
    """
    1. With a restore point of more than 5 MiB there is nothing left to skip: every step is tried, and passes.
    2. Nothing but one tiny object under the reserved name stays, however often it is run.
    """
    (machine / "token").write_text(token_service.issuer.token())
    fill(machine.database, 12)
    assert machine.cli("backup").returncode == 0
    (machine / "fly.toml").write_text('app = "shop"\nkill_timeout = "70s"\n')
    for _ in range(2):
        done = machine.cli("check")
        assert done.returncode == 0, done.stdout
    found = {line[8:].partition(":")[0]: line for line in done.stdout.partition("\n\n")[2].splitlines()}
    tried = [
        "sqlite",
        "listen",
        "shutdown budget",
        "token",
        "role",
        "store",
        "clock",
        "traits",
        "lease",
        "conditional write",
        "read",
    ]
    assert list(found) == [
        *tried,
        "part copy",
        "tag",
        "no deletes",
        "next boot, app.db",
        "expiry app.db",
        "bill app.db",
        "database app.db",
        "stream app.db",
        "final backup app.db",
        "owner app.db",
    ], done.stdout
    assert "s3:GetLifecycleConfiguration" in found.pop("expiry app.db")  # which the writer's role does not allow
    assert all(line.startswith("ok ") for line in found.values()), done.stdout
    assert "sub=acme:shop:" in found["token"]
    assert "refused" in found["no deletes"]
    assert "eyJ" not in done.stdout + done.stderr
    server, prefix = token_service.server.s3, machine.store.removeprefix(f"s3://{BUCKET}/")
    reserved = server.keys(BUCKET, f"{prefix}/.sidecar")
    assert reserved == [f"{prefix}/.sidecar/{name}" for name in ("check", "probe/object", "traits.json")]
    assert server.tags(BUCKET, reserved[0]) == {"sidecar-tier": "recent"}
    assert not [key for key in server.open_uploads(BUCKET) if key.startswith(f"{prefix}/")]


def test_check_names_the_first_link_that_breaks(machine: Machine, token_service: TokenService) -> None:
    """What follows it is not tried; the exit code is the first failure's."""
    (machine / "token").write_text(token_service.issuer.token(app="blog"))
    done = machine.cli("check")
    assert done.returncode == 77, done.stdout
    lines = done.stdout.partition("\n\n")[2].splitlines()
    assert [line.split(":")[0] for line in lines if line.startswith("FAILED")] == ["FAILED  role"]
    assert "sub=acme:blog:" in done.stdout
    assert "skipped store: it needs a step that failed above" in lines
    assert "skipped no deletes: it needs a step that failed above" in lines


def test_check_warns_of_credentials_that_may_delete(tmp_path: Path, env: dict[str, str], bucket: str) -> None:
    """A warning, because a store may have no better ones; never a failure."""
    machine = Machine.make(tmp_path, f"s3://{bucket}/shop", env)
    done = machine.cli("check")
    assert done.returncode == 0, done.stdout
    assert "ok      credentials: the static keys in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in done.stdout
    assert "warning no deletes" in done.stdout
    assert env["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("kill_timeout", "code", "word"),
    [("300", 0, "ok "), ('"5m"', 0, "ok "), ("30", 0, "warning"), ("10", 78, "FAILED"), ("'soon'", 78, "FAILED")],
)
def test_check_compares_the_shutdown_with_a_fly_toml(kill_timeout: str, code: int, word: str, local: Machine) -> None:
    """Too short for the app alone is an error, for the longest final backup a warning."""
    (local / "elsewhere.toml").write_text(f"kill_timeout = {kill_timeout}\n")
    settings = {"shutdown_grace": "10s", "final_backup_timeout": "2m"}
    done = local.cli("check", "--fly-toml", str(local / "elsewhere.toml"), env={}, **settings)  # type: ignore[arg-type]
    (line,) = [line for line in done.stdout.splitlines() if "shutdown budget" in line]
    assert done.returncode == code, done.stdout
    assert line.startswith(word)
    assert "kill_timeout" in line
