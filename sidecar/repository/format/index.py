"""The index of a restore point: its description, which is stored at the end of its file. Pure.

As bytes: one line of JSON, then the chunks' SHA-256 digests (32 bytes each), then the SHA-256 of everything before it.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass

from sidecar.database import CheckReport
from sidecar.errors import DamagedRestorePoint, UnsupportedRestorePoint
from sidecar.model import Permissions, Position, WalBy

CHUNK_SIZE = 1 << 20
FORMAT_VERSION = 1
DIGEST_SIZE = 32
_MODE = re.compile("0[0-7]{3}")


@dataclass(frozen=True, slots=True)
class Index:
    """The description of a restore point. `digests` is the concatenation of the chunks' SHA-256.

    `permissions` are those of the live database; None in a restore point of an older version.
    `check` is the report of SQLite's check when the database was published, or what was known from an earlier check
    (mode `none`); None if nothing was known. `position` is the place in a stream at which the snapshot was taken; None
    without a stream. `wal_by` is who chose WAL mode; None in other modes, and in a restore point of an older version.
    """

    database: str
    timestamp: str
    page_size: int
    database_size: int
    digests: bytes
    sqlite_version: str = ""
    sidecar_version: str = ""
    holder: str = ""
    epoch: int = 0
    parent: str | None = None
    permissions: Permissions | None = None
    check: CheckReport | None = None
    position: Position | None = None
    wal_by: WalBy | None = None

    @property
    def chunks(self) -> int:
        """The number of the database's chunks."""
        return len(self.digests) // DIGEST_SIZE

    @property
    def root(self) -> str:
        """The root digest: SHA-256 over the chunk digests, in hex."""
        return hashlib.sha256(self.digests).hexdigest()

    def digest(self, chunk: int) -> bytes:
        """The SHA-256 of one chunk."""
        return self.digests[chunk * DIGEST_SIZE : (chunk + 1) * DIGEST_SIZE]

    def chunk_size(self, chunk: int) -> int:
        """The size in bytes of one chunk: 1 MiB, less for the last."""
        return min(CHUNK_SIZE, self.database_size - chunk * CHUNK_SIZE)


def encode_index(index: Index) -> bytes:
    """The payload of the index frame."""
    head = {
        "format": FORMAT_VERSION,
        "database": index.database,
        "timestamp": index.timestamp,
        "database_size": index.database_size,
        "page_size": index.page_size,
        "chunk_size": CHUNK_SIZE,
        "root": index.root,
        "sqlite": index.sqlite_version,
        "sidecar": index.sidecar_version,
        "holder": index.holder,
        "epoch": index.epoch,
        "parent": index.parent,
        **_encode_permissions(index.permissions),
        **({"check": index.check.to_json()} if index.check else {}),  # older versions ignore unknown fields
        **({"stream": index.position.stream, "commit": index.position.commit} if index.position else {}),
        **wal_metadata(index.wal_by),
    }
    body = json.dumps(head, separators=(",", ":")).encode() + b"\n" + index.digests
    return body + hashlib.sha256(body).digest()


