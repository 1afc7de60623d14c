"""An operation on an S3 store that `sidecar check` tries and the daemon never uses."""

from sidecar.storage.s3.client import S3Client


class S3Probe:
    """Implements `base.Probe`."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    async def delete(self, key: str) -> None:
        """See `base.Probe`."""
        await self._client.call("delete_object", key)
