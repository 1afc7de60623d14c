"""What `sidecar check` tries at an S3 store and the daemon has no method for."""

from collections.abc import Mapping

from sidecar.adapters.s3 import S3Store


class S3Probe:
    """Implements `ports.Probe`."""

    def __init__(self, store: S3Store) -> None:
        self._store = store

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """See `ports.Probe`."""
        pairs = [{"Key": name, "Value": value} for name, value in tags.items()]
        await self._store.call("put_object_tagging", key, Tagging={"TagSet": pairs})

    async def delete(self, key: str) -> None:
        """See `ports.Probe`."""
        await self._store.call("delete_object", key)
