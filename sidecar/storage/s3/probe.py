"""What `sidecar check` tries at an S3 store and the daemon never does."""

from sidecar.storage.s3.client import S3Client


class S3Probe:
    """Implements `base.Probe`."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    async def delete(self, key: str) -> None:
        """See `base.Probe`."""
        await self._client.call("delete_object", key)
