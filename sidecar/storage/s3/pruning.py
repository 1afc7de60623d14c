"""Deletes objects of an S3 store, only if they are still what they were when that was decided."""

from collections.abc import Sequence

from sidecar.concurrency import gathered
from sidecar.errors import ConfigurationError, NotFound, PreconditionFailed
from sidecar.storage.base import Expired
from sidecar.storage.s3.store import S3Store

AT_ONCE = 8


class S3Pruning:
    """Implements `base.Prunable`. Nothing but pruning has one.

    `If-Match` on a DELETE makes comparing and deleting one request
    (https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-deletes.html). A store that refuses the condition gets
    a HEAD first; one that ignores it deletes a key that nobody writes twice.
    """

    def __init__(self, store: S3Store) -> None:
        self._store = store
        self._client = store.client
        self._conditional = True

    async def prune(self, expired: Sequence[Expired]) -> tuple[str, ...]:
        """See `base.Prunable`."""
        deleted = await gathered(expired, self._delete, at_once=AT_ONCE)
        return tuple(each.key for each, done in zip(expired, deleted, strict=True) if done)

    async def _delete(self, expired: Expired) -> bool:
        try:
            if expired.tags is not None and await self._store.tags(expired.key) != expired.tags:
                return False
            return await self._delete_version(expired)
        except (NotFound, PreconditionFailed):
            return False

    async def _delete_version(self, expired: Expired) -> bool:
        if self._conditional:
            try:
                await self._client.call("delete_object", expired.key, IfMatch=expired.etag)
            except ConfigurationError:
                self._conditional = False
            else:
                return True
        if (await self._store.head(expired.key)).etag != expired.etag:
            return False
        await self._client.call("delete_object", expired.key)
        return True
