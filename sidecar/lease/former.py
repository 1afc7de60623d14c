"""The lease object of a store whose lease is kept in another one (`lease_store`): what it says, and that it has moved.

A machine without `lease_store`, or with another one, would find a free lease where nobody else looks. So the first holder
replaces the lease object beside the restore points by one that names the lease's store. Until it could, a lease that is
held there counts as well.
"""

import secrets

from sidecar.errors import (
    ConfigurationError,
    LeaseHeld,
    LeaseMoved,
    NotFound,
    PreconditionFailed,
    StoreMissing,
    StoreUnsuitable,
)
from sidecar.lease.document import read_lease
from sidecar.lease.record import KEY, StoredLease, moved_to
from sidecar.model import IfAbsent, IfMatch
from sidecar.storage import ObjectStore, removal_command


class FormerLease:
    """The lease object beside the restore points. `lease_store` is the URL of the store in which the lease is kept."""

    def __init__(self, store: ObjectStore, lease_store: str) -> None:
        self._store = store
        self._lease_store = lease_store
        self._pair = ""
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
            self._pair, self._seen = moved.pair, None
        return self._seen

    def require_pair(self, stored: StoredLease | None) -> None:
        """Check what was found in the lease's store against what was read here.

        Raises `StoreMissing` if the lease is not where it has moved to: a file system may not be mounted. Raises
        `ConfigurationError` if it is that of another store with the same URL.
        """
        if stored and stored.record.pair not in {"", self._pair}:
            raise ConfigurationError(
                f"{self._lease_store} has the lease of another store that is also called {self._store.url}",
                "give each app a lease_store of its own, such as another prefix; if the restore points were moved: stop every "
                f"machine, then `{removal_command(self._lease_store, KEY)}`",
            )
        if stored is None and self._pair:
            raise StoreMissing(
                f"{self._lease_store} has no lease, although that of {self._store.url} is kept there",
                "check that it is the right store, and mounted; if the lease was deleted: stop every machine, then "
                f"`{self._removal}`: the next start continues from the epoch of the newest restore points",
            )

    async def redirect(self) -> str:
        """Say here that the lease has moved, unless that is known. Returns the `pair`.

        Raises `LeaseHeld` if another machine has taken the lease here since `read`.
        """
        if self._pair:
            return self._pair
        pair = secrets.token_hex(8)
        data, metadata = moved_to(self._lease_store, pair)
        condition = IfMatch(self._seen.etag) if self._seen else IfAbsent()
        try:
            await self._store.put(KEY, data, condition=condition, metadata=metadata)
        except (PreconditionFailed, NotFound) as refusal:
            raise LeaseHeld(
                f"another machine has just taken the lease in {self._store.url}, without our lease_store",
                "give every machine of this app the same lease_store, and start this one again",
            ) from refusal
        self._pair = pair
        return pair

    @property
    def _removal(self) -> str:
        return removal_command(self._store.url, KEY)
