"""Credentials that cannot work: one line with the cause and what to do, the right code, and no app on an empty database."""

import base64
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.machine import Machine, complaint
from tests.harness.environment import clean_environment
from tests.harness.fly_machine import FlyMachine, Reply
from tests.harness.proxy import Answer, FaultProxy, Refuse, s3_error
from tests.harness.roles import BUCKET, OTHER_APP, role_arn
from tests.harness.token_service import TokenService

HTML = Reply(200, "<!doctype html><title>welcome</title>", "text/html")


@pytest.fixture
def fly(token_service: TokenService) -> Iterator[FlyMachine]:
    with FlyMachine(token_service.issuer) as machine:
        yield machine


@pytest.fixture
def machine(tmp_path: Path, token_service: TokenService) -> Machine:
    """A machine that has a role, a token file that is not there yet, and an empty disk."""
    env = clean_environment(tmp_path) | token_service.environment(AWS_WEB_IDENTITY_TOKEN_FILE=tmp_path / "token")
    return Machine.make(tmp_path, f"s3://{BUCKET}/shop/{tmp_path.name}", env)


def refused(machine: Machine, code: int, *words: str, **settings: Any) -> None:
    """`run` ends like this, and has started nothing."""
    marker = machine / "marker"
    done = machine.cli("run", "--", "touch", str(marker), restore_timeout="4s", timeout=30, **settings)
    line = _line(done, code)
    assert all(word in line for word in words), line
    assert not marker.exists(), "the app was started"
    assert machine.files() == []


def _line(done: subprocess.CompletedProcess[str], code: int) -> str:
    assert done.returncode == code, f"{done.returncode}\n{done.stderr}"
    assert "eyJ" not in done.stderr + done.stdout, "a token was shown"
    return complaint(done.stderr)


SETTINGS: list[tuple[dict[str, str], tuple[str, ...]]] = [
    ({"AWS_ROLE_ARN": "sidecar-writer"}, ("AWS_ROLE_ARN", "'sidecar-writer'", "arn:aws:iam::")),
    ({"AWS_ROLE_ARN": "arn:aws:iam::123456789012:user/me"}, ("AWS_ROLE_ARN", "user/me")),
    ({"AWS_ROLE_ARN": f"{role_arn()} x"}, ("AWS_ROLE_ARN",)),
    ({"AWS_ROLE_ARN": ""}, ("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_ROLE_ARN")),
    ({"AWS_REGION": "", "AWS_ENDPOINT_URL_STS": ""}, ("region", "AWS_REGION")),
    ({"AWS_ACCESS_KEY_ID": "AKIAX", "AWS_SECRET_ACCESS_KEY": "hidden"}, ("AWS_ROLE_ARN", "AWS_SECRET_ACCESS_KEY")),
    ({"AWS_ENDPOINT_URL_STS": "user:hidden@localhost:1"}, ("AWS_ENDPOINT_URL_STS", "not a URL")),
    ({"AWS_ACCESS_KEY_ID": "AKIAX"}, ("AWS_ROLE_ARN", "AWS_ACCESS_KEY_ID")),
]


@pytest.mark.parametrize(("env", "words"), SETTINGS, ids=lambda value: ",".join(value))
def test_variables_that_contradict_each_other_are_78(
    env: dict[str, str], words: tuple[str, ...], machine: Machine
) -> None:
    """At once, before anything is asked of anybody; values of keys are not shown."""
    started = time.monotonic()
    refused(machine.with_env(**env), 78, *words)
    checked = machine.with_env(**env).cli("check")
    assert "hidden" not in checked.stderr + checked.stdout
    assert time.monotonic() - started < 20


def _empty(_service: TokenService) -> str:
    return ""


def _half_written(service: TokenService) -> str:
    return service.issuer.token()[:300]


def _of_another_app(service: TokenService) -> str:
    return service.issuer.token(app=OTHER_APP)


def _for_another_audience(service: TokenService) -> str:
    return service.issuer.token(audience="https://oidc.fly.io/acme")


def _of_another_issuer(service: TokenService) -> str:
    return service.issuer.token(iss="https://oidc.fly.io/somebody")


