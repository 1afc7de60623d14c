"""Reads whole small objects by repeating the SDK's own request for other keys.

A restore may read thousands of segments, and the SDK takes twice as much processor time to prepare a request and to parse
its reply as aiohttp does to send it. So the last GET that the SDK made is sent again with another key, dated and signed anew.
This is only done where signing the SDK's request here gives the SDK's own signature: whatever else a configuration demands
(another kind of signature, none, the session of a directory bucket) stays with the SDK. So does every reply that is neither a
plain success nor says that there is no such key: nothing is concluded from it, the SDK makes the request itself, and it must succeed with another one first.

Signature Version 4: https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html
"""

import hashlib
import hmac
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlsplit

from botocore.awsrequest import AWSPreparedRequest
from botocore.exceptions import ClientError

from sidecar.model import Bytes
from sidecar.storage.s3.body import read_body
from sidecar.storage.s3.checksums import crc32_of
from sidecar.storage.s3.session import parse_timestamp

_ALGORITHM = "AWS4-HMAC-SHA256"
_PLAIN = {"x-amz-content-sha256", "x-amz-checksum-mode", "x-amz-security-token", "x-amz-request-payer", "user-agent"}
_METADATA, _CHECKSUM = "x-amz-meta-", "x-amz-checksum-"

_NO_SUCH_KEY = b"<Code>NoSuchKey</Code>"
_MISSING = {"Error": {"Code": "NoSuchKey"}, "ResponseMetadata": {"HTTPStatusCode": 404}}


