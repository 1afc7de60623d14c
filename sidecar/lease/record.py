"""The content of the lease object, `lease.json`, as a value, and its two encodings. Pure.

The record is also in the object's metadata. SeaweedFS 4.48 keeps an empty object, with its metadata, if the client of a
conditional PUT is killed after it sent the headers and before it sent the body: the metadata still has the record.
"""

import binascii
import json
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import datetime, timedelta
from typing import Any

from sidecar.model import AtRestorePoint, Origin, Position

KEY = "lease.json"
METADATA_COPY = "sidecar-lease"
LARGEST_COPY = 1900  # S3 allows 2 KiB of metadata, names included, and the retrying store adds 31 bytes
LARGEST_COMPRESSED = 1 << 15  # no longer list of keys becomes that small
FORMAT = 1
FORMAT_WITH_STREAMS = 2  # an older version, which ignores streams, must refuse it
FORMAT_MOVED = 3  # only says where the lease is kept: see `moved_to`
RESOLUTION = timedelta(seconds=1)  # of the Date and Last-Modified headers
LONGEST = 1e8  # seconds, three years


@dataclass(frozen=True, slots=True)
class StreamRecord:
    """What a holder records about one database's streams.

    `after` is what its boot continued from: no later commit of that stream is on the main line, whoever wrote it. `stream`
    is the stream that it writes now; `commit` and `time` (microseconds, the store's clock) describe the last commit that is
    known to be in the store.
    """

    stream: str | None
    after: Origin | None
    commit: int = 0
    time: int = 0

    def to_values(self) -> dict[str, object]:
        """For JSON."""
        after = asdict(self.after) if self.after else None
        return {"stream": self.stream, "after": after, "commit": self.commit, "time": self.time}


@dataclass(frozen=True, slots=True)
class Record:
    """The content of the lease object.

    - `boot` identifies the process, so that a predecessor on the same machine can be told apart. `ttl` is in seconds.
    - `latest` has the newest key of each database, and `settled` the epoch of the last holder that started from there:
      whatever a holder of an earlier epoch publishes after that is not on the main line.
    - `handoff` is the machine that requests a handoff. `aged` is how many seconds had passed without a renewal when it
      wrote that, because its write must not make the lease look fresh. `retired` are machines that handed over, which
      never request the lease back.
    - `streams` has, by database, what this holder started from and what it streams. If it is not empty, the format is 2.
    - `running`: an app was started in this term. `unfinished` is the last machine that ran an app and did not release its
      lease, until another machine has started its app and reported that.
    - `store` is the URL of the store whose restore points this lease is about, if that is another one than the lease's.
      `pair` is a random word that both stores have from the first term on: servers may have buckets of the same name, and
      one server several names.
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
    streams: Mapping[str, StreamRecord] = field(default_factory=dict)
    store: str = ""
    pair: str = ""

    def to_bytes(self) -> bytes:
        """The record as JSON, with a line for each database."""
        values: dict[str, object] = {"format": FORMAT_WITH_STREAMS if self.streams else FORMAT}
        values |= {each.name: getattr(self, each.name) for each in fields(self)}
        values["streams"] = {name: each.to_values() for name, each in self.streams.items()}
        for name in ("streams", "store", "pair"):
            if not values[name]:
                del values[name]
        return _in_lines(values, _database_lines).encode()

    @property
    def ends(self) -> dict[str, int]:
        """The recorded ends of streams: by name, the last commit that is on the main line."""
        begun = (each.after for each in self.streams.values())
        return {after.stream: after.commit for after in begun if isinstance(after, Position)}

    def to_metadata(self) -> dict[str, str]:
        """The record as object metadata; empty if it is too large for a header."""
        return as_metadata(self.to_bytes())

    def is_of(self, other: "Record") -> bool:
        """Whether both were written in the same term of the same process."""
        return (self.epoch, self.boot) == (other.epoch, other.boot)


@dataclass(frozen=True, slots=True)
class StoredLease:
    """A record as it was read, with the object's version and its age.

    The age is `Date` minus `Last-Modified`, both by the store's clock: no machine's own clock is involved.
    """

    record: Record
    etag: str
    age: timedelta

    def has_expired(self, ttl: timedelta) -> bool:
        """Whether the record is certainly older than a ttl: the store's clock has a resolution of one second."""
        return self.age > ttl + RESOLUTION

    @property
    def unrenewed(self) -> float:
        """Seconds since the holder's last renewal: a request for a handoff does not make the lease look fresh."""
        return self.record.aged + self.age.total_seconds()


@dataclass(frozen=True, slots=True)
class WrittenLease:
    """A record that we wrote, with the object's version. `since` is a time before the write, by the store's clock."""

    record: Record
    etag: str
    since: datetime


