"""Reads an object's properties from the SDK's replies, even if a proxy has transformed them.

We send `Accept-Encoding: identity`. A proxy may compress the reply anyway: it adds `Content-Encoding`, drops the length
and weakens the ETag (RFC 9110, 8.8.3 and 12.5.3). aiohttp decompresses the body; this module corrects the rest.
"""

from datetime import UTC, datetime
from typing import Any

from sidecar.errors import ConfigurationError, StoreUnavailable
from sidecar.log import log
from sidecar.model import ObjectInfo

DECODED = {"gzip", "x-gzip", "deflate"}
_PLAIN = {"", "identity", "aws-chunked"}  # some stores keep the `aws-chunked` of a write that had a trailer
_SUFFIXES = ('--gzip"', '-gzip"', '-df"')  # Apache's mod_deflate
_logged: set[str] = set()


def encodings_of(reply: Any) -> set[str]:
    """The encodings that a proxy has added, as named in the reply. Raises `ConfigurationError` for an unknown one."""
    found = {each.strip().lower() for each in str(reply.get("ContentEncoding", "")).split(",")} - _PLAIN
    if found - DECODED:
        raise ConfigurationError(
            f"a proxy between here and the store transforms its answers (Content-Encoding: {reply['ContentEncoding']})",
            "make it pass the store's answers unchanged, or set AWS_ENDPOINT_URL_S3 to the store itself",
        )
    return found


def note_transformation(where: str) -> None:
    """Log once for each store that its replies arrive transformed."""
    if where not in _logged:
        _logged.add(where)
        log.warning("store answers decompressed", store=where, cause="a proxy adds Content-Encoding, which costs time")


def body_length(reply: Any) -> int | None:
    """The length of the decoded body in bytes, or None if the reply does not give it."""
    if "ContentRange" in reply:
        first, _, last = reply["ContentRange"].removeprefix("bytes ").partition("/")[0].partition("-")
        return int(last) - int(first) + 1
    return None if encodings_of(reply) or "ContentLength" not in reply else int(reply["ContentLength"])


def info_of(key: str, reply: Any, size: int) -> ObjectInfo:
    """The object that a reply describes. Raises `StoreUnavailable` if it describes none, like a proxy's login page."""
    if "ETag" not in reply or "LastModified" not in reply:
        raise StoreUnavailable(
            f"the answer for {key} is not that of an S3 store", "check that AWS_ENDPOINT_URL_S3 names an S3 endpoint"
        )
    modified: datetime = reply["LastModified"]
    return ObjectInfo(key, size, strong(reply["ETag"]), modified.astimezone(UTC), dict(reply.get("Metadata", {})))


def whole_size(reply: Any, received: int) -> int:
    """The size of the whole object, of which the reply has `received` bytes: all, or a range."""
    return int(reply["ContentRange"].rpartition("/")[2]) if "ContentRange" in reply else received


def strong(etag: str) -> str:
    """The ETag that the store sent. A condition with an ETag that a proxy has changed would never be met."""
    etag = etag.removeprefix("W/")
    suffix = next((each for each in _SUFFIXES if etag.endswith(each)), None)
    return etag.removesuffix(suffix) + '"' if suffix else etag
