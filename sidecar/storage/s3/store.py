"""An S3 store, `s3://bucket/prefix`.

The SDK's transfer functions are not used: they buffer without bound, leave orphan tasks and uploads behind when
cancelled, and do not support conditional writes.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Any, Self
from urllib.parse import urlencode

from sidecar.errors import (
    AccessDenied,
    ConfigurationError,
    NotFound,
    SidecarError,
    StoreMissing,
    StoreUnavailable,
    StoreUnsuitable,
)
from sidecar.log import log
from sidecar.model import Blob, Bytes, Condition, IfAbsent, IfMatch, ObjectInfo, Page, Span
from sidecar.storage.access import StaticKeys
from sidecar.storage.base import Credentials, Upload
from sidecar.storage.s3 import deadlines
from sidecar.storage.s3.body import read_body
from sidecar.storage.s3.client import S3Client, S3Location
from sidecar.storage.s3.copying import copy_object
from sidecar.storage.s3.errors import is_unsupported
from sidecar.storage.s3.known import traits_of
from sidecar.storage.s3.learning import Learning
from sidecar.storage.s3.replies import body_length, encodings_of, info_of, note_transformation, whole_size
from sidecar.storage.s3.upload import S3Upload, etag_of, unless_hurried
from sidecar.storage.traits import MIB, Traits

NO_TAGS_HINT = "`sidecar check` shows what the store can do"
TAGS_HINT = "allow s3:PutObjectTagging, or let a lifecycle rule expire everything in the folder `stream/`"


class S3Store:
    """Implements `base.ObjectStore`. An async context manager."""

    def __init__(
        self,
        location: S3Location,
        *,
        connections: int = 10,
        credentials: Credentials | None = None,
        keys: StaticKeys | None = None,
    ) -> None:
        """Without `credentials` and `keys`, the SDK finds its own. Raises `ConfigurationError` if there is neither a region nor an endpoint."""
        self.client = S3Client(location, connections=connections, credentials=credentials, keys=keys)
        self._location = location
        self.learning = Learning(traits_of(location.endpoint), location.url)
        self._denies_tags = False
        self._may_have_tags = self.traits.tags

    @property
    def url(self) -> str:
        """See `base.ObjectStore`."""
        return self._location.url

    @property
    def traits(self) -> Traits:
        """See `base.ObjectStore`."""
        return self.learning.traits

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.client.aclose()

    async def now(self) -> datetime:
        """See `base.ObjectStore`; accurate to a second."""
        return await self.client.now()

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """See `base.ObjectStore`."""
        wanted = {"Range": _range(span)} if span else {}
        if if_match:
            wanted["IfMatch"] = if_match
        size = (span.end - span.start) if span and span.end else 16 * MIB
        client = await self.client.opened()
        with self.client.translated("get", key, deadlines.of_transfer(size)):
            reply = await client.get_object(Bucket=self._location.bucket, Key=self._location.key(key), **wanted)
            self.client.observe(reply)
            async with reply["Body"] as body:
                if encodings_of(reply):
                    note_transformation(self.url)
                data = await read_body(body, body_length(reply), into)
        return Blob(data, info_of(key, reply, whole_size(reply, len(data))))

    async def head(self, key: str) -> ObjectInfo:
        """See `base.ObjectStore`."""
        try:
            reply = await self.client.call("head_object", key)
        except StoreMissing:
            # The 404 of a HEAD has no body that distinguishes a missing key from a missing bucket; that of a LIST has.
            await self.client.call("list_objects_v2", "", Prefix=self._location.key(key), MaxKeys=1)
            raise NotFound(f"{key} does not exist") from None
        if (size := body_length(reply)) is None:  # a proxy has dropped it
            page = await self.list(key, limit=1)
            if not page.objects or page.objects[0].key != key:
                raise NotFound(f"{key} does not exist")
            size = page.objects[0].size
        return info_of(key, reply, size)

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """See `base.ObjectStore`."""
        parameters: dict[str, Any] = {"Prefix": self._location.key(prefix), "MaxKeys": min(limit, 1000)}
        if start_after:
            parameters["StartAfter"] = self._location.key(start_after)
        reply = await self._listed(parameters)
        while reply.get("IsTruncated") and not reply.get(
            "Contents"
        ):  # S3 may send such a page, as where much was deleted
            token = reply.get("NextContinuationToken")
            if not token:
                raise StoreUnavailable(f"{self.url} answers a LIST with an empty page that is not the last one")
            reply = await self._listed({**parameters, "ContinuationToken": token})
        skip = len(self._location.key(""))
        found = tuple(
            ObjectInfo(entry["Key"][skip:], entry["Size"], entry["ETag"], _utc(entry["LastModified"]))
            for entry in reply.get("Contents", [])
        )
        self._require_order([start_after, *(info.key for info in found)], prefix)
        return Page(found, bool(reply.get("IsTruncated")))

    async def _listed(self, parameters: Mapping[str, Any]) -> Any:
        reply = await self.client.call("list_objects_v2", "", **parameters)
        if "KeyCount" not in reply and "Name" not in reply:
            # An empty body parses as an empty listing, and an empty store would let the app start empty.
            raise StoreUnavailable(
                f"{self.url} does not answer a LIST like an S3 store",
                "check that AWS_ENDPOINT_URL_S3 names an S3 endpoint",
            )
        return reply

    def _require_order(self, keys: Sequence[str], prefix: str) -> None:
        """Raise `StoreUnsuitable` unless the keys of a listing ascend: what is newest would not be known."""
        encoded = [key.encode() for key in keys]
        ascending = all(before < after for before, after in pairwise(encoded))
        if ascending and all(key.startswith(prefix) for key in keys[1:]):
            return
        self.learning.correct("a listing was out of order", ordered=False)
        raise StoreUnsuitable(
            f"{self.url} lists objects out of order: the newest restore point cannot be told from older ones",
            "use a store that lists keys in order, or reach it without the proxy in front of it",
        )

    async def put(
        self,
        key: str,
        data: Bytes,
        *,
        condition: Condition = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """See `base.ObjectStore`. If it is cancelled, it is still finished, unless that takes long.

        SeaweedFS 4.48 keeps an empty object if the client of a PUT disconnects between headers and body.
        """
        given = dict(metadata or {})
        parameters: dict[str, Any] = {"Metadata": given, **_conditional(condition)}
        if not tags or self._denies_tags or not self.traits.tags:
            return await self._put(key, data, parameters)
        try:
            return await self._put(key, data, {**parameters, "Tagging": urlencode(tags)})
        except (ConfigurationError, AccessDenied) as refusal:
            info = await self._put(key, data, parameters)  # this is refused as well unless the tags were the reason
            self._go_without_tags(refusal)
            log.warning("tags not written", store=self.url, error=refusal.message, hint=TAGS_HINT)
            return info

    def _go_without_tags(self, refusal: SidecarError) -> None:
        """A right may be granted later, so only a store that cannot have tags is remembered as such."""
        self._denies_tags = True
        if is_unsupported(refusal):
            self.learning.correct(refusal.message, tags=False)

    async def _put(self, key: str, data: Bytes, parameters: dict[str, Any]) -> ObjectInfo:
        deadline = deadlines.of_transfer(len(data))
        write = partial(self.client.write, "put_object", key, data, deadline=deadline, **parameters)
        try:
            reply = await unless_hurried(write)
        except ConfigurationError as refusal:
            conditional = bool({"IfNoneMatch", "IfMatch"} & parameters.keys())
            if conditional and "Tagging" not in parameters and is_unsupported(refusal):
                self.learning.correct(refusal.message, conditional_put=False)
            raise
        return ObjectInfo(key, len(data), etag_of(reply), self.client.observe(reply), parameters["Metadata"])

    @asynccontextmanager
    async def upload(self, key: str, *, metadata: Mapping[str, str]) -> AsyncIterator[Upload]:
        """See `base.ObjectStore`."""
        upload = S3Upload(self.client, self.learning, key, dict(metadata))
        async with upload.begun():
            yield upload

    async def copy(self, source: ObjectInfo, key: str, *, metadata: Mapping[str, str]) -> ObjectInfo:
        """See `base.ObjectStore`."""
        return await copy_object(self.client, self.learning, source, key, dict(metadata))

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """See `base.ObjectStore`."""
        if not self.traits.tags:
            raise self._without_tags
        pairs = [{"Key": name, "Value": value} for name, value in tags.items()]
        await self._call_about_tags("put_object_tagging", key, Tagging={"TagSet": pairs})

    async def tags(self, key: str) -> dict[str, str]:
        """See `base.ObjectStore`. Asked for unless the vendor says that there are none: one refused request may be a proxy's."""
        if not self._may_have_tags:
            raise self._without_tags
        reply = await self._call_about_tags("get_object_tagging", key)
        return {pair["Key"]: pair["Value"] for pair in reply["TagSet"]}

    @property
    def _without_tags(self) -> ConfigurationError:
        return ConfigurationError(f"{self.traits.store} has no object tags", NO_TAGS_HINT)

    async def _call_about_tags(self, operation: str, key: str, **parameters: Any) -> Any:
        try:
            return await self.client.call(operation, key, **parameters)
        except ConfigurationError as refusal:
            if is_unsupported(refusal):
                self.learning.correct(refusal.message, tags=False)
            raise


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
