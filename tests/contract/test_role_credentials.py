"""A role for a token, at a service that really verifies tokens, with the trust policy that Terraform provisions."""

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
import structlog.testing

from sidecar.errors import AccessDenied, SidecarError, TokenUnavailable
from sidecar.host.clock import Clock, SystemClock
from sidecar.model import Token
from sidecar.storage.base import TokenSource
from sidecar.storage.retry import Retrying, RetryPolicy
from sidecar.storage.s3.client import S3Location
from sidecar.storage.s3.credentials import EARLY, JUST_NOW, LAST_MOMENT, Role, RoleCredentials
from sidecar.storage.s3.store import S3Store
from sidecar.storage.s3.tokens import MachineApi, TokenFile
from tests.harness.fly_machine import APP, FlyMachine
from tests.harness.proxy import Answer, DropReply, FaultProxy, Refuse
from tests.harness.roles import BUCKET, OTHER_APP, role_arn
from tests.harness.s3client import REGION
from tests.harness.token_service import SHORT, TokenService

pytestmark = [pytest.mark.anyio, pytest.mark.s3]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the platform writes its token."""
    return tmp_path / "oidc_token"


def credentials(
    service: TokenService, tokens: TokenSource, endpoint: str | None = None, clock: Clock | None = None
) -> RoleCredentials:
    role = Role(role_arn(), "sidecar-test", REGION, endpoint or service.server.endpoint)
    return RoleCredentials(role, tokens, clock or SystemClock(), lambda _expires: None)


@asynccontextmanager
async def opened(service: TokenService, role: RoleCredentials) -> AsyncIterator[S3Store]:
    location = S3Location(BUCKET, f"{APP}/{uuid.uuid4().hex[:8]}", service.server.endpoint, REGION)
    async with S3Store(location, credentials=role) as store:
        yield store


def _sts_error(status: int, code: str, message: str = "said by the proxy") -> Answer:
    """As the service answers: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html."""
    error = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, f"<ErrorResponse>{error}<RequestId>1</RequestId></ErrorResponse>")


async def refusal(role: RoleCredentials) -> SidecarError:
    """What asking for the role ends in. It shows nothing that could be used."""
    with pytest.raises(SidecarError) as caught:
        await role.fresh()
    error: BaseException | None = caught.value
    while error is not None:
        assert "eyJ" not in f"{error} {error!r}", "a token in an error"
        error = error.__cause__
    return caught.value


async def test_a_good_token_from_a_file_writes_and_reads(token_service: TokenService, file: Path) -> None:
    """An hour's session, whose end is known; what is logged says whose token it is, without the token."""
    file.write_text(token_service.issuer.token() + "\n")
    role = credentials(token_service, TokenFile(file, SystemClock()))
    with structlog.testing.capture_logs() as logs:
        async with opened(token_service, role) as store:
            await store.put("key", b"data")
            assert (await store.get("key")).data == b"data"
            await store.list("")
    left = await role.fresh() - datetime.now(UTC)
    assert timedelta(minutes=59) < left <= timedelta(hours=1, seconds=2)
    told = [entry for entry in logs if entry["event"] == "web-identity token read"]
    assert [(each["iss"], each["aud"], each["sub"]) for each in told] == [
        ("https://oidc.fly.io/acme", "sts.amazonaws.com", "acme:shop:winter-sun-7421")
    ]
    assert told[0]["exp"]
    assert "eyJ" not in str(logs)


async def test_a_token_minted_by_the_machine_is_as_good(token_service: TokenService) -> None:
    with FlyMachine(token_service.issuer) as fly:
        role = credentials(token_service, MachineApi(fly.socket))
        async with opened(token_service, role) as store:
            await store.put("key", b"data")
        assert fly.minted == 1


@pytest.mark.parametrize(
    ("token", "says"),
    [
        ({"audience": "https://oidc.fly.io/acme"}, "aud=https://oidc.fly.io/acme"),
        ({"app": OTHER_APP}, f"sub=acme:{OTHER_APP}:"),
        ({"sub": f"acme:{APP}-staging:m"}, f"sub=acme:{APP}-staging:m"),
        ({"sub": f"evil:{APP}:m"}, f"sub=evil:{APP}:m"),
        ({"iss": "https://oidc.fly.io/evil"}, "iss=https://oidc.fly.io/evil"),
    ],
    ids=["wrong audience", "another app", "an app whose name begins alike", "another organization", "another issuer"],
)
async def test_a_token_that_the_role_does_not_trust_is_denied(
    token: dict[str, str], says: str, token_service: TokenService, file: Path
) -> None:
    """77 with what the token says, so that it can be held against the trust policy."""
    file.write_text(token_service.issuer.token(**token))  # type: ignore[arg-type]
    error = await refusal(credentials(token_service, TokenFile(file, SystemClock())))
    assert type(error) is AccessDenied
    assert says in error.message
    assert role_arn() in error.message
    assert "trust policy" in error.hint


