"""Copies whole objects inside the store: one request up to the largest part, above that the parts of a multipart upload.

CopyObject ends at 5 GiB: https://docs.aws.amazon.com/AmazonS3/latest/API/API_CopyObject.html
"""

from typing import Any

from sidecar.errors import NotFound, OutcomeUnknown, PreconditionFailed, StoreMissing
from sidecar.model import ObjectInfo, Span
from sidecar.storage.s3 import deadlines
from sidecar.storage.s3.client import S3Client
from sidecar.storage.s3.learning import Learning
from sidecar.storage.s3.upload import S3Upload, etag_of
from sidecar.storage.traits import PartCopy


async def copy_object(
    client: S3Client, learning: Learning, source: ObjectInfo, key: str, metadata: dict[str, str]
) -> ObjectInfo:
    """Copy `source` over `key`. See `base.ObjectStore.copy`.

    Where it is not certain that the store compares the source's ETag itself, the source is looked up before and after.
    """
    traits = learning.traits
    compares = traits.part_copy is PartCopy.CONDITIONAL
    looks = not compares or not traits.certain
    if looks:
        await _require_unchanged(client, source)
    if source.size > traits.maximum_part:
        copied = await _in_parts(client, learning, source, key, metadata)
    else:
        copied = await _at_once(client, source, key, metadata, compares=compares)
    if looks:
        await _require_unchanged(client, source)
    return copied


async def _at_once(
    client: S3Client, source: ObjectInfo, key: str, metadata: dict[str, str], *, compares: bool
) -> ObjectInfo:
    location = client.location
    condition: dict[str, Any] = {"CopySourceIfMatch": source.etag} if compares else {}
    reply = await client.copy(
        key,
        operation="copy_object",
        deadline=deadlines.of_copy(source.size),
        CopySource={"Bucket": location.bucket, "Key": location.key(source.key)},
        Metadata=metadata,
        MetadataDirective="REPLACE",
        **condition,
    )
    result = reply.get("CopyObjectResult")
    if not result:  # a copy may fail after the status 200 was sent: then the body is not a result
        raise OutcomeUnknown(f"the store did not say whether it copied {source.key} to {key}")
    etag = etag_of(result).strip('"')  # SeaweedFS 4.48 sends it without quotes
    return ObjectInfo(key, source.size, f'"{etag}"', await client.now(), metadata)


async def _in_parts(
    client: S3Client, learning: Learning, source: ObjectInfo, key: str, metadata: dict[str, str]
) -> ObjectInfo:
    upload, largest = S3Upload(client, learning, key, metadata, over=True), learning.traits.maximum_part
    async with upload.begun():
        for number, start in enumerate(range(0, source.size, largest), 1):
            await upload.copy_part(number, start, source, Span(start, min(start + largest, source.size)))
        return await upload.complete()


async def _require_unchanged(client: S3Client, source: ObjectInfo) -> None:
    try:
        found = etag_of(await client.call("head_object", source.key))
    except StoreMissing:  # of the key: a HEAD has no body that says so, and the source was seen in this bucket
        raise NotFound(f"{source.key} does not exist") from None
    if found != source.etag:
        raise PreconditionFailed(f"{source.key} has changed")
