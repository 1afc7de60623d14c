"""Requests to an S3 bucket through the SDK's client, within deadlines and with our errors.

One client, one connection pool. The SDK makes one attempt: retries are done only in `storage.retry`.
"""

import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import anyio
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from anyio import to_thread
from botocore.handlers import add_expect_header

from sidecar.errors import ConfigurationError, SidecarError, StoreMissing, StoreUnsuitable, TokenUnavailable, Transient
from sidecar.model import Bytes
from sidecar.storage.access import StaticKeys
from sidecar.storage.base import FIRST_BYTE_TIMEOUT, Credentials
from sidecar.storage.s3 import deadlines
from sidecar.storage.s3.body import Body
from sidecar.storage.s3.checksums import Checksums, md5_of
from sidecar.storage.s3.configuration import is_configured, require_proxy
from sidecar.storage.s3.errors import SDK_ERRORS, doubts_session, translate
from sidecar.storage.s3.known import headers_of
from sidecar.storage.s3.session import PlainSession, new_session

DATE_HINT = "let the proxy in front of the store pass the Date header, or reach the store without it"
LONGEST_WITHOUT_DATE = 600.0  # seconds; every renewal of the lease makes requests


@dataclass(frozen=True, slots=True)
class S3Location:
    """The location of the store. `endpoint` and `region` are those of the SDK's environment variables, or None."""

    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None

    @property
    def url(self) -> str:
        """The store as a person writes it."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    def key(self, key: str) -> str:
        """The key in the bucket for a key of the store."""
        return f"{self.prefix}/{key}" if self.prefix else key


class S3Client:
    """Makes requests to one bucket. The first one creates the SDK's client, so the store may be down at start."""

    def __init__(
        self, location: S3Location, *, connections: int, credentials: Credentials | None, keys: StaticKeys | None = None
    ) -> None:
        """Without `credentials` and `keys`, the SDK finds its own. Raises `ConfigurationError` if there is neither a region nor an endpoint."""
        if not location.region and not location.endpoint:
            raise ConfigurationError(
                f"no region is set for s3://{location.bucket}",
                "set AWS_REGION, or AWS_ENDPOINT_URL_S3 for another store",
            )
        self.location = location
        self._connections = connections
        self._credentials = credentials
        self._keys = {} if keys is None else _named(keys)
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._clients: dict[str, Any] = {}
        self._opening = anyio.Lock()
        self.checksums = Checksums()
        self._copies_have_md5 = False
        self._seen: tuple[datetime, float] | None = None
        self._headers = headers_of(location.endpoint)

    async def aclose(self) -> None:
        """Close all connections."""
        with anyio.move_on_after(deadlines.ABORT_DEADLINE, shield=True):
            await self._stack.aclose()

    async def call(self, operation: str, key: str, *, deadline: float | None = None, **parameters: Any) -> Any:
        """Make a request about a key of the store, or about the bucket if `key` is empty; errors are translated."""
        if key:
            parameters["Key"] = self.location.key(key)
        client = await self.opened()
        with self.translated(operation, key, deadlines.of_request() if deadline is None else deadline):
            reply = await getattr(client, operation)(Bucket=self.location.bucket, **parameters)
        self.observe(reply)
        return reply

    async def write(
        self, operation: str, key: str, data: Bytes, *, deadline: float, declared: bool = True, **parameters: Any
    ) -> Any:
        """Make a request with these bytes; see `Checksums` for why it may be made twice, and for `declared`."""
        sums, send = self.checksums, partial(self.call, operation, key, deadline=deadline, **parameters)
        await self.opened()  # after this, the SDK's configuration is known
        given = await to_thread.run_sync(partial(sums.of, data, declared=declared))
        try:
            return await send(Body=Body(data), **given)
        except SidecarError as refusal:
            if given or not sums.asked_for(refusal.__cause__):
                raise
            first = refusal
        forced = await to_thread.run_sync(partial(sums.forced, data, declared=declared))
        try:
            reply = await send(Body=Body(data), **forced)
        except ConfigurationError:
            raise first from first.__cause__  # the refusal was not about checksums
        sums.insist(operation)
        return reply

    async def copy(self, key: str, *, operation: str = "upload_part_copy", **parameters: Any) -> Any:
        """Copy a part, or an object. If the store requires a checksum with every PUT, that of the empty body is sent."""
        send = partial(self.call, operation, key, **parameters)
        had_md5 = self._copies_have_md5  # before the request: meanwhile another copy may learn that they need it
        try:
            return await send()
        except SidecarError as refusal:
            if had_md5 or not self.checksums.asked_for(refusal.__cause__):
                raise
            self._copies_have_md5, first = True, refusal
        try:
            return await send()
        except ConfigurationError:
            self._copies_have_md5 = False
            raise first from first.__cause__

    async def opened(self) -> Any:
        """The SDK's client. Credentials are renewed here, outside of any request's deadline."""
        if self._credentials:
            await self._credentials.fresh()
        async with self._opening:
            if self._client is None:
                self._client = await self._find_addressing()
        return self._client

    @contextmanager
    def translated(self, operation: str, key: str, deadline: float) -> Iterator[None]:
        """Set a deadline for a request. The only place where the SDK's errors become ours."""
        try:
            with anyio.fail_after(deadline):
                yield
        except SDK_ERRORS as error:
            ours = translate(error, self.location.bucket, self.location.endpoint, operation, key)
            if self._credentials and doubts_session(error) and self._credentials.forget():
                ours = TokenUnavailable("the store reports that the session has ended", "a new one is fetched")
            raise ours from error

    async def now(self) -> datetime:
        """The `Date` of the last reply, advanced by this machine's monotonic clock; accurate to a second.

        Raises `StoreUnsuitable` if replies have no `Date` (RFC 9110, 6.6.1 demands it), or none any more: neither the age of a
        lease nor the time of a restore point would be known, and this machine's clock may be wrong.
        """
        if self._seen is None or time.monotonic() - self._seen[1] > LONGEST_WITHOUT_DATE:
            await self._look_at_clock()
        if self._seen is None:
            raise StoreUnsuitable(
                f"{self.location.url} answers without a Date header: its clock is not known", DATE_HINT
            )
        date, at = self._seen
        return date + timedelta(seconds=time.monotonic() - at)

    async def _look_at_clock(self) -> None:
        """Make a request for its `Date`. A store that does not answer is believed to keep the time that was seen last."""
        try:
            reply = await self.call("list_objects_v2", "", Prefix=self.location.key(""), MaxKeys=1)
        except Transient:
            if self._seen is None:
                raise
            return
        if _date_of(reply) is None:
            self._seen = None

    def observe(self, reply: Any) -> datetime:
        """Record a reply's `Date`, and return it; if it has none, the last known time."""
        if date := _date_of(reply):
            self._seen = (date, time.monotonic())
        return self._seen[0] if self._seen else datetime.now(UTC)

    async def _find_addressing(self) -> Any:
        """AWS uses virtual-hosted addressing. Other stores use one or the other: the first one that works is kept."""
        if not self.location.endpoint:
            return await self._make_client("auto")
        client, refusal = await self._try_addressing("path")
        if refusal is None or _is_address(self.location.endpoint):
            return client
        other, second = await self._try_addressing("virtual")
        if second is None:
            return other
        raise refusal

    async def _try_addressing(self, style: str) -> tuple[Any, SidecarError | None]:
        if style not in self._clients:  # a client takes tens of megabytes: a new one for each attempt would be a leak
            self._clients[style] = await self._make_client(style)
        client = self._clients[style]
        try:
            with self.translated("list_objects_v2", "", deadlines.of_request()):
                await client.list_objects_v2(Bucket=self.location.bucket, Prefix=self.location.key(""), MaxKeys=1)
        except (StoreMissing, ConfigurationError) as error:
            return client, error
        return client, None

    async def _make_client(self, addressing: str) -> Any:
        region = self.location.region or "us-east-1"
        with self.translated("connect", "", deadlines.of_request()):
            found = self._credentials.for_sdk() if self._credentials else new_session()
            session = PlainSession(botocore_session=found)
            config = self._configuration(addressing, found)
            client = await self._stack.enter_async_context(
                session.client(
                    "s3", config=config, region_name=region, endpoint_url=self.location.endpoint, **self._keys
                )
            )
        require_proxy(client.meta.endpoint_url)
        if client.meta.config.request_checksum_calculation == "when_supported":
            self.checksums.leave_to_sdk()
        for copying in ("UploadPartCopy", "CopyObject"):
            client.meta.events.register(f"before-call.s3.{copying}", self._add_md5_of_nothing)
        # Without `Expect: 100-continue`: it costs a round trip for every PUT, and a client that is interrupted between
        # headers and body may leave an empty object behind (SeaweedFS 4.48).
        client.meta.events.unregister("before-call.s3", add_expect_header)
        client.meta.events.register("before-call.s3", self._add_headers)  # before the request is signed
        return client

    def _configuration(self, addressing: str, session: Any) -> AioConfig:
        # Stores other than AWS reject or mangle the SDK's default checksums (PutObject integrity, botocore 1.36).
        defaults = ("request_checksum_calculation", "response_checksum_validation") if self.location.endpoint else ()
        return AioConfig(
            http_session_cls=_OneAttempt,
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=5,
            read_timeout=FIRST_BYTE_TIMEOUT,
            max_pool_connections=self._connections,
            s3={"addressing_style": addressing},
            user_agent_extra="sqlite-sidecar",
            **{name: "when_required" for name in defaults if not is_configured(session, name)},
        )

    def _add_headers(self, params: Any, **_: object) -> None:
        params["headers"].update(self._headers)

    def _add_md5_of_nothing(self, params: Any, **_: object) -> None:
        if self._copies_have_md5:
            params["headers"]["Content-MD5"] = md5_of(b"")


class _OneAttempt(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    """Makes one attempt, as `retries` demands, which aiohttp ignores.

    aiohttp repeats an idempotent request whose connection broke (RFC 9112, 9.3.1). A conditional write is a PUT: the
    repetition would be refused because of the first attempt, as if another writer had been faster.
    """

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)
        session._retry_connection = False  # noqa: SLF001 - there is no public API
        session._auto_decompress = True  # noqa: SLF001 - a proxy may compress although we request identity
        return session


def _named(keys: StaticKeys) -> dict[str, str | None]:
    return {
        "aws_access_key_id": keys.key,
        "aws_secret_access_key": keys.secret,
        "aws_session_token": keys.token,
    }


def _date_of(reply: Any) -> datetime | None:
    with suppress(KeyError, ValueError, TypeError):
        return parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"]).astimezone(UTC)
    return None


def _is_address(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host == "localhost" or ":" in host or host.replace(".", "").isdigit()
