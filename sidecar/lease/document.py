"""Reading and writing the lease object. It is only ever written with a condition, and never deleted."""

from datetime import timedelta

from sidecar.errors import DamagedLease, NotFound, UnsupportedLease
from sidecar.lease.record import KEY, FutureFormat, Record, StoredLease, WrittenLease, copy_in, parse
from sidecar.log import log
from sidecar.model import Blob, IfAbsent, IfMatch
from sidecar.storage import ObjectStore, removal_command


async def read_lease(store: ObjectStore) -> StoredLease | None:
    """The lease object, or None if there is none. Raises `DamagedLease` and `UnsupportedLease`."""
    try:
        blob = await store.get(KEY)
    except NotFound:
        return None
    now = await store.now()
    record = _record_in(blob, store.url)
    return StoredLease(record, blob.info.etag, max(timedelta(0), now - blob.info.last_modified))


def _record_in(blob: Blob, url: str) -> Record:
    """The content of the object, or else its copy in the metadata, which survives an interrupted write and most proxies."""
    data = bytes(blob.data)
    try:
        return parse_lease(data, url)
    except UnsupportedLease:
        raise
    except DamagedLease:
        try:
            record = parse(copy_in(blob.info.metadata))
        except ValueError:
            record = None
        if record is None:
            raise
    cause = "its content differs from what was written: a proxy may change the store's replies"
    log.warning(
        "lease record read from metadata",
        key=KEY,
        cause=cause if data else "the object is empty: its last write was interrupted",
    )
    return record


def parse_lease(data: bytes | bytearray, url: str) -> Record:
    """Parse the content of the lease object of this store.

    Raises `DamagedLease`, because guessing would reset the epoch, and `UnsupportedLease` for that of a newer version.
    """
    try:
        return parse(data)
    except FutureFormat as error:
        raise UnsupportedLease(
            f"{url}/{KEY} was written by a newer version of sidecar: {error}",
            "use that version or a later one: this version would miss what it has published",
        ) from error
    except ValueError as error:
        raise DamagedLease(
            f"{url}/{KEY} is {f'not a lease of this version of sidecar: {error}' if data else 'empty'}",
            f"unless a newer version wrote it: stop every machine that uses this store, then `{removal_command(url, KEY)}`; "
            "the next start continues from the epoch of the newest restore points",
        ) from error


async def write_lease(store: ObjectStore, record: Record, condition: IfAbsent | IfMatch) -> WrittenLease:
    """Write the lease object. Raises what `ObjectStore.put` raises."""
    before = await store.now()
    info = await store.put(KEY, record.to_bytes(), condition=condition, metadata=record.to_metadata())
    return WrittenLease(record, info.etag, before)
