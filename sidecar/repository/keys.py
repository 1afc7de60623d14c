"""The key layout.

<database>/20261120T145503.123Z.sqlite3.zst                     a restore point
diverged/<database>/20261120T145503.123Z-<holder>.sqlite3.zst   a state that lost a conflict
"""

from urllib.parse import quote, unquote

from sidecar.lease import KEY as LEASE_KEY
from sidecar.model import ObjectInfo, RestorePoint, Timestamp

SUFFIX = ".sqlite3.zst"
DIVERGED = "diverged"
RESERVED_NAMES = frozenset({DIVERGED, LEASE_KEY, ".sidecar"})


def folder_of(database: str, *, diverged: bool = False) -> str:
    """The prefix of a database's restore points, with its slash."""
    return f"{DIVERGED}/{quote(database, safe='')}/" if diverged else f"{quote(database, safe='')}/"


def key_of(database: str, timestamp: Timestamp) -> str:
    """The key of a restore point."""
    return f"{folder_of(database)}{timestamp}{SUFFIX}"


def diverged_key_of(database: str, timestamp: Timestamp, holder: str) -> str:
    """The key of a state that lost a conflict."""
    return f"{folder_of(database, diverged=True)}{timestamp}-{quote(holder, safe='')}{SUFFIX}"


def timestamp_of(key: str) -> Timestamp:
    """The timestamp in the key of a restore point. Raises ValueError."""
    return Timestamp(key.rpartition("/")[2].removesuffix(SUFFIX))


def point_of(info: ObjectInfo) -> RestorePoint | None:
    """The restore point behind an object, or None when its key does not have the form of one."""
    folder, _, name = info.key.rpartition("/")
    stem, suffix = name[: -len(SUFFIX)], name[-len(SUFFIX) :]
    text, _, holder = stem.partition("-")
    diverged = folder.startswith(f"{DIVERGED}/")
    if suffix != SUFFIX or bool(holder) != diverged:
        return None
    try:
        timestamp = Timestamp(text)
    except ValueError:
        return None
    database = unquote(folder.removeprefix(f"{DIVERGED}/") if diverged else folder)
    ours = diverged_key_of(database, timestamp, unquote(holder)) if diverged else key_of(database, timestamp)
    if not database or info.key != ours:  # a foreign object: deeper folders, another encoding
        return None
    return RestorePoint(info.key, database, timestamp, info.size, info.etag, info.metadata, unquote(holder) or None)
