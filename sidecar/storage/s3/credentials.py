"""A role's temporary credentials for a web-identity token: sts:AssumeRoleWithWebIdentity, unsigned.

The SDK's own provider is not used, for three reasons. It reads tokens synchronously, so it cannot request them from a
socket. It renews while a request is signed, within the deadline of that request. And it insists on new credentials ten
minutes before the old ones expire, so that a short outage of the token service stops a daemon with valid credentials.

https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from typing import Any, Self

import anyio
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from botocore import UNSIGNED
from botocore.credentials import ReadOnlyCredentials

from sidecar.errors import SidecarError, TokenUnavailable
from sidecar.host import Clock
from sidecar.log import log
from sidecar.model import Token
from sidecar.storage.base import TokenSource
from sidecar.storage.s3.session import new_session
from sidecar.storage.s3.sts_errors import SDK_ERRORS, Refused, translate
from sidecar.storage.urls import without_password

DURATION = 3600  # seconds: every role allows this much
DEADLINE = 15.0
ATTEMPTS = 3  # reading the token again for each one
BETWEEN_ATTEMPTS = 0.5
EARLY = 900.0  # renewal begins this long before the expiry, or in the last quarter of a shorter session
LAST_MOMENT = 60.0  # before the expiry, or a tenth of a shorter session: no new request uses the credentials
JUST_NOW = 1.0
WHOLE_SECOND = 1.0  # the service's times have no fractions of a second
AHEAD_SECONDS = 3.0
AGAIN_AFTER = 30.0  # until a failed early renewal is repeated


@dataclass(frozen=True, slots=True)
class Role:
    """The role, its session name in the audit log, and the token service. `endpoint` None is AWS's own."""

    arn: str
    session_name: str
    region: str
    endpoint: str | None = None


@dataclass(frozen=True, slots=True)
class _Session:
    """Credentials, when they expire by this machine's clock, and how long they are used, on the monotonic clock.

    Lifetimes are measured by the service's own clock (`Expiration - Date`), so a wrong clock here does no harm.
    """

    keys: ReadOnlyCredentials = field(repr=False)
    expires: datetime
    obtained: float
    renew_at: float
    ends_at: float


