"""Where the lease is kept, if that is not the store with the restore points, and which places are refused."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

from sidecar.errors import ConfigurationError
from sidecar.storage import ObjectStore, StoreAccess, StoreLocation, parse_location

_ELSEWHERE = "name a bucket of a store that has them, such as AWS S3, Cloudflare R2 or Tigris, or a directory that all machines share"


@dataclass(frozen=True, slots=True)
class Place:
    """A store as it was opened. `endpoint` is the server's URL; it is empty for a store on this machine."""

    location: StoreLocation
    endpoint: str
    store: ObjectStore

    def overlaps(self, other: "Place") -> bool:
        """Whether both are in the same bucket of the same server, or one directory is inside the other."""
        mine, theirs = f"{self.location.container}/", f"{other.location.container}/"
        return self.endpoint == other.endpoint and (mine.startswith(theirs) or theirs.startswith(mine))


@dataclass(frozen=True, slots=True)
class LeaseSite:
    """The store for the lease and the notices. `of` is the URL of the store with the restore points."""

    store: ObjectStore
    of: str


@asynccontextmanager
async def open_site(
    url: str | None, access: StoreAccess, data: Place, decorate: Callable[[ObjectStore], ObjectStore]
) -> AsyncIterator[LeaseSite | None]:
    """Open the store for the lease without a request; None without a URL. Raises `ConfigurationError`, see `require_separate`."""
    if url is None:
        yield None
        return
    location = parse_location(url, "lease_store")
    async with location.open(access) as found:
        place = Place(location, found.endpoint, found.store)
        require_separate(place, data)
        yield LeaseSite(decorate(found.store), data.store.url)


def require_separate(lease: Place, data: Place) -> None:
    """Raise `ConfigurationError` unless this place adds something to that of the restore points. Sends no request."""
    if (lease.endpoint, lease.store.url) == (data.endpoint, data.store.url):
        raise ConfigurationError(
            f"lease_store is the store itself, {lease.store.url}",
            "leave lease_store out, or name another one: the lease is kept in the store unless lease_store is set",
        )
    if lease.overlaps(data):
        what = "directory" if data.location.directory else "bucket"
        raise ConfigurationError(
            f"lease_store={lease.store.url} is in the same {what} as the store, {data.store.url}: one cannot do more than the other",
            f"leave lease_store out if the {what} has conditional writes; if it does not, {_ELSEWHERE}",
        )
    if not lease.store.traits.conditional_put:
        raise ConfigurationError(
            f"lease_store={lease.store.url} is in {lease.store.traits.store}, which has no conditional writes: two machines could "
            "both take the lease",
            _ELSEWHERE,
        )
