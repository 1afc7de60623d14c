"""An S3 store, `s3://bucket/prefix`, through aioboto3's client. The SDK appears nowhere else.

The SDK's transfer functions are not used: they buffer without bound, leave orphan tasks and uploads behind when
cancelled, and know no conditional writes. Retries are not done here but in `store.py`: botocore makes one attempt.
"""

import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from typing import Any, Self
from urllib.parse import urlsplit

import aioboto3
import aiohttp
import anyio
import anyio.lowlevel
from aiobotocore.config import AioConfig
from aiobotocore.httpsession import AIOHTTPSession
from botocore.handlers import add_expect_header

from sidecar.errors import (
    ConfigurationError,
    NotFound,
    SidecarError,
    StoreMissing,
    StoreUnavailable,
    TokenUnavailable,
)
from sidecar.model import Blob, Bytes, Condition, IfAbsent, IfMatch, ObjectInfo, Page, Span
from sidecar.storage.base import FIRST_BYTE_TIMEOUT, Credentials, Upload
from sidecar.storage.s3.body import Body, read_body
from sidecar.storage.s3.errors import SDK_ERRORS, doubts_session, translate
from sidecar.storage.s3.session import new_session
from sidecar.storage.s3.upload import ABORT_DEADLINE, DEADLINE, MIB, SLOWEST, S3Upload, etag_of, unless_hurried


@dataclass(frozen=True, slots=True)
class S3Location:
    """Where the store is. `endpoint` and `region` as the SDK's environment variables have them, or None."""

    bucket: str
    prefix: str
    endpoint: str | None = None
    region: str | None = None


