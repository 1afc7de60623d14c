"""The lease object of a store whose lease is kept in another one (`lease_store`): what it says, and that it has moved.

A machine without `lease_store`, or with another one, would find a free lease where nobody else looks. So the first holder
replaces the lease object beside the restore points by one that names the lease's store. Until it could, a lease that is
held there counts as well.
"""

from sidecar.errors import LeaseHeld, LeaseMoved, NotFound, PreconditionFailed, StoreMissing, StoreUnsuitable
from sidecar.lease.document import read_lease
from sidecar.lease.record import KEY, StoredLease, moved_to
from sidecar.model import IfAbsent, IfMatch
from sidecar.storage import ObjectStore, removal_command


class FormerLease:
    """The lease object beside the restore points. `lease_store` names the store in which the lease is kept."""

    def __init__(self, store: ObjectStore, lease_store: str) -> None:
        self._store = store
        self._lease_store = lease_store
        self._has_moved = False
        self._seen: StoredLease | None = None

    async def read(self) -> StoredLease | None:
        """The lease as long as it is kept here, None once it has moved, or if there is none.

        Raises `StoreUnsuitable` if it has moved to another store than ours, and what `read_lease` raises.
        """
        try:
            self._seen = await read_lease(self._store)
        except LeaseMoved as moved:
            if moved.lease_store != self._lease_store:
                raise StoreUnsuitable(
                    f"{moved.message}, not in {self._lease_store}: two machines could write at once",
                    f"set lease_store to that store; if the lease is to move: stop every machine, then `{self._removal}`",
                ) from moved
            self._has_moved, self._seen = True, None
        return self._seen

    def require_absent(self) -> None:
        """Raise `StoreMissing` if the lease has moved to where it was not found: a file system may not be mounted."""
        if self._has_moved:
            raise StoreMissing(
                f"{self._lease_store} has no lease, although that of {self._store.url} is kept there",
                "check that it is the right store, and mounted; if the lease was deleted: stop every machine, then "
                f"`{self._removal}`: the next start continues from the epoch of the newest restore points",
            )

    async def redirect(self) -> None:
        """Say that the lease has moved. Raises `LeaseHeld` if another machine has taken it here since `read`."""
        if self._has_moved:
            return
        data, metadata = moved_to(self._lease_store)
        condition = IfMatch(self._seen.etag) if self._seen else IfAbsent()
        try:
            await self._store.put(KEY, data, condition=condition, metadata=metadata)
        except (PreconditionFailed, NotFound) as refusal:
            raise LeaseHeld(
                f"another machine has just taken the lease in {self._store.url}, without our lease_store",
                "give every machine of this app the same lease_store, and start this one again",
            ) from refusal
        self._has_moved = True

    @property
    def _removal(self) -> str:
        return removal_command(self._store.url, KEY)
