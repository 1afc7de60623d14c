"""What the SDK's replies say of an object, also when a proxy has transformed them on the way.

We ask for `Accept-Encoding: identity`. A proxy may compress all the same: it adds a `Content-Encoding`, drops the length
and weakens the ETag (RFC 9110, 8.8.3 and 12.5.3). aiohttp decompresses what it knows; the rest is put right here.
"""

from datetime import UTC, datetime
from typing import Any

from sidecar.errors import ConfigurationError, StoreUnavailable
from sidecar.log import log
from sidecar.model import ObjectInfo

DECODED = {"gzip", "x-gzip", "deflate"}
_PLAIN = {"", "identity", "aws-chunked"}  # the last is how some stores remember that they were sent a trailer
_SUFFIXES = ('--gzip"', '-gzip"', '-df"')  # Apache's mod_deflate
_told: set[str] = set()


def encodings_of(reply: Any) -> set[str]:
    """The encodings that were added on the way, as the reply names them. Raises `ConfigurationError` for one that is unknown."""
    found = {each.strip().lower() for each in str(reply.get("ContentEncoding", "")).split(",")} - _PLAIN
    if found - DECODED:
        raise ConfigurationError(
            f"a proxy between here and the store transforms its answers (Content-Encoding: {reply['ContentEncoding']})",
            "have it pass the store's answers unchanged, or set AWS_ENDPOINT_URL_S3 to the store itself",
        )
    return found


def note_transformation(where: str) -> None:
    """Log once that the answers of this store arrive transformed."""
    if where not in _told:
        _told.add(where)
        log.warning("store answers decompressed", store=where, cause="a proxy adds Content-Encoding, which costs time")


def body_length(reply: Any) -> int | None:
    """How many bytes the body has once it is decoded; None where the reply does not say."""
    if "ContentRange" in reply:
        first, _, last = reply["ContentRange"].removeprefix("bytes ").partition("/")[0].partition("-")
        return int(last) - int(first) + 1
    return None if encodings_of(reply) or "ContentLength" not in reply else int(reply["ContentLength"])


def info_of(key: str, reply: Any, size: int) -> ObjectInfo:
    """The object of a reply. Raises `StoreUnavailable` for a reply that is not about an object: a login page, for example."""
    if "ETag" not in reply or "LastModified" not in reply:
        raise StoreUnavailable(f"{key} is answered with something that is no object of S3", "is it an S3 endpoint?")
    modified: datetime = reply["LastModified"]
    return ObjectInfo(key, size, strong(reply["ETag"]), modified.astimezone(UTC), dict(reply.get("Metadata", {})))


def whole_size(reply: Any, received: int) -> int:
    """The size of the whole object, of which `received` bytes arrived: all of it, or a range."""
    return int(reply["ContentRange"].rpartition("/")[2]) if "ContentRange" in reply else received


def strong(etag: str) -> str:
    """An ETag as the store gave it: conditions with one that a proxy has changed would never hold."""
    etag = etag.removeprefix("W/")
    suffix = next((each for each in _SUFFIXES if etag.endswith(each)), None)
    return etag.removesuffix(suffix) + '"' if suffix else etag