class S3Store:
    """Implements `ports.ObjectStore`. Use as an async context manager; one client, one connection pool."""

    minimum_part = 5 * MIB
    maximum_parts = 10_000

    def __init__(self, location: S3Location, *, connections: int = 10, credentials: Credentials | None = None) -> None:
        """Without `credentials` the SDK finds its own. Raises `ConfigurationError` without a region and an endpoint."""
        if not location.region and not location.endpoint:
            raise ConfigurationError(
                f"no region is known for s3://{location.bucket}",
                "set AWS_REGION, or AWS_ENDPOINT_URL_S3 for another store",
            )
        self._location = location
        self._connections = connections
        self._credentials = credentials
        self._stack = AsyncExitStack()
        self._client: Any = None
        self._clients: dict[str, Any] = {}
        self._opening = anyio.Lock()
        self._seen: tuple[datetime, float] | None = None

    @property
    def url(self) -> str:
        """See `ports.ObjectStore`."""
        return f"s3://{self._location.bucket}/{self._location.prefix}".rstrip("/")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        with anyio.move_on_after(ABORT_DEADLINE, shield=True):
            await self._stack.aclose()

    async def now(self) -> datetime:
        """The `Date` of the last reply, carried on by this machine's monotonic clock; accurate to a second."""
        if self._seen is None:
            await self._call("list_objects_v2", "", Prefix=self._key(""), MaxKeys=1)
        if self._seen is None:
            raise StoreUnavailable(f"{self.url} answers without a Date header")
        date, at = self._seen
        return date + timedelta(seconds=time.monotonic() - at)

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """See `ports.ObjectStore`."""
        wanted = {"Range": _range(span)} if span else {}
        if if_match:
            wanted["IfMatch"] = if_match
        deadline = DEADLINE + (((span.end - span.start) if span and span.end else 16 * MIB) / SLOWEST)
        client = await self._opened()
        with self._translated("get", key, deadline):
            reply = await client.get_object(Bucket=self._location.bucket, Key=self._key(key), **wanted)
            self._observe(reply)
            async with reply["Body"] as body:
                data = await read_body(body, reply["ContentLength"], into)
        return Blob(data, _info(key, reply, _whole_size(reply)))

    async def head(self, key: str) -> ObjectInfo:
        """See `ports.ObjectStore`."""
        try:
            reply = await self._call("head_object", key)
        except StoreMissing:
            # A HEAD's 404 has no body to tell a missing key from a missing bucket; LIST has.
            await self._call("list_objects_v2", "", Prefix=self._key(key), MaxKeys=1)
            raise NotFound(f"{key} does not exist") from None
        return _info(key, reply, reply["ContentLength"])

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """See `ports.ObjectStore`."""
        parameters: dict[str, Any] = {"Prefix": self._key(prefix), "MaxKeys": min(limit, 1000)}
        if start_after:
            parameters["StartAfter"] = self._key(start_after)
        reply = await self._call("list_objects_v2", "", **parameters)
        if "KeyCount" not in reply and "Name" not in reply:
            # An empty body parses as an empty listing, and an empty store would let the app start empty.
            raise StoreUnavailable(f"{self.url} answers with something that is no listing", "is it an S3 endpoint?")
        skip = len(self._key(""))
        return Page(
            tuple(
                ObjectInfo(entry["Key"][skip:], entry["Size"], entry["ETag"], _utc(entry["LastModified"]))
                for entry in reply.get("Contents", [])
            ),
            bool(reply.get("IsTruncated")),
        )

    async def put(
        self, key: str, data: Bytes, *, condition: Condition = None, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """See `ports.ObjectStore`. Cancelled, it is finished all the same, if that does not take long.

        SeaweedFS 4.48 keeps an empty object of a PUT whose sender closes between head and body.
        """
        given = dict(metadata or {})
        deadline = DEADLINE + len(data) / SLOWEST
        parameters = {"Body": Body(data), "Metadata": given, **_conditional(condition)}
        reply = await unless_hurried(partial(self._call, "put_object", key, deadline=deadline, **parameters))
        return ObjectInfo(key, len(data), etag_of(reply), self._date(reply), given)

    @asynccontextmanager
    async def upload(self, key: str, *, metadata: Mapping[str, str]) -> AsyncIterator[Upload]:
        """See `ports.ObjectStore`."""
        upload = S3Upload(self, key, dict(metadata))
        try:
            await unless_hurried(upload.begin)
            yield upload
        finally:
            if upload.open:
                with anyio.move_on_after(ABORT_DEADLINE, shield=True), suppress(SidecarError):
                    await upload.abort()

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """See `ports.ObjectStore`."""
        pairs = [{"Key": name, "Value": value} for name, value in tags.items()]
        await self._call("put_object_tagging", key, Tagging={"TagSet": pairs})

    async def tags(self, key: str) -> dict[str, str]:
        """See `ports.ObjectStore`."""
        reply = await self._call("get_object_tagging", key)
        return {pair["Key"]: pair["Value"] for pair in reply["TagSet"]}

    async def call(self, operation: str, key: str, *, deadline: float | None = None, **parameters: Any) -> Any:
        """One request, within a deadline in seconds, its errors translated."""
        return await self._call(operation, key, deadline=deadline, **parameters)

    def source(self, key: str) -> dict[str, str]:
        """An object as the SDK wants a CopySource; it does the quoting itself, and would quote a quoted one twice."""
        return {"Bucket": self._location.bucket, "Key": self._key(key)}

    async def _call(self, operation: str, key: str, *, deadline: float | None = None, **parameters: Any) -> Any:
        if key:
            parameters["Key"] = self._key(key)
        client = await self._opened()
        with self._translated(operation, key, DEADLINE if deadline is None else deadline):
            reply = await getattr(client, operation)(Bucket=self._location.bucket, **parameters)
        self._observe(reply)
        return reply

    @contextmanager
    def _translated(self, operation: str, key: str, deadline: float) -> Iterator[None]:
        """A deadline around a request, and the one place where the SDK's errors become ours."""
        try:
            with anyio.fail_after(deadline):
                yield
        except SDK_ERRORS as error:
            ours = translate(error, self._location.bucket, self._location.endpoint, operation, key)
            if self._credentials and doubts_session(error) and self._credentials.forget():
                ours = TokenUnavailable("the store says that the session has ended", "another one is fetched")
            raise ours from error

    def _key(self, key: str) -> str:
        return f"{self._location.prefix}/{key}" if self._location.prefix else key

    def _observe(self, reply: Any) -> None:
        with suppress(KeyError, ValueError, TypeError):
            date = parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
            self._seen = (date.astimezone(UTC), time.monotonic())

    def _date(self, reply: Any) -> datetime:
        self._observe(reply)
        return self._seen[0] if self._seen else datetime.now(UTC)

    async def _opened(self) -> Any:
        """The client, made at first use: a store that is down at start must not stop us from starting.

        Credentials are renewed here, outside of any request's deadline.
        """
        if self._credentials:
            await self._credentials.fresh()
        async with self._opening:
            if self._client is None:
                self._client = await self._find_addressing()
        return self._client

    async def _find_addressing(self) -> Any:
        """AWS takes virtual-hosted addressing. Other stores take one or the other: the first that answers is kept."""
        if not self._location.endpoint:
            return await self._make_client("auto")
        client, refusal = await self._try_addressing("path")
        if refusal is None or _is_address(self._location.endpoint):
            return client
        other, second = await self._try_addressing("virtual")
        if second is None:
            return other
        raise refusal

    async def _try_addressing(self, style: str) -> tuple[Any, SidecarError | None]:
        if style not in self._clients:  # a client is tens of megabytes: one for each attempt would be a leak
            self._clients[style] = await self._make_client(style)
        client = self._clients[style]
        try:
            with self._translated("list_objects_v2", "", DEADLINE):
                await client.list_objects_v2(Bucket=self._location.bucket, Prefix=self._key(""), MaxKeys=1)
        except (StoreMissing, ConfigurationError) as error:
            return client, error
        return client, None

    async def _make_client(self, addressing: str) -> Any:
        custom = self._location.endpoint is not None
        config = AioConfig(
            http_session_cls=_OneAttempt,
            retries={"total_max_attempts": 1, "mode": "standard"},
            connect_timeout=5,
            read_timeout=FIRST_BYTE_TIMEOUT,
            max_pool_connections=self._connections,
            s3={"addressing_style": addressing},
            user_agent_extra="sqlite-sidecar",
            # Stores other than AWS reject or mangle the newer default checksums (PutObject integrity, botocore 1.36).
            request_checksum_calculation="when_required" if custom else None,
            response_checksum_validation="when_required" if custom else None,
        )
        found = self._credentials.for_sdk() if self._credentials else new_session()
        session = aioboto3.Session(botocore_session=found)
        region = self._location.region or "us-east-1"
        with self._translated("connect", "", DEADLINE):
            client = await self._stack.enter_async_context(
                session.client("s3", config=config, region_name=region, endpoint_url=self._location.endpoint)
            )
        # Without `Expect: 100-continue`: it costs a round trip for every PUT, and whoever is interrupted between head
        # and body may leave an empty object, as SeaweedFS 4.48 keeps one.
        client.meta.events.unregister("before-call.s3", add_expect_header)
        return client


class _OneAttempt(AIOHTTPSession):  # type: ignore[misc] # aiobotocore has no types
    """Makes one attempt, as `retries` asks for and aiohttp does not.

    aiohttp repeats an idempotent request whose connection broke (RFC 9112, 9.3.1). A conditional write is a PUT: its
    repetition would be refused because of the first attempt, and look as if somebody else had been there.
    """

    async def _get_session(self, proxy_url: str | None) -> aiohttp.ClientSession:
        session: aiohttp.ClientSession = await super()._get_session(proxy_url)
        session._retry_connection = False  # noqa: SLF001 - there is no public way
        return session


def _info(key: str, reply: Any, size: int) -> ObjectInfo:
    return ObjectInfo(key, size, reply["ETag"], _utc(reply["LastModified"]), dict(reply.get("Metadata", {})))


def _whole_size(reply: Any) -> int:
    """The size of the whole object, whether the reply carries all of it or a range."""
    if "ContentRange" in reply:
        return int(reply["ContentRange"].rpartition("/")[2])
    return int(reply["ContentLength"])


def _range(span: Span) -> str:
    if span.start < 0:
        return f"bytes={span.start}"
    return f"bytes={span.start}-{'' if span.end is None else span.end - 1}"


def _conditional(condition: Condition) -> dict[str, str]:
    match condition:
        case IfAbsent():
            return {"IfNoneMatch": "*"}
        case IfMatch(etag):
            return {"IfMatch": etag}
    return {}


def _utc(instant: datetime) -> datetime:
    return instant.astimezone(UTC)


def _is_address(endpoint: str) -> bool:
    host = urlsplit(endpoint).hostname or ""
    return host == "localhost" or ":" in host or host.replace(".", "").isdigit()
