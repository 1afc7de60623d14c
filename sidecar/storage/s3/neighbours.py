"""Prefixes in the same bucket that may be the intended store."""

from sidecar.storage.s3.client import S3Client
from sidecar.storage.similarity import similar_names


class PrefixNeighbours:
    """Implements `base.Neighbours` with two or more LISTs of the bucket, which are denied to credentials for one prefix."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    async def similar(self, folder: str) -> tuple[str, ...]:
        """See `base.Neighbours`. A store that is a whole bucket has none."""
        bucket, prefix = self._client.location.bucket, self._client.location.prefix
        if not prefix:
            return ()
        parent, _, name = f"/{prefix}".rpartition("/")
        parent = f"{parent}/".removeprefix("/")
        reply = await self._client.call("list_objects_v2", "", Prefix=parent, Delimiter="/")
        names = [each["Prefix"].removeprefix(parent).rstrip("/") for each in reply.get("CommonPrefixes", [])]
        found = [each for each in similar_names(name, names) if await self._has_objects(f"{parent}{each}/{folder}")]
        return tuple(f"s3://{bucket}/{parent}{each}" for each in found)

    async def _has_objects(self, prefix: str) -> bool:
        reply = await self._client.call("list_objects_v2", "", Prefix=prefix, MaxKeys=1)
        return bool(reply.get("Contents"))
