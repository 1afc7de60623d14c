"""Multipart uploads, with what the store can do, and requests that are finished even when cancelled.

What a store does not support is learned from its refusal, and done in another way at once if there is one. A source that
the store does not compare itself is looked up before the first copy and after the last one: if it is another object by
then, nothing becomes visible.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from sidecar.errors import (
    ConfigurationError,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    ReuseFailed,
    SidecarError,
    StoreMissing,
)
from sidecar.model import Bytes, ObjectInfo, Span
from sidecar.storage.s3 import deadlines
from sidecar.storage.s3.checksums import MEMBER
from sidecar.storage.s3.client import S3Client
from sidecar.storage.s3.errors import is_invalid, is_unsupported
from sidecar.storage.s3.learning import Learning
from sidecar.storage.s3.replies import strong
from sidecar.storage.traits import PartCopy

T = TypeVar("T")

COPY_HINT = "everything is uploaded instead"
_LESS = {PartCopy.CONDITIONAL: PartCopy.UNCONDITIONAL, PartCopy.UNCONDITIONAL: PartCopy.NO}
_FEWEST_PARTS = 1000  # of all known stores: Scaleway


class S3Upload:
    """Implements `base.Upload` as a multipart upload."""

    def __init__(
        self, client: S3Client, learning: Learning, key: str, metadata: dict[str, str], *, over: bool = False
    ) -> None:
        """`over`: what exists under the key is replaced."""
        self._over = over
        self._client = client
        self._learning = learning
        self._key = key
        self._id = ""
        self._metadata = metadata
        self._etags: dict[int, str] = {}
        self._sizes: dict[int, int] = {}
        self._checksums: dict[int, str | None] = {}
        self._declared = False
        self._looking = anyio.Lock()
        self._sources: dict[str, ObjectInfo] = {}  # by key, those that are looked up
        self.open = False

    async def begin(self) -> None:
        """Create the upload, which must be completed or aborted later."""
        await self._client.opened()
        self._declared = self._client.checksums.declared
        declaration = self._client.checksums.declaration()
        reply = await self._client.call("create_multipart_upload", self._key, Metadata=self._metadata, **declaration)
        self._id, self.open = reply["UploadId"], True

    @asynccontextmanager
    async def begun(self) -> AsyncIterator[None]:
        """Create the upload; unless the block completes it, the store deletes its parts."""
        try:
            await unless_hurried(self.begin)
            yield
        finally:
            if self.open:
                with anyio.move_on_after(deadlines.ABORT_DEADLINE, shield=True), suppress(SidecarError):
                    await self.abort()

    async def abort(self) -> None:
        """Have the store delete the parts."""
        await self._client.call("abort_multipart_upload", self._key, UploadId=self._id)

    async def put_part(self, number: int, offset: int, data: Bytes) -> None:
        """See `base.Upload`."""
        try:
            reply = await self._client.write(
                "upload_part",
                self._key,
                data,
                deadline=deadlines.of_transfer(len(data)),
                declared=self._declared,
                UploadId=self._id,
                PartNumber=number,
            )
        except ConfigurationError as refusal:
            if number > _FEWEST_PARTS and is_invalid(refusal):
                fewer = (number - 1) // _FEWEST_PARTS * _FEWEST_PARTS
                self._learning.correct(refusal.message, maximum_parts=min(fewer, self._learning.traits.maximum_parts))
            raise
        self._note(number, reply, len(data))

    async def copy_part(self, number: int, offset: int, source: ObjectInfo, span: Span) -> None:
        """See `base.Upload`."""
        if span.end is None:
            raise ValueError("a copied part needs both ends")
        traits = self._learning.traits
        if traits.part_copy is PartCopy.NO:
            raise ConfigurationError(f"{traits.store} copies no parts", COPY_HINT)
        if traits.part_copy is PartCopy.UNCONDITIONAL or not traits.certain:
            await self._require_source(source)
        try:
            reply = await self._copy(number, source, span.start, span.end, traits.part_copy)
        except ConfigurationError as refusal:
            if not is_unsupported(refusal):
                raise
            if self._learning.traits.part_copy is traits.part_copy:  # another copy may have learned more meanwhile
                self._learning.correct(refusal.message, part_copy=_LESS[traits.part_copy])
            await self.copy_part(number, offset, source, span)
        else:
            self._note(number, reply, span.end - span.start)

    async def _copy(self, number: int, source: ObjectInfo, start: int, end: int, kind: PartCopy) -> Any:
        location = self._client.location
        condition = {"CopySourceIfMatch": source.etag} if kind is PartCopy.CONDITIONAL else {}
        reply = await self._client.copy(
            self._key,
            deadline=deadlines.of_copy(end - start),
            UploadId=self._id,
            PartNumber=number,
            CopySource={"Bucket": location.bucket, "Key": location.key(source.key)},  # the SDK URL-encodes it
            CopySourceRange=f"bytes={start}-{end - 1}",
            **condition,
        )
        if "ETag" in (result := reply.get("CopyPartResult") or {}):
            return result
        # A store that ignores the source has stored the empty body of this request as the part.
        self._learning.correct("a copy was answered like an upload", part_copy=PartCopy.NO)
        raise ConfigurationError(f"{self._client.location.url}: the store copied nothing", COPY_HINT)

    async def _require_source(self, source: ObjectInfo) -> None:
        """Look a source up before the first copy from it. Raises `NotFound` and `PreconditionFailed`."""
        async with self._looking:
            if source.key not in self._sources:
                await self._compare(source)
                self._sources[source.key] = source

    async def _compare(self, source: ObjectInfo) -> None:
        found = await self._etag(source.key)
        if found is None:
            raise NotFound(f"{source.key} does not exist")
        if found != source.etag:
            raise PreconditionFailed(f"{source.key} is another object by now")

    async def _etag(self, key: str) -> str | None:
        """The ETag of an object, None if it does not exist."""
        try:
            return etag_of(await self._client.call("head_object", key))
        except (NotFound, StoreMissing):  # of the key: the upload shows that there is a bucket
            return None

    async def complete(self) -> ObjectInfo:
        """See `base.Upload`. Raises `ReuseFailed` if a source has changed, or if the store does not take these parts."""
        for source in self._sources.values():
            try:
                await self._compare(source)
            except (NotFound, PreconditionFailed) as change:
                raise ReuseFailed(f"a copied object changed meanwhile: {change.message}") from change
        reply = await self._complete()
        self.open = False
        now = await self._client.now()
        return ObjectInfo(self._key, sum(self._sizes.values()), etag_of(reply), now, self._metadata)

    async def _complete(self) -> Any:
        conditional = self._learning.traits.conditional_complete and not self._over
        if not conditional and not self._over and await self._etag(self._key) is not None:
            raise PreconditionFailed(f"{self._key} exists")
        try:
            return await self._client.call(
                "complete_multipart_upload",
                self._key,
                deadline=deadlines.of_assembly(),
                UploadId=self._id,
                MultipartUpload={"Parts": self._parts()},
                **({"IfNoneMatch": "*"} if conditional else {}),
            )
        except ConfigurationError as refusal:
            if conditional and is_unsupported(refusal):
                self._learning.correct(refusal.message, conditional_complete=False)
                return await self._complete()
            if is_invalid(refusal) and not self._has_equal_parts:
                self._learning.correct(refusal.message, equal_parts=True)
                raise ReuseFailed(f"the store does not take parts of different sizes: {refusal.message}") from refusal
            raise

    @property
    def _has_equal_parts(self) -> bool:
        *others, last = (self._sizes[number] for number in sorted(self._sizes))
        return len(set(others)) <= 1 and last <= max(others, default=last)

    def _note(self, number: int, reply: Any, size: int) -> None:
        self._etags[number], self._sizes[number] = etag_of(reply), size
        self._checksums[number] = reply.get(MEMBER)

    def _parts(self) -> list[dict[str, object]]:
        """The parts in order, with their checksums if they were declared and the store repeats all of them."""
        parts: list[dict[str, object]] = [
            {"PartNumber": each, "ETag": self._etags[each]} for each in sorted(self._etags)
        ]
        if self._declared and all(self._checksums.values()):
            return [
                {**part, MEMBER: self._checksums[number]}
                for number, part in zip(sorted(self._etags), parts, strict=True)
            ]
        return parts


async def unless_hurried(request: Callable[[], Awaitable[T]]) -> T:
    """Finish a request even when cancelled, unless it takes long: interrupted, its outcome would be unknown."""
    await anyio.lowlevel.checkpoint_if_cancelled()
    replies: list[T] = []
    failure: SidecarError | None = None
    async with anyio.create_task_group() as group:
        with anyio.CancelScope(shield=True) as scope:
            group.start_soon(_hurry, scope)
            try:
                replies.append(await request())
            except SidecarError as error:
                failure = error
        group.cancel_scope.cancel()
    if failure:
        raise failure
    await anyio.lowlevel.checkpoint_if_cancelled()
    return replies[0]


async def _hurry(scope: anyio.CancelScope) -> None:
    """When cancelled, give the scope a deadline."""
    try:
        await anyio.sleep_forever()
    finally:
        scope.deadline = anyio.current_time() + deadlines.ABORT_DEADLINE


def etag_of(reply: Any) -> str:
    """The ETag in the reply to a write. Without one it is another 200, for example a proxy's page."""
    if "ETag" not in reply:
        raise OutcomeUnknown(
            "the reply to a write has no ETag, so it is not from an S3 store",
            "check that AWS_ENDPOINT_URL_S3 names an S3 endpoint",
        )
    return strong(str(reply["ETag"]))
