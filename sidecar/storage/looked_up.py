"""Conditional writes on a store that has none: the object is looked up before it is written.

Between the two requests another machine could write. So this is only for objects that no other machine writes: the lease
is elsewhere (`lease_store`), or the user guarantees it (`lease=off`). The lease itself never goes through here.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from sidecar.errors import ConfigurationError, NotFound, PreconditionFailed
from sidecar.model import Bytes, Condition, IfMatch, ObjectInfo
from sidecar.storage.decorator import Decorated

T = TypeVar("T")


class LookedUp(Decorated):
    """Evaluates conditions by a HEAD where the store does not obey them itself (`Traits.conditional_put`)."""

    async def around(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """See `Decorated`."""
        return await attempt()

    async def put(
        self,
        key: str,
        data: Bytes,
        *,
        condition: Condition = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """See `base.ObjectStore`."""
        if condition is None or self.traits.conditional_put:
            try:
                return await super().put(key, data, condition=condition, metadata=metadata, tags=tags)
            except ConfigurationError:
                if condition is None or self.traits.conditional_put:
                    raise
        await self._require(key, condition)
        return await super().put(key, data, metadata=metadata, tags=tags)

    async def _require(self, key: str, condition: Condition) -> None:
        try:
            etag = (await self._inner.head(key)).etag
        except NotFound:
            etag = None
        if etag != (condition.etag if isinstance(condition, IfMatch) else None):
            raise PreconditionFailed(f"{key} is not in the expected state")
