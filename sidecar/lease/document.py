"""Reading and writing the lease object. It is only ever written with a condition, and never deleted."""

from datetime import timedelta
from functools import lru_cache

from sidecar.errors import ConfigurationError, DamagedLease, LeaseMoved, NotFound, UnsupportedLease
from sidecar.lease.record import (
    KEY,
    FutureFormat,
    Moved,
    Record,
    StoredLease,
    WrittenLease,
    as_metadata,
    copy_in,
    parse,
)
from sidecar.log import log
from sidecar.model import Blob, IfAbsent, IfMatch
from sidecar.storage import ObjectStore, removal_command

_parsed = lru_cache(maxsize=2)(parse)  # each database reads it, and with a thousand of them it is long


async def read_lease(store: ObjectStore, of: str = "") -> StoredLease | None:
    """The lease object, or None if there is none.

    `of` is the URL of the store whose restore points the lease is about; it is empty if that is `store` itself. Raises
    `DamagedLease`, `UnsupportedLease`, and `ConfigurationError` if it is the lease of another store.
    """
    try:
        blob = await store.get(KEY)
    except NotFound:
        return None
    now = await store.now()
    record = _record_in(blob, store.url)
    _require_lease_of(record, of, store.url)
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
            record = parse_lease(copy_in(blob.info.metadata), url)
        except UnsupportedLease:
            raise
        except DamagedLease:
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
        return _parsed(bytes(data))
    except Moved as moved:
        lease_store, pair = moved.args
        raise LeaseMoved(
            f"the lease of {url} is kept in {lease_store}",
            "set lease_store to that store; to keep the lease in the store itself again, stop every machine that uses it, "
            f"then `{removal_command(url, KEY)}`",
            lease_store,
            pair,
        ) from moved
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


def _require_lease_of(record: Record, of: str, url: str) -> None:
    """Refuse the lease of another app: two apps with one lease would fence each other, and miss each other's latest keys."""
    if record.store == of:
        return
    raise ConfigurationError(
        f"{url}/{KEY} is the lease of {record.store or 'the restore points beside it'}, "
        f"not of {of or 'the restore points beside it'}",
        "give each app a lease_store of its own, such as another prefix; if the restore points were moved: stop every machine, "
        f"then `{removal_command(url, KEY)}`",
    )


async def write_lease(store: ObjectStore, record: Record, condition: IfAbsent | IfMatch) -> WrittenLease:
    """Write the lease object. Raises what `ObjectStore.put` raises."""
    before = await store.now()
    data = record.to_bytes()
    info = await store.put(KEY, data, condition=condition, metadata=as_metadata(data))
    return WrittenLease(record, info.etag, before)