async def test_an_expired_token_may_be_followed_by_a_better_one(token_service: TokenService, file: Path) -> None:
    """It is read again at each attempt; what stays expired is `TokenUnavailable`, which is tried on."""
    file.write_text(token_service.issuer.token(lifetime=-60))
    role = credentials(token_service, TokenFile(file, SystemClock()))
    error = await refusal(role)
    assert type(error) is TokenUnavailable
    assert "expired" in error.message
    assert "exp=20" in error.message
    async with anyio.create_task_group() as group:
        group.start_soon(role.fresh)
        await anyio.sleep(0.2)
        file.write_text(token_service.issuer.token())
    assert await role.fresh() > datetime.now(UTC)


async def test_a_forged_token_is_denied(token_service: TokenService, file: Path) -> None:
    """Signed by a key of nobody: the claims alone open nothing."""
    good = token_service.issuer.token()
    head, claims, signature = good.split(".")
    file.write_text(f"{head}.{claims}.{signature[::-1]}")
    assert type(await refusal(credentials(token_service, TokenFile(file, SystemClock())))) is AccessDenied


async def test_keys_are_rotated(token_service: TokenService, file: Path) -> None:
    """A new key is refused until the issuer publishes it; the same token is good from then on."""
    token_service.issuer.rotate(publish=False)
    try:
        file.write_text(token_service.issuer.token())
        role = credentials(token_service, TokenFile(file, SystemClock()))
        await refusal(role)
    finally:
        token_service.issuer.publish()
    await role.fresh()


async def test_sessions_end_and_the_store_does_not_notice(short_sessions: TokenService, file: Path) -> None:
    """
    Sessions of some seconds, the token file rewritten meanwhile: the old token is of no use any more.
    1. Requests go on until three sessions have ended, each one succeeding: on a busy machine one may be late for its session,
       and is repeated.
    2. A session is used nearly to its end, and not for a single request.
    """
    ends: list[datetime] = []
    file.write_text(short_sessions.issuer.token())
    role = credentials(short_sessions, TokenFile(file, SystemClock()))
    requests = 0
    async with opened(short_sessions, role) as opened_store:
        store = Retrying(opened_store, SystemClock(), RetryPolicy(10.0))
        with anyio.fail_after(60):
            while len(ends) < 4:
                await store.put(f"key-{requests}", b"data")
                end = await role.fresh()
                ends += [end] if end not in ends else []
                requests += 1
                file.write_text(short_sessions.issuer.token(jti=str(requests)))
                await anyio.sleep(0.1)
    assert all(later - earlier >= timedelta(seconds=SHORT / 2) for earlier, later in pairwise(ends))


async def test_a_session_that_ends_during_an_upload(short_sessions: TokenService) -> None:
    """Parts are sent under one session and completed under another."""
    with FlyMachine(short_sessions.issuer) as fly:
        role = credentials(short_sessions, MachineApi(fly.socket))
        async with opened(short_sessions, role) as store:
            async with store.upload("big", metadata={}) as upload:
                part = bytes(5 << 20)
                await upload.put_part(1, 0, part)
                await anyio.sleep(SHORT + 1)
                await upload.put_part(2, len(part), b"end")
                await upload.complete()
            assert (await store.head("big")).size == len(part) + 3
        assert fly.minted >= 2  # on a busy machine, another session may end meanwhile


async def test_a_session_that_the_store_ends_is_replaced(short_sessions: TokenService) -> None:
    """
    We believe in a session that the store has ended (after a suspension the monotonic clock lags): one request fails
    with `TokenUnavailable`, which is tried again, and the next one succeeds with a new session.
    """
    with FlyMachine(short_sessions.issuer) as fly:
        clock = _Set()
        role = credentials(short_sessions, MachineApi(fly.socket), clock=clock)
        async with opened(short_sessions, role) as store:
            await store.put("key", b"data")
            await anyio.sleep(SHORT + 1)
            clock.time += 2 * JUST_NOW
            with pytest.raises(TokenUnavailable):
                await store.put("key", b"data")
            await store.put("key", b"data")
        assert fly.minted == 2