def _expired(service: TokenService) -> str:
    return service.issuer.token(lifetime=-1200)  # also what a clock that is 20 minutes behind makes of a good one


def _nested(service: TokenService) -> str:
    """Claims that no parser follows to their end."""
    head, _, signature = service.issuer.token().split(".")
    return f"{head}.{base64.urlsafe_b64encode(b'[' * 40_000).decode().rstrip('=')}.{signature}"


def _forged(service: TokenService) -> str:
    head, claims, signature = service.issuer.token().split(".")
    return f"{head}.{claims}.{signature[::-1]}"


TOKENS: list[tuple[Callable[[TokenService], str], int, tuple[str, ...]]] = [
    (_empty, 75, ("token file", "is empty")),
    (_half_written, 75, ("token file", "300 bytes", "not a complete token")),
    (_nested, 75, ("token file", "not a complete token")),
    (_expired, 75, ("expired", "exp=20", "sub=acme:shop:")),
    (_of_another_app, 77, ("sub=acme:blog:", role_arn(), "trust policy")),
    (_for_another_audience, 77, ("aud=https://oidc.fly.io/acme", "trust policy")),
    (_of_another_issuer, 77, ("iss=https://oidc.fly.io/somebody",)),
    (_forged, 77, ("does not accept the token", "iss=https://oidc.fly.io/acme")),
]


@pytest.mark.parametrize(("make", "code", "words"), TOKENS, ids=[make.__name__ for make, _, _ in TOKENS])
def test_token_files_that_open_nothing(
    make: Callable[[TokenService], str],
    code: int,
    words: tuple[str, ...],
    machine: Machine,
    token_service: TokenService,
) -> None:
    """What may become better is tried until restore_timeout, 75; what will not is 77 at once."""
    (machine / "token").write_text(make(token_service))
    refused(machine, code, *words)


def test_a_token_file_that_never_comes_is_75(machine: Machine) -> None:
    """It is waited for, and named."""
    refused(machine, 75, str(machine / "token"), "does not exist", "AWS_WEB_IDENTITY_TOKEN_FILE")


def test_a_token_file_that_is_a_pipe_stops_nothing(machine: Machine) -> None:
    """Nobody writes to it: opened as a file it would hold up the whole process, signals too."""
    os.mkfifo(machine / "token")
    refused(machine, 75, "token file", "is empty")


def test_a_role_that_does_not_exist_or_trusts_another_app_is_77(machine: Machine, token_service: TokenService) -> None:
    (machine / "token").write_text(token_service.issuer.token())
    for role in (role_arn(OTHER_APP), role_arn("nobody")):
        refused(machine.with_env(AWS_ROLE_ARN=role), 77, role, "sub=acme:shop:", "trust policy")


ANSWERS: list[tuple[str, Reply, int, tuple[str, ...]]] = [
    ("html", HTML, 78, ("other than a token", "text/html", "fly_api_socket")),
    ("html not found", Reply(404, "<html>", "text/html"), 78, ("404", "fly_api_socket")),
    ("json", Reply(200, '{"token": "eyJhbGciOi.eyJpc3MiOi.c2ln"}', "application/json"), 78, ("other than a token",)),
    ("error", Reply(500, "internal error"), 75, ("status 500",)),
    ("forbidden", Reply(403, ""), 77, ("status 403",)),
    ("empty", Reply(200, ""), 75, ("sends an empty answer",)),
    ("silence", Reply(200, "", hang=60.0), 75, ("no answer in time",)),
]


@pytest.mark.parametrize(("reply", "code", "words"), [each[1:] for each in ANSWERS], ids=[each[0] for each in ANSWERS])
def test_sockets_that_give_no_token(
    reply: Reply, code: int, words: tuple[str, ...], machine: Machine, fly: FlyMachine
) -> None:
    fly.reply = reply
    wait = "8s" if reply.hang else "4s"
    marker = machine / "marker"
    env = {"AWS_WEB_IDENTITY_TOKEN_FILE": ""}
    run = ["run", "--", "touch", str(marker)]
    done = machine.cli(*run, restore_timeout=wait, fly_api_socket=fly.socket, env=env, timeout=30)
    line = _line(done, code)
    assert all(word in line for word in (*words, str(fly.socket))), line
    assert not marker.exists()


