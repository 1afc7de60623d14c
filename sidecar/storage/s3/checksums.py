"""Chooses the checksums of a write: by the SDK's own settings, or else by what the store turns out to require.

Stores other than AWS reject or mangle the SDK's newer default checksums, so by default they get none. Some require one: a
bucket with Object Lock refuses every PUT without `Content-MD5` or `x-amz-checksum-*`. Such a write is repeated once with a
checksum. If the store accepts it, all later writes of this process have one.

Checksums of parts are declared when an upload is created and repeated when it is completed, or not sent at all: AWS
refuses a mix. `Content-MD5` needs no declaration, so it is used for parts of an upload that began without checksums.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/checking-object-integrity-upload.html
"""

import hashlib
import zlib
from base64 import b64encode
from typing import Any

from botocore.exceptions import ClientError

from sidecar.log import log
from sidecar.model import Bytes

ALGORITHM = "CRC32"
MEMBER = "ChecksumCRC32"
_ASKED_FOR = {"InvalidRequest", "InvalidArgument", "MissingContentMD5", "MissingParameter", "BadRequest", "400"}


class Checksums:
    """What this process knows about the checksums that a store requires on writes."""

    def __init__(self) -> None:
        self._by_sdk = False
        self._insisted = False

    def leave_to_sdk(self) -> None:
        """Add no checksums: the SDK is configured to compute them, or does so by default."""
        self._by_sdk = True

    @property
    def declared(self) -> bool:
        """Whether an upload that begins now declares checksums for its parts."""
        return self._by_sdk or self._insisted

    def declaration(self) -> dict[str, Any]:
        """The parameters for creating an upload."""
        return {"ChecksumAlgorithm": ALGORITHM} if self.declared else {}

    def of(self, data: Bytes, *, declared: bool = True) -> dict[str, Any]:
        """The parameters for writing these bytes. `declared` is False for a part of an upload that began without checksums.

        The checksum is a header, because not every store accepts the trailers that the SDK uses over TLS.
        """
        return self.forced(data, declared=declared) if self._insisted and not self._by_sdk else {}

    def forced(self, data: Bytes, *, declared: bool = True) -> dict[str, Any]:
        """The parameters for repeating a write because the store may require a checksum."""
        return {MEMBER: crc32_of(data)} if declared else {"ContentMD5": md5_of(data)}

    def asked_for(self, error: BaseException | None) -> bool:
        """Whether a refused write without a checksum is worth repeating with one. The message alone may not tell."""
        if self._by_sdk or not isinstance(error, ClientError):
            return False
        code = str(error.response.get("Error", {}).get("Code", ""))
        message = str(error.response.get("Error", {}).get("Message", "")).lower()
        refused = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 400
        return refused and (code in _ASKED_FOR or "checksum" in message or "md5" in message)

    def insist(self, operation: str) -> None:
        """Add checksums from now on: a write was refused without one and accepted with one."""
        if not self._insisted:
            log.info("checksums enabled", operation=operation, cause="the store refuses writes without a checksum")
        self._insisted = True


def crc32_of(data: Bytes) -> str:
    """The value of `x-amz-checksum-crc32`."""
    return b64encode(zlib.crc32(data).to_bytes(4, "big")).decode()


def md5_of(data: Bytes) -> str:
    """The value of `Content-MD5`."""
    return b64encode(hashlib.md5(data, usedforsecurity=False).digest()).decode()