async def test_the_service_is_down_for_a_while(token_service: TokenService) -> None:
    """
    An hour's session, and a clock of ours that the test moves on, so that a busy machine ends no session.
    1. Nobody can renew: the present session goes on, and every request with it succeeds until its last moment.
    2. Then requests fail as transient. 3. The service is back: so are we.
    """
    with FlyMachine(token_service.issuer) as fly, FaultProxy(token_service.server.port) as proxy:
        clock = _Set()
        role = credentials(token_service, MachineApi(fly.socket), proxy.endpoint, clock)
        async with opened(token_service, role) as store:
            await store.put("key", b"data")
            session, down = role._session, proxy.rule(Refuse())
            assert session
            end = session.ends_at + LAST_MOMENT
            for left, asked in ((EARLY + 5, 1), (EARLY - 5, 2), (300, 3), (LAST_MOMENT + 1, 4)):
                clock.time = end - left
                await store.put("key", b"data")
                assert len(proxy.seen("POST")) == asked
            clock.time = end - LAST_MOMENT + 1
            with pytest.raises(TokenUnavailable, match="cannot be reached"):
                await store.put("key", b"data")
            proxy.remove(down)
            await store.put("key", b"data")


class _Late:
    """A token that does not come: a port's stand-in, because what hangs here has no end of its own."""

    name = "late"

    def __init__(self, first: TokenSource) -> None:
        self._first: TokenSource | None = first

    async def read(self) -> Token:
        """See `base.TokenSource`."""
        first, self._first = self._first, None
        if first is None:
            await anyio.sleep_forever()
        assert first
        return await first.read()


async def test_a_renewal_ahead_of_time_holds_up_nobody_for_long(token_service: TokenService) -> None:
    """The session is good for a while, and its owner may have a lease to renew: a token that hangs is given up."""
    with FlyMachine(token_service.issuer) as fly:
        clock = _Set()
        role = credentials(token_service, _Late(MachineApi(fly.socket)), clock=clock)
        async with opened(token_service, role) as store:
            await store.put("key", b"data")
            clock.time += 3600 - EARLY + 60
            with anyio.fail_after(100):  # for ever, without the bound
                await store.put("key", b"data")


@pytest.mark.parametrize(
    "answer", [Answer(503, "<html>busy"), Answer(500, ""), _sts_error(400, "IDPCommunicationError")]
)
async def test_answers_of_a_service_in_trouble_are_transient(answer: Answer, token_service: TokenService) -> None:
    with FlyMachine(token_service.issuer) as fly, FaultProxy(token_service.server.port) as proxy:
        proxy.rule(answer)
        error = await refusal(credentials(token_service, MachineApi(fly.socket), proxy.endpoint))
        assert type(error) is TokenUnavailable


async def test_a_service_that_repeats_the_token_does_not_make_us_show_it(
    token_service: TokenService, file: Path
) -> None:
    """Neither in the message nor in the hint; tracebacks of expected errors are never printed."""
    text = token_service.issuer.token()
    file.write_text(text)
    with FaultProxy(token_service.server.port) as proxy:
        proxy.rule(_sts_error(403, "AccessDenied", f"not with {text} please"))
        role = credentials(token_service, TokenFile(file, SystemClock()), proxy.endpoint)
        with pytest.raises(AccessDenied, match=r"not with \*\*\* please") as caught:
            await role.fresh()
        assert text not in str(caught.value)


async def test_a_lost_reply_is_asked_for_again(token_service: TokenService) -> None:
    """Nothing was changed by it."""
    with FlyMachine(token_service.issuer) as fly, FaultProxy(token_service.server.port) as proxy:
        proxy.rule(DropReply(), times=1)
        role = credentials(token_service, MachineApi(fly.socket), proxy.endpoint)
        await refusal(role)
        await role.fresh()


class _Set(SystemClock):
    """A monotonic clock that stands where the test sets it."""

    time = 1000.0

    def monotonic(self) -> float:
        """See `ports.Clock`."""
        return self.time