def test_sockets_that_are_none(machine: Machine) -> None:
    """On fly, or where it was asked for: not there is 78. Elsewhere the SDK looks on, and finds nothing: 77."""
    elsewhere = machine.with_env(AWS_WEB_IDENTITY_TOKEN_FILE="")
    refused(elsewhere, 78, "/nowhere/api", "cannot be reached", fly_api_socket="/nowhere/api")
    refused(elsewhere.with_env(FLY_MACHINE_ID="148e2"), 78, "/.fly/api")
    refused(elsewhere, 77, "no credentials")
    (machine / "file").touch()
    refused(elsewhere, 75, "no process listens", fly_api_socket=machine / "file")


# --- what the test server cannot do, said by the proxy in its place ---


def _kms(status: int, code: str) -> Answer:
    action = "kms:GenerateDataKey on resource: arn:aws:kms:eu-central-1:123456789012:key/0f5c"
    who = "User: arn:aws:sts::123456789012:assumed-role/sidecar-writer-shop/sidecar"
    return s3_error(status, code, f"{who} is not authorized to perform: {action}")


def _clock() -> Answer:
    answer = s3_error(
        403, "RequestTimeTooSkewed", "The difference between the request time and the current time is too large."
    )
    date = format_datetime(datetime.now(UTC) - timedelta(minutes=20), usegmt=True)
    return Answer(answer.status, answer.body, (*answer.headers, ("Date", date)))


def _region() -> Answer:
    body = s3_error(301, "PermanentRedirect", "use the specified endpoint").body
    return Answer(301, body, (("x-amz-bucket-region", "eu-west-3"),))


S3_ANSWERS: list[tuple[Callable[[], Answer], int, tuple[str, ...]]] = [
    (lambda: _kms(403, "AccessDenied"), 77, ("KMS key", "kms:GenerateDataKey and kms:Decrypt")),
    (lambda: _kms(400, "KMS.DisabledException"), 77, ("KMS key",)),
    (_clock, 77, ("20 minutes ahead", "set the machine's clock")),
    (_region, 78, ("another region: eu-west-3", "AWS_REGION")),
]


@pytest.mark.parametrize(("answer", "code", "words"), S3_ANSWERS, ids=["kms", "kms disabled", "clock", "region"])
def test_what_else_a_store_may_say(
    answer: Callable[[], Answer], code: int, words: tuple[str, ...], machine: Machine, token_service: TokenService
) -> None:
    """A KMS key without grants, a clock that is 20 minutes off, a bucket in another region."""
    (machine / "token").write_text(token_service.issuer.token())
    with FaultProxy(token_service.server.port) as proxy:
        proxy.rule(answer())
        refused(machine.with_env(AWS_ENDPOINT_URL_S3=proxy.endpoint), code, *words)


@pytest.mark.parametrize("status", [200, 403])
def test_a_token_service_that_is_a_web_page_is_named(
    status: int, machine: Machine, token_service: TokenService
) -> None:
    """Well-formed, so that the SDK's parser looks in it for an answer."""
    (machine / "token").write_text(token_service.issuer.token())
    page = Answer(status, "<html><body>welcome</body></html>", (("Content-Type", "text/html"),))
    words = ("without credentials", "AWS_ENDPOINT_URL_STS") if status == 200 else ("no reason given", "trust policy")
    with FaultProxy(token_service.server.port) as proxy:
        proxy.rule(page)
        refused(machine.with_env(AWS_ENDPOINT_URL_STS=proxy.endpoint), 75 if status == 200 else 77, *words)


def test_a_token_service_that_is_down_is_75(machine: Machine, token_service: TokenService) -> None:
    (machine / "token").write_text(token_service.issuer.token())
    with FaultProxy(token_service.server.port) as proxy:
        proxy.rule(Refuse())
        refused(machine.with_env(AWS_ENDPOINT_URL_STS=proxy.endpoint), 75, "token service", "AWS_ENDPOINT_URL_STS")
