"""What `sidecar check` tries at an S3 store and the daemon has no method for."""

from sidecar.storage.s3.store import S3Store


class S3Probe:
    """Implements `ports.Probe`."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    async def delete(self, key: str) -> None:
        """See `ports.Probe`."""
        await self._store.call("delete_object", key)
