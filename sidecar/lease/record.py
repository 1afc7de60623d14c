"""The lease object, `lease.json`: what is in it, and the pure rule of who may take it.

The record is in the object's metadata too. SeaweedFS 4.48 keeps an empty object, with its metadata, of a PUT whose sender
was killed between head and body, once it has found the condition met: what was to be written is known even so.

Its age is judged by the store's clock alone, `Date` minus `Last-Modified`; no machine's own clock decides anything.
"""

import binascii
import json
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import timedelta

import structlog

from sidecar.errors import DamagedLease, NotFound
from sidecar.model import Condition, ObjectInfo
from sidecar.storage.base import ObjectStore
from sidecar.storage.open import removal_command

log = structlog.get_logger()

KEY = "lease.json"
COPY = "sidecar-lease"  # the name of the metadata with the same record
LARGEST_COPY = 1900  # S3 allows 2 KiB of metadata, names included, and `store.Retrying` adds 31 bytes
FORMAT = 1
RESOLUTION = timedelta(seconds=1)  # of the Date and Last-Modified headers
RETIRED_KEPT = 100
LONGEST = 1e8  # seconds, three years


@dataclass(frozen=True, slots=True)
class Record:
    """The content of the lease object.

    `boot` names the process, so that a predecessor on the same machine is told from ourselves. `ttl` is in seconds.
    `latest` has the newest key of each database, and `settled` the epoch of the last holder that began from there: what
    a holder of an earlier epoch publishes after that is none of the main line. `handoff` is the machine that asks to take over, `aged` the
    seconds without a renewal when it wrote that, which must not make the lease look fresh. `retired` are machines that
    have handed over and never ask back. `running` says that an app has been started in this term, and `unfinished` is the
    last machine that ran one and did not give its lease back, until another one has started its app and said so.
    """

    epoch: int
    holder: str
    boot: str
    ttl: float
    released: bool = False
    latest: Mapping[str, str] = field(default_factory=dict)
    settled: Mapping[str, int] = field(default_factory=dict)
    handoff: str | None = None
    aged: float = 0.0
    retired: tuple[str, ...] = ()
    running: bool = False
    unfinished: str | None = None

    def to_bytes(self) -> bytes:
        """JSON, readable by people."""
        return json.dumps({"format": FORMAT, **asdict(self)}, indent=1).encode()

    def to_metadata(self) -> dict[str, str]:
        """The same in what a header may carry; nothing where it is too much for that."""
        text = urlsafe_b64encode(zlib.compress(self.to_bytes(), 9)).decode()
        return {COPY: text} if len(text) <= LARGEST_COPY else {}


@dataclass(frozen=True, slots=True)
class Seen:
    """A record as it was read: its version, and its age by the store's clock."""

    record: Record
    etag: str
    age: timedelta


def parse(data: bytes | bytearray, url: str) -> Record:
    """Read a lease object. Raises `DamagedLease`: guessing would reset the epoch."""
    try:
        values = json.loads(data)
        known = {each.name: values[each.name] for each in fields(Record) if each.name in values}
        # Of an older version that is not known: one that did not give it back may have been killed.
        known.setdefault("running", not known.get("released", False))
        record = Record(**{**known, "retired": tuple(known.get("retired", ()))})
        _require_sound(values["format"], record)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise DamagedLease(
            f"{url}/{KEY} is {'no lease of this version of sidecar: ' + repr(error) if data else 'empty'}",
            f"unless a newer version wrote it: stop every machine that uses this store, then `{removal_command(url, KEY)}`; "
            "the next start goes on from the epoch of the newest restore points",
        ) from error
    return record


async def read(store: ObjectStore) -> Seen | None:
    """The lease object, or None when there is none. Raises `DamagedLease`."""
    try:
        blob = await store.get(KEY)
    except NotFound:
        return None
    now = await store.now()
    data = bytes(blob.data)
    if not data and (data := _copied(blob.info.metadata)):
        log.warning("the lease object has no content, its last write was cut off: its metadata is taken", key=KEY)
    record = parse(data, store.url)
    return Seen(record, blob.info.etag, max(timedelta(0), now - blob.info.last_modified))


async def write(store: ObjectStore, record: Record, condition: Condition) -> ObjectInfo:
    """Write the lease object. Raises as `ObjectStore.put`."""
    return await store.put(KEY, record.to_bytes(), condition=condition, metadata=record.to_metadata())


def _copied(metadata: Mapping[str, str]) -> bytes:
    """The content of a lease object as its metadata has it, or nothing."""
    try:
        return zlib.decompress(urlsafe_b64decode(metadata.get(COPY, "")))
    except (binascii.Error, ValueError, zlib.error):
        return b""


def _require_sound(version: object, record: Record) -> None:
    if version != FORMAT:
        raise ValueError(f"its format is {version!r}")
    texts = [
        record.holder,
        record.boot,
        *record.retired,
        record.handoff or "",
        "" if record.unfinished is None else record.unfinished,
        *record.settled,
    ]
    texts += [*record.latest, *record.latest.values()]
    epochs = [record.epoch, *record.settled.values()]
    seconds = [record.ttl, record.aged]
    if not all(isinstance(text, str) for text in texts) or not all(
        isinstance(flag, bool) for flag in (record.released, record.running)
    ):
        raise TypeError("a field is of another type")
    if not all(isinstance(number, int | float) and 0 <= number < LONGEST for number in seconds) or not record.ttl:
        raise ValueError("a time is out of its range")
    if not all(isinstance(number, int) and 0 <= number < 1 << 62 for number in epochs) or not record.epoch:
        raise ValueError(f"an epoch is none: {epochs}")