@dataclass(frozen=True, slots=True)
class _Pattern:
    """What the requests for all keys have in common: the URL before the key, the headers to send, and the signature's scope."""

    url: str
    headers: Mapping[str, str]
    access_key: str
    region: str
    service: str

    def request(self, key: str, secret: str) -> AWSPreparedRequest:
        """The request for a key in the bucket."""
        url = self.url + _quoted(key)
        address = urlsplit(url)
        headers = {**self.headers, "host": address.netloc, "x-amz-date": datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")}
        signed = sorted(headers.keys() - {"user-agent"})
        signature = signature_of(
            address.path, {name: headers[name] for name in signed}, self.region, self.service, secret
        )
        scope = f"{self.access_key}/{headers['x-amz-date'][:8]}/{self.region}/{self.service}/aws4_request"
        del headers["host"]  # the HTTP client sets it
        headers["authorization"] = (
            f"{_ALGORITHM} Credential={scope}, SignedHeaders={';'.join(signed)}, Signature={signature}"
        )
        return AWSPreparedRequest("GET", url, headers, None, stream_output=True)


@dataclass(slots=True)
class _Lesson:
    key: str
    pattern: _Pattern | None = None


_lesson: ContextVar[_Lesson | None] = ContextVar("lesson", default=None)  # of the task that makes a request


@dataclass(slots=True)
class Direct:
    """Repeats the requests of one client of the SDK, once it has seen one that succeeded."""

    client: Any
    _pattern: _Pattern | None = None

    def __post_init__(self) -> None:
        self.client.meta.events.register("before-send.s3.GetObject", self._observe)

    @contextmanager
    def watching(self, key: str) -> Iterator[None]:
        """Learn from the request that the SDK makes inside, for this key in the bucket, if that succeeds."""
        if self._pattern:
            yield
            return
        lesson = _Lesson(key)
        token = _lesson.set(lesson)
        try:
            yield
            self._pattern = lesson.pattern
        finally:
            _lesson.reset(token)

    async def get(self, key: str) -> tuple[Bytes, Any] | None:
        """The bytes of an object, and a reply with what the SDK's would say. None if the SDK must be asked.

        Raises what the SDK raises for an object that does not exist, and for a store that cannot be reached.
        """
        pattern = self._pattern
        if pattern is None:
            return None
        credentials = await self._credentials()
        if credentials is None or not _is_of(pattern, credentials):
            self._pattern = None
            return None
        response = await self.client._endpoint.http_session.send(pattern.request(key, credentials.secret_key))  # noqa: SLF001 - there is no public API
        async with response.raw as raw:
            if raw.status == 404 and _NO_SUCH_KEY in await read_body(raw, None, None):
                raise ClientError(_MISSING, "GetObject")  # as common as success, and as clear
            found = await _plain_reply(raw)
        if found is None:
            self._pattern = None
        return found

    async def _observe(self, request: Any, **_: object) -> None:
        """Called by the SDK before it sends a request. To return nothing lets it do so."""
        if (lesson := _lesson.get()) and (credentials := await self._credentials()):
            lesson.pattern = _pattern_of(request, lesson.key, credentials)

    async def _credentials(self) -> Any:
        """Those that the SDK would sign with now; None without any."""
        found = self.client._request_signer._credentials  # noqa: SLF001 - there is no public API
        return await found.get_frozen_credentials() if found else None


async def _plain_reply(raw: Any) -> tuple[Bytes, Any] | None:
    """The whole object that aiohttp's response has; None if the response is not just that."""
    headers = raw.headers
    length = headers.get("Content-Length", "")
    described = "ETag" in headers and "Last-Modified" in headers and length.isdecimal()
    if raw.status != 200 or not described or "Content-Encoding" in headers:
        return None
    data = await read_body(raw, int(length), None)
    sums, metadata = {}, {}
    for name, value in headers.items():
        lower = name.lower()
        if lower.startswith(_METADATA):
            metadata[lower.removeprefix(_METADATA)] = value
        elif lower.startswith(_CHECKSUM) and lower != "x-amz-checksum-type":
            sums[lower] = value
    if sums and sums != {"x-amz-checksum-crc32": crc32_of(data)}:
        return None  # the SDK knows the other kinds, and what to say if it is wrong
    return data, {
        "ETag": headers["ETag"],
        "LastModified": parse_timestamp(headers["Last-Modified"]),
        "Metadata": metadata,
        "ResponseMetadata": {"HTTPHeaders": {"date": headers.get("Date")}},
    }


def _pattern_of(request: Any, key: str, credentials: Any) -> _Pattern | None:
    """The pattern of a signed request for a key; None unless it is signed as we would sign it."""
    headers = {name.lower(): _text(value) for name, value in request.headers.items()}
    url, address, quoted = request.url, urlsplit(request.url), _quoted(key)
    algorithm, _, rest = headers.get("authorization", "").partition(" ")
    parts = dict(part.strip().partition("=")[::2] for part in rest.split(","))
    access_key, day, region, service, *_ = (*parts.get("Credential", "").split("/"), "", "", "", "")
    names, date = parts.get("SignedHeaders", "").split(";"), headers.get("x-amz-date", "")
    if algorithm != _ALGORITHM or not url.endswith(f"/{quoted}") or date[:8] != day:
        return None
    signed = {name: {**headers, "host": address.netloc}.get(name, "") for name in names}
    signature = signature_of(address.path, signed, region, service, credentials.secret_key)
    if access_key != credentials.access_key or not hmac.compare_digest(signature, parts.get("Signature", "")):
        return None
    kept = {name: value for name, value in headers.items() if name in _PLAIN}
    return _Pattern(url.removesuffix(quoted), kept, access_key, region, service)


def _is_of(pattern: _Pattern, credentials: Any) -> bool:
    token = pattern.headers.get("x-amz-security-token")
    return bool(credentials.access_key == pattern.access_key and (credentials.token or None) == token)


def signature_of(path: str, headers: Mapping[str, str], region: str, service: str, secret: str) -> str:
    """The signature of a GET without a query. `headers` are those to sign, in lower case; all of them are."""
    names = sorted(headers)
    lines = "".join(f"{name}:{' '.join(headers[name].split())}\n" for name in names)
    canonical = f"GET\n{path}\n\n{lines}\n{';'.join(names)}\n{headers.get('x-amz-content-sha256', '')}"
    date = headers.get("x-amz-date", "")
    scope = f"{date[:8]}/{region}/{service}/aws4_request"
    text = f"{_ALGORITHM}\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = f"AWS4{secret}".encode()
    for part in scope.split("/"):
        key = hmac.digest(key, part.encode(), "sha256")
    return hmac.digest(key, text.encode(), "sha256").hex()


def _quoted(key: str) -> str:
    return quote(key, safe="/~")  # as the SDK does


def _text(value: str | bytes) -> str:
    return value.decode() if isinstance(value, bytes) else value
