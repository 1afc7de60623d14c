"""Multipart uploads, and requests that are finished even when cancelled."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import anyio
import anyio.lowlevel

from sidecar.errors import OutcomeUnknown, SidecarError
from sidecar.model import Bytes, ObjectInfo, Span
from sidecar.storage.s3 import deadlines
from sidecar.storage.s3.checksums import MEMBER
from sidecar.storage.s3.client import S3Client
from sidecar.storage.s3.replies import strong

T = TypeVar("T")


class S3Upload:
    """Implements `base.Upload` as a multipart upload."""

    def __init__(self, client: S3Client, key: str, metadata: dict[str, str]) -> None:
        self._client = client
        self._key = key
        self._id = ""
        self._metadata = metadata
        self._etags: dict[int, str] = {}
        self._sizes: dict[int, int] = {}
        self._checksums: dict[int, str | None] = {}
        self._declared = False
        self.open = False

    async def begin(self) -> None:
        """Create the upload, which must be completed or aborted later."""
        await self._client.opened()
        self._declared = self._client.checksums.declared
        declaration = self._client.checksums.declaration()
        reply = await self._client.call("create_multipart_upload", self._key, Metadata=self._metadata, **declaration)
        self._id, self.open = reply["UploadId"], True

    async def abort(self) -> None:
        """Have the store delete the parts."""
        await self._client.call("abort_multipart_upload", self._key, UploadId=self._id)

    async def put_part(self, number: int, offset: int, data: Bytes) -> None:
        """See `base.Upload`."""
        reply = await self._client.write(
            "upload_part",
            self._key,
            data,
            deadline=deadlines.of_transfer(len(data)),
            declared=self._declared,
            UploadId=self._id,
            PartNumber=number,
        )
        self._note(number, reply, len(data))

    async def copy_part(self, number: int, offset: int, source: ObjectInfo, span: Span) -> None:
        """See `base.Upload`."""
        if span.end is None:
            raise ValueError("a copied part needs both ends")
        size, location = span.end - span.start, self._client.location
        reply = await self._client.copy(
            self._key,
            deadline=deadlines.of_copy(size),
            UploadId=self._id,
            PartNumber=number,
            CopySource={"Bucket": location.bucket, "Key": location.key(source.key)},  # the SDK URL-encodes it
            CopySourceIfMatch=source.etag,
            CopySourceRange=f"bytes={span.start}-{span.end - 1}",
        )
        self._note(number, reply.get("CopyPartResult", {}), size)

    async def complete(self) -> ObjectInfo:
        """See `base.Upload`."""
        reply = await self._client.call(
            "complete_multipart_upload",
            self._key,
            deadline=deadlines.of_assembly(),
            UploadId=self._id,
            MultipartUpload={"Parts": self._parts()},
            IfNoneMatch="*",
        )
        self.open = False
        now = await self._client.now()
        return ObjectInfo(self._key, sum(self._sizes.values()), etag_of(reply), now, self._metadata)

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
