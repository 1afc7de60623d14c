"""Multipart uploads, and requests that are finished even when cancelled."""

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, Protocol, TypeVar

import anyio
import anyio.lowlevel

from sidecar.errors import OutcomeUnknown, SidecarError
from sidecar.model import Bytes, ObjectInfo, Span
from sidecar.storage.s3.body import Body

T = TypeVar("T")

MIB = 1 << 20
DEADLINE = 30.0
SLOWEST = 64 * 1024  # bytes per second; a transfer below this is given up and tried again
ABORT_DEADLINE = 3.0  # of what is still done when cancelled: it delays a shutdown when the store does not answer


class Caller(Protocol):
    """What an upload needs of its store."""

    async def call(self, operation: str, key: str, *, deadline: float | None = None, **parameters: Any) -> Any:
        """One request, within a deadline in seconds, its errors translated."""
        ...

    def source(self, key: str) -> dict[str, str]:
        """An object as the SDK wants a CopySource."""
        ...

    async def now(self) -> datetime:
        """The store's clock."""
        ...


class S3Upload:
    """Implements `ports.Upload` as a multipart upload."""

    def __init__(self, store: Caller, key: str, metadata: dict[str, str]) -> None:
        self._store = store
        self._key = key
        self._id = ""
        self._metadata = metadata
        self._etags: dict[int, str] = {}
        self._sizes: dict[int, int] = {}
        self.open = False

    async def begin(self) -> None:
        """Create the upload; from here on it is to be completed or aborted."""
        reply = await self._store.call("create_multipart_upload", self._key, Metadata=self._metadata)
        self._id, self.open = reply["UploadId"], True

    async def abort(self) -> None:
        """Have the store forget the parts."""
        await self._store.call("abort_multipart_upload", self._key, UploadId=self._id)

    async def put_part(self, number: int, offset: int, data: Bytes) -> None:
        """See `ports.Upload`."""
        reply = await self._store.call(
            "upload_part",
            self._key,
            deadline=DEADLINE + len(data) / SLOWEST,
            UploadId=self._id,
            PartNumber=number,
            Body=Body(data),
        )
        self._etags[number], self._sizes[number] = etag_of(reply), len(data)

    async def copy_part(self, number: int, offset: int, source: ObjectInfo, span: Span) -> None:
        """See `ports.Upload`."""
        if span.end is None:
            raise ValueError("a copied part has both ends")
        size = span.end - span.start
        reply = await self._store.call(
            "upload_part_copy",
            self._key,
            deadline=DEADLINE + size / (4 * MIB),
            UploadId=self._id,
            PartNumber=number,
            CopySource=self._store.source(source.key),
            CopySourceIfMatch=source.etag,
            CopySourceRange=f"bytes={span.start}-{span.end - 1}",
        )
        self._etags[number], self._sizes[number] = etag_of(reply.get("CopyPartResult", {})), size

    async def complete(self) -> ObjectInfo:
        """See `ports.Upload`."""
        parts = [{"PartNumber": number, "ETag": self._etags[number]} for number in sorted(self._etags)]
        reply = await self._store.call(
            "complete_multipart_upload",
            self._key,
            deadline=2 * DEADLINE,
            UploadId=self._id,
            MultipartUpload={"Parts": parts},
            IfNoneMatch="*",
        )
        self.open = False
        now = await self._store.now()
        return ObjectInfo(self._key, sum(self._sizes.values()), etag_of(reply), now, self._metadata)


async def unless_hurried(request: Callable[[], Awaitable[T]]) -> T:
    """Finish a request even when cancelled, if it does not take long: cut off, it may leave what nobody knows of."""
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
    """When cancelled, let the scope end soon."""
    try:
        await anyio.sleep_forever()
    finally:
        scope.deadline = anyio.current_time() + ABORT_DEADLINE


def etag_of(reply: Any) -> str:
    """What tells a write's reply from any other 200: a proxy's page for example."""
    if "ETag" not in reply:
        raise OutcomeUnknown("the store answers a write with something that has no ETag", "is it an S3 endpoint?")
    return str(reply["ETag"])