class RoleCredentials:
    """Implements `base.Credentials`. `renewed` is called with the expiry of each new session."""

    def __init__(self, role: Role, tokens: TokenSource, clock: Clock, renewed: Callable[[datetime], None]) -> None:
        self.tokens = tokens
        self._role = role
        self._clock = clock
        self._renewed = renewed
        self._renewing = anyio.Lock()
        self._session: _Session | None = None
        self._not_before = 0.0
        self._logged_claims = ""
        self._sdk: Any = None

    @property
    def role(self) -> str:
        """See `base.Credentials`."""
        return self._role.arn

    async def fresh(self) -> datetime:
        """See `base.Credentials`. One caller renews early; the others continue with the current credentials."""
        session = self._usable()
        if session is None:
            async with self._renewing:
                session = self._usable() or await self._renew()
        elif self._is_due(session) and not self._renewing.locked():
            async with self._renewing:
                session = await self._renew_ahead(session)
        return session.expires

    def forget(self) -> bool:
        """See `base.Credentials`."""
        if self._session and self._clock.monotonic() - self._session.obtained < JUST_NOW:
            return False  # the request was signed before, or the store accepts no credentials at all
        self._session = None
        return True

    async def keys(self) -> ReadOnlyCredentials:
        """The keys that the SDK signs a request with."""
        if self._session is None:
            await self.fresh()
        if self._session is None:  # forgotten at this moment
            raise TokenUnavailable(f"no credentials of {self.role} right now", "new ones are fetched")
        return self._session.keys

    def for_sdk(self) -> Any:
        """See `base.Credentials`."""
        if self._sdk is None:
            self._sdk = new_session()
            self._sdk.register_component("credential_provider", _Provider(self.keys))
        return self._sdk

    def _usable(self) -> _Session | None:
        return self._session if self._session and self._clock.monotonic() < self._session.ends_at else None

    def _is_due(self, session: _Session) -> bool:
        return self._clock.monotonic() >= max(session.renew_at, self._not_before)

    async def _renew_ahead(self, session: _Session) -> _Session:
        """Try once to renew; the credentials in use are still valid."""
        if not self._is_due(session):
            return self._usable() or session
        try:
            with anyio.fail_after(AHEAD_SECONDS):  # the caller has valid credentials, and a lease to renew
                return await self._renew()
        except (SidecarError, TimeoutError) as error:
            left = session.ends_at - self._clock.monotonic()
            self._not_before = self._clock.monotonic() + min(AGAIN_AFTER, max(1.0, left / 4))
            log.warning(
                "credentials not renewed",
                error=getattr(error, "message", "the token service did not answer in time"),
                hint=getattr(error, "hint", ""),
                seconds_left=round(left),
            )
        return session

    async def _renew(self) -> _Session:
        """Get new credentials, reading the token again for each attempt. Raises what `fresh` raises."""
        attempt = 1
        while True:
            token = await self.tokens.read()
            self._log_claims(token)
            try:
                session = await self._assume(token)
            except Refused as refusal:
                if attempt == ATTEMPTS:
                    raise refusal.outcome from refusal
                await self._clock.sleep(attempt * BETWEEN_ATTEMPTS)
                attempt += 1
            else:
                break
        self._session, self._not_before = session, 0.0
        self._renewed(session.expires)
        log.debug("credentials renewed", role=self.role, expires=session.expires.isoformat())
        return session

    def _log_claims(self, token: Token) -> None:
        """Log the claims of a token, once as long as only its times change."""
        claims = f"{token.issuer} {token.audience} {token.subject}"
        if claims != self._logged_claims:
            self._logged_claims = claims
            log.info(
                "web-identity token read",
                source=self.tokens.name,
                role=self.role,
                iss=token.issuer,
                aud=token.audience,
                sub=token.subject,
                exp=token.expires.isoformat() if token.expires else None,
            )

    async def _assume(self, token: Token) -> _Session:
        """Make one request. Raises `Refused` if another token may help, else our errors."""
        try:
            with anyio.fail_after(DEADLINE):
                reply = await self._request(token)
        except SDK_ERRORS as error:
            raise translate(error, token, self.role, self._where()) from error
        except (
            LookupError,
            TypeError,
            AttributeError,
        ) as error:  # from the SDK's parser, if the reply is something else
            raise self._no_service() from error
        return self._session_of(reply)

    async def _request(self, token: Token) -> Any:
        config = AioConfig(
            signature_version=UNSIGNED,
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=5,
            read_timeout=10,
            user_agent_extra="sqlite-sidecar",
        )
        client = self.for_sdk().create_client(
            "sts", region_name=self._role.region, endpoint_url=self._role.endpoint, config=config
        )
        async with client as sts:
            return await sts.assume_role_with_web_identity(
                RoleArn=self._role.arn,
                RoleSessionName=self._role.session_name,
                WebIdentityToken=token.text,
                DurationSeconds=DURATION,
            )

    def _session_of(self, reply: Any) -> _Session:
        try:
            given = reply["Credentials"]
            keys = ReadOnlyCredentials(given["AccessKeyId"], given["SecretAccessKey"], given["SessionToken"], None)
            lifetime = (given["Expiration"] - _date(reply)).total_seconds() - WHOLE_SECOND
        except (KeyError, TypeError) as error:
            raise self._no_service() from error
        now = self._clock.monotonic()
        ends = lifetime - min(LAST_MOMENT, lifetime / 10)
        expires = self._clock.now() + timedelta(seconds=lifetime)
        return _Session(keys, expires, now, now + lifetime - min(EARLY, lifetime / 4), now + ends)

    def _no_service(self) -> TokenUnavailable:
        return TokenUnavailable(
            f"{self._where()} replied without credentials",
            "check that AWS_ENDPOINT_URL_STS names a security token service",
        )

    def _where(self) -> str:
        if not self._role.endpoint:
            return f"AWS STS in {self._role.region}"
        return f"the token service {without_password(self._role.endpoint)}"


class _Provider(AioCredentials):  # type: ignore[misc] # aiobotocore has no types
    """Both the SDK's chain of providers and the credentials that it finds: calls `keys` for each signature."""

    def __init__(self, keys: Callable[[], Awaitable[ReadOnlyCredentials]]) -> None:
        super().__init__("", "", "", method="sidecar-web-identity")
        self._keys = keys

    async def load_credentials(self) -> Self:
        """See botocore's `CredentialResolver`."""
        return self

    async def get_frozen_credentials(self) -> ReadOnlyCredentials:
        """See botocore's `Credentials`."""
        return await self._keys()


def _date(reply: Any) -> datetime:
    try:
        return parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"]).astimezone(UTC)
    except (KeyError, ValueError, TypeError):
        return datetime.now(UTC)