def decode_index(payload: bytes, name: str) -> Index:
    """Read the payload of the index frame; `name` is the restore point's name in messages.

    Raises `DamagedRestorePoint`, and `UnsupportedRestorePoint` for a newer format.
    """
    body, checksum = payload[:-DIGEST_SIZE], payload[-DIGEST_SIZE:]
    if hashlib.sha256(body).digest() != checksum:
        raise damaged(name, "the index's checksum is wrong")
    line, _, digests = body.partition(b"\n")
    try:
        head = json.loads(line)
        version = int(head["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise damaged(name, f"the index cannot be read: {error}") from error
    if version < FORMAT_VERSION:
        raise damaged(name, f"its index has format version {version}, which never existed")
    if version > FORMAT_VERSION:
        raise UnsupportedRestorePoint(
            f"restore point {name} has format version {version}, but this sidecar reads version {FORMAT_VERSION}",
            "restore it with the sidecar version that wrote it or a newer one; `zstd -d` also works",
        )
    return _index_of(head, digests, name)


def _index_of(head: dict[str, object], digests: bytes, name: str) -> Index:
    try:
        index = Index(
            database=str(head["database"]),
            timestamp=str(head["timestamp"]),
            page_size=int(str(head["page_size"])),
            database_size=int(str(head["database_size"])),
            digests=digests,
            sqlite_version=str(head["sqlite"]),
            sidecar_version=str(head["sidecar"]),
            holder=str(head["holder"]),
            epoch=int(str(head["epoch"])),
            parent=None if head["parent"] is None else str(head["parent"]),
            permissions=_decode_permissions(head),
            check=CheckReport.of_json(head.get("check")),
            position=_position_in(head),
            wal_by=_wal_by_in(head),
        )
    except (ValueError, KeyError) as error:
        raise damaged(name, f"the index cannot be read: {error}") from error
    whole = -(-index.database_size // CHUNK_SIZE)
    if head.get("chunk_size") != CHUNK_SIZE or not whole or len(digests) != whole * DIGEST_SIZE:
        raise damaged(
            name, f"the index has {len(digests)} bytes of digests for {index.database_size} bytes of database"
        )
    if index.root != head.get("root"):
        raise damaged(name, "the root digest is not that of the chunk digests")
    return index


def _encode_permissions(permissions: Permissions | None) -> dict[str, int | str]:
    if permissions is None:
        return {}
    return {"uid": permissions.uid, "gid": permissions.gid, "mode": f"{permissions.mode:04o}"}


def _decode_permissions(head: dict[str, object]) -> Permissions | None:
    """The permissions, or None if they are missing or invalid: that alone does not make the data damaged."""
    uid, gid, mode = (head.get(name) for name in ("uid", "gid", "mode"))
    if not isinstance(mode, str) or not _MODE.fullmatch(mode) or not (_is_id(uid) and _is_id(gid)):
        return None
    return Permissions(int(str(uid)), int(str(gid)), int(mode, 8))


def _position_in(head: Mapping[str, object]) -> Position | None:
    """The position, or None if both fields are missing. Raises ValueError if they are invalid: a position is never guessed."""
    stream, commit = head.get("stream"), head.get("commit")
    if stream is None and commit is None:
        return None
    if (
        not isinstance(stream, str)
        or not stream
        or not isinstance(commit, int)
        or isinstance(commit, bool)
        or commit < 0
    ):
        raise ValueError(f"stream {stream!r}, commit {commit!r}")
    return Position(stream, commit)


def _wal_by_in(head: Mapping[str, object]) -> WalBy | None:
    """Who chose WAL mode, or None if the field is missing or invalid: then the more careful case is assumed."""
    found = head.get("wal_by")
    return WalBy(found) if isinstance(found, str) and found in set(WalBy) else None


def wal_metadata(wal_by: WalBy | None) -> dict[str, str]:
    """Who chose WAL mode, as fields for the index and the metadata of a restore point."""
    return {"wal_by": str(wal_by)} if wal_by else {}


def position_of(metadata: Mapping[str, str]) -> Position | None:
    """The position in the metadata of a restore point, where a HEAD finds it; None if it is missing or invalid."""
    stream, commit = metadata.get("stream", ""), metadata.get("commit", "")
    return Position(stream, int(commit)) if stream and commit.isascii() and commit.isdigit() else None


def position_metadata(position: Position | None) -> dict[str, str]:
    """The metadata that `position_of` reads."""
    return {"stream": position.stream, "commit": str(position.commit)} if position else {}


def _is_id(value: object) -> bool:
    """Whether chown(2) accepts the number as an id; 2**32 - 1 would mean "leave unchanged"."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**32 - 1


def damaged(name: str, reason: str) -> DamagedRestorePoint:
    """The error for a restore point that differs from what was published."""
    return DamagedRestorePoint(f"restore point {name} is damaged: {reason}")
