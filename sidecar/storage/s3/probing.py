"""Tries what an unknown store can do: a dozen small requests about one fixed key below `.sidecar/probe/`.

Nothing is deleted, because a daemon has no right to. Every write has the same bytes, so another machine that probes at the
same time does no harm. What a missing right leaves undecided is assumed as before.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any, TypeVar

import anyio

from sidecar.errors import (
    AccessDenied,
    ConfigurationError,
    NotFound,
    PreconditionFailed,
    SidecarError,
    StoreMissing,
    StoreUnavailable,
)
from sidecar.model import Bytes
from sidecar.storage.s3 import deadlines
from sidecar.storage.s3.client import S3Client
from sidecar.storage.s3.errors import is_invalid, is_unsupported
from sidecar.storage.s3.upload import COPY_HINT, etag_of, unless_hurried
from sidecar.storage.traits import MIB, PartCopy, Traits

T = TypeVar("T")

FOLDER = ".sidecar/probe/"
KEY = f"{FOLDER}object"
LARGE = f"{FOLDER}upload"
CONTENT = b"written by sidecar to learn what this store can do\n"
TAGS = {"sidecar-probe": "1"}
FEWEST_PARTS = 100  # of one upload, in any store
WRONG = '"00000000000000000000000000000000"'


async def probe(client: S3Client, assumed: Traits) -> Traits:
    """What the store behind this client can do. Raises the `Transient` family, and `AccessDenied` if nothing can be written.

    What seems to be missing is tried twice: an answer about an object that somebody deletes meanwhile proves nothing.
    """
    found = await _tried(client, assumed)
    if found != replace(assumed, certain=True) and found != await _tried(client, assumed):
        raise StoreUnavailable("the store has answered the same requests in two ways", "it is tried again later")
    return found


async def _tried(client: S3Client, assumed: Traits) -> Traits:
    conditional_put = await _obeys_conditions(client)  # first, because the object that it writes is needed below
    found = replace(
        assumed,
        conditional_put=conditional_put,
        conditional_complete=await _unless_denied(_completes_conditionally, client, assumed.conditional_complete),
        part_copy=await _unless_denied(_copies, client, assumed.part_copy),
        tags=await _unless_denied(_has_tags, client, assumed.tags),
        ordered=await _lists_at_once(client),
        certain=True,
    )
    await _require_kept(client)
    return found


async def _require_kept(client: S3Client) -> None:
    """Raise `StoreUnavailable` if the object is gone: somebody empties the store, and what was answered meanwhile proves nothing."""
    try:
        await _etag(client)
    except (NotFound, StoreMissing):
        raise StoreUnavailable(f"{KEY} disappeared while it was used", "it is written again later") from None


async def _unless_denied(attempt: Callable[[S3Client], Awaitable[T]], client: S3Client, assumed: T) -> T:
    try:
        return await attempt(client)
    except AccessDenied:
        return assumed


async def _put(client: S3Client, **condition: Any) -> None:
    deadline = deadlines.of_transfer(len(CONTENT))
    etag_of(await client.write("put_object", KEY, CONTENT, deadline=deadline, **condition))


async def _etag(client: S3Client) -> str:
    return etag_of(await client.call("head_object", KEY))


async def _obeys_conditions(client: S3Client) -> bool:
    """Whether conditions are obeyed when they hold and when they do not. The object exists afterwards in any case."""
    try:
        with suppress(PreconditionFailed):  # an earlier trial left it
            await _put(client, IfNoneMatch="*")
    except ConfigurationError as refusal:
        if not is_unsupported(refusal):
            raise
        await _put(client)
        return False
    if not await _is_refused(partial(_put, client, IfNoneMatch="*")):
        return False
    if not await _is_refused(partial(_put, client, IfMatch=WRONG)):
        return False
    for _ in range(2):  # another machine may have written between the two requests
        if await _works(partial(_put, client, IfMatch=await _etag(client))):
            return True
    return False


async def _is_refused(request: Callable[[], Awaitable[object]]) -> bool:
    """Whether a condition that does not hold is obeyed."""
    try:
        await request()
    except (PreconditionFailed, NotFound):
        return True
    except ConfigurationError:
        return False
    return False


async def _works(request: Callable[[], Awaitable[object]]) -> bool:
    try:
        await request()
    except (PreconditionFailed, NotFound, ConfigurationError):
        return False
    return True


async def takes_only_equal_parts(client: S3Client) -> bool:
    """Whether an upload is refused because its parts differ in size. Afterwards its key has a small object."""
    sizes = (5 * MIB + 1, 5 * MIB, 1)
    async with _upload(client, LARGE) as upload:
        parts = []
        for number, size in enumerate(sizes, 1):
            etag = await _put_part(client, LARGE, upload, number, bytes(size))
            parts.append({"PartNumber": number, "ETag": etag})
        try:
            await client.call("complete_multipart_upload", LARGE, UploadId=upload, MultipartUpload={"Parts": parts})
        except ConfigurationError as refusal:
            if not is_invalid(refusal):
                raise
            return True
    await client.write("put_object", LARGE, CONTENT, deadline=deadlines.of_transfer(len(CONTENT)))
    return False


async def most_parts(client: S3Client) -> int:
    """The highest part number that is taken, of those that are usual."""
    async with _upload(client, LARGE) as upload:
        for number in (10_000, 1_000):
            with suppress(ConfigurationError):
                await _put_part(client, LARGE, upload, number, CONTENT)
                return number
    return FEWEST_PARTS


async def _put_part(client: S3Client, key: str, upload: str, number: int, data: Bytes) -> str:
    deadline = deadlines.of_transfer(len(data))
    part = {"UploadId": upload, "PartNumber": number}
    return etag_of(await client.write("upload_part", key, data, deadline=deadline, declared=False, **part))


@asynccontextmanager
async def _upload(client: S3Client, key: str = KEY) -> AsyncIterator[str]:
    """An upload, aborted at the end. One that is begun when the daemon stops is waited for: nobody else would know its id."""
    begun: list[str] = []

    async def begin() -> None:
        begun.append((await client.call("create_multipart_upload", key))["UploadId"])

    try:
        await unless_hurried(begin)
        yield begun[0]
    finally:
        with anyio.move_on_after(deadlines.ABORT_DEADLINE, shield=True), suppress(SidecarError):
            for upload in begun:
                await client.call("abort_multipart_upload", key, UploadId=upload)


async def _copies(client: S3Client) -> PartCopy:
    async with _upload(client) as upload:
        if await _is_refused(partial(_copy, client, upload, CopySourceIfMatch=WRONG)):
            return PartCopy.CONDITIONAL if await _works(partial(_copy, client, upload)) else PartCopy.NO
        return PartCopy.UNCONDITIONAL if await _works(partial(_copy, client, upload)) else PartCopy.NO


async def _copy(client: S3Client, upload: str, **condition: str) -> None:
    """Copy the whole object as a part. Raises `ConfigurationError` if the reply is not that to a copy."""
    source = {"Bucket": client.location.bucket, "Key": client.location.key(KEY)}
    reply = await client.copy(KEY, UploadId=upload, PartNumber=1, CopySource=source, **condition)
    if "ETag" not in (reply.get("CopyPartResult") or {}):
        raise ConfigurationError("the store copied nothing", COPY_HINT)


async def _completes_conditionally(client: S3Client) -> bool:
    """Whether an upload onto a key that exists is refused. If it is not, the object has the same bytes as before."""
    async with _upload(client) as upload:
        etag = await _put_part(client, KEY, upload, 1, CONTENT)
        parts = {"Parts": [{"PartNumber": 1, "ETag": etag}]}
        complete = partial(client.call, "complete_multipart_upload", KEY, UploadId=upload, MultipartUpload=parts)
        return await _is_refused(partial(complete, IfNoneMatch="*"))


async def _has_tags(client: S3Client) -> bool:
    """Whether an object has the tags that it was given. Without the right to read them, the reply to the write decides."""
    pairs = [{"Key": name, "Value": value} for name, value in TAGS.items()]
    try:
        await client.call("put_object_tagging", KEY, Tagging={"TagSet": pairs})
        with suppress(AccessDenied):
            reply = await client.call("get_object_tagging", KEY)
            return {pair["Key"]: pair["Value"] for pair in reply["TagSet"]} == TAGS
    except (ConfigurationError, NotFound):
        return False
    return True


async def _lists_at_once(client: S3Client) -> bool:
    prefix = client.location.key(FOLDER)
    reply = await client.call("list_objects_v2", "", Prefix=prefix)
    keys = [entry["Key"].encode() for entry in reply.get("Contents", [])]
    return client.location.key(KEY).encode() in keys and keys == sorted(keys)