class FutureFormat(ValueError):
    """The record has a format that only a newer version writes."""


class Moved(ValueError):
    """The object only says where the lease is kept: `args` are the URL of that store and the `pair` of the lease there."""


def moved_to(lease_store: str, pair: str) -> tuple[bytes, dict[str, str]]:
    """What the lease object of a store contains whose lease is kept in another one, and its metadata.

    A version that does not know `lease_store` refuses this format, so it cannot take a lease that nobody else looks at.
    """
    data = json.dumps({"format": FORMAT_MOVED, "lease_store": lease_store, "pair": pair}, indent=1).encode()
    return data, as_metadata(data)


def as_metadata(data: bytes) -> dict[str, str]:
    """The content of a lease object as its metadata; empty if it is too large for a header."""
    if len(data) > LARGEST_COMPRESSED:
        return {}
    text = urlsafe_b64encode(zlib.compress(data, 9)).decode()
    return {METADATA_COPY: text} if len(text) <= LARGEST_COPY else {}


def _in_lines(values: Mapping[str, object], dump: Callable[[object], str], indent: str = " ") -> str:
    """A JSON object with a line for each value. `json.dumps(indent=1)` takes ten times as long for a thousand databases."""
    lines = (f"{indent}{json.dumps(name)}: {dump(value)}" for name, value in values.items())
    return "{\n" + ",\n".join(lines) + f"\n{indent[1:]}}}"


def _database_lines(value: object) -> str:
    return _in_lines(value, json.dumps, "  ") if isinstance(value, Mapping) and value else json.dumps(value)


def parse(data: bytes | bytearray) -> Record:
    """Parse the content of a lease object. Raises ValueError if it is not one, `Moved`, and `FutureFormat` for a newer format."""
    try:
        values = json.loads(data)
        if type(version := values["format"]) is int and version > FORMAT_WITH_STREAMS:
            if version == FORMAT_MOVED and isinstance(named := values.get("lease_store"), str):
                raise Moved(named, str(values.get("pair")))
            raise FutureFormat(f"its format is {version}")
        known = {each.name: values[each.name] for each in fields(Record) if each.name in values}
        # An older version did not write `running`: if it did not release its lease, it may have been killed.
        known.setdefault("running", not known.get("released", False))
        streams = {name: _stream_in(each) for name, each in known.get("streams", {}).items()}
        record = Record(**{**known, "retired": tuple(known.get("retired", ())), "streams": streams})
        _require_sound(values["format"], record)
    except (TypeError, KeyError, AttributeError, RecursionError) as error:
        raise ValueError(repr(error)) from error
    return record


def _stream_in(values: Mapping[str, Any]) -> StreamRecord:
    stream, commit, time = values["stream"], values["commit"], values["time"]
    if not isinstance(stream, str | None) or not all(type(number) is int for number in (commit, time)):
        raise TypeError("a stream's field has the wrong type")
    return StreamRecord(stream, origin_in(values["after"]), commit, time)


def origin_in(values: Mapping[str, Any] | None) -> Origin | None:
    """An origin from its JSON form, which `dataclasses.asdict` creates. Raises KeyError or TypeError."""
    if values is None:
        return None
    if "key" in values:
        return AtRestorePoint(str(values["key"]))
    if type(values["commit"]) is not int:
        raise TypeError("a commit's number is not a number")
    return Position(str(values["stream"]), values["commit"])


def copy_in(metadata: Mapping[str, str]) -> bytes:
    """The copy of a lease object's content in its metadata; empty if there is none."""
    try:
        return zlib.decompress(urlsafe_b64decode(metadata.get(METADATA_COPY, "")))
    except (binascii.Error, ValueError, zlib.error):
        return b""


def _require_sound(version: object, record: Record) -> None:
    if version not in {FORMAT, FORMAT_WITH_STREAMS}:
        raise ValueError(f"its format is {version!r}")
    texts = [
        record.holder,
        record.boot,
        *record.retired,
        record.handoff or "",
        "" if record.unfinished is None else record.unfinished,
        record.store,
        record.pair,
        *record.settled,
    ]
    texts += [*record.latest, *record.latest.values()]
    epochs = [record.epoch, *record.settled.values()]
    seconds = [record.ttl, record.aged]
    if not all(isinstance(text, str) for text in texts) or not all(
        isinstance(flag, bool) for flag in (record.released, record.running)
    ):
        raise TypeError("a field has the wrong type")
    if not all(isinstance(number, int | float) and 0 <= number < LONGEST for number in seconds) or not record.ttl:
        raise ValueError("a time is out of range")
    if not all(isinstance(number, int) and 0 <= number < 1 << 62 for number in epochs) or not record.epoch:
        raise ValueError(f"an epoch is out of range: {epochs}")
