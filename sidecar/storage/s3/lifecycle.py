"""Reads the lifecycle rules of a bucket."""

from collections.abc import Iterator
from typing import Any

from botocore.exceptions import ClientError

from sidecar.errors import ConfigurationError, StoreMissing
from sidecar.storage.base import LifecycleRule
from sidecar.storage.s3.client import S3Client
from sidecar.storage.s3.errors import is_unsupported


class S3Lifecycle:
    """Implements `base.Lifecycle`."""

    def __init__(self, client: S3Client) -> None:
        self._client = client

    async def rules(self) -> tuple[LifecycleRule, ...] | None:
        """See `base.Lifecycle`."""
        try:
            reply = await self._client.call("get_bucket_lifecycle_configuration", "")
        except StoreMissing as error:
            if _code(error.__cause__) == "NoSuchLifecycleConfiguration":
                return ()
            raise
        except ConfigurationError as error:
            if is_unsupported(error):
                return None
            raise
        return tuple(_expiring(reply.get("Rules", []), self._client.location.key("")))


def _code(error: BaseException | None) -> str:
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def _expiring(rules: list[dict[str, Any]], store: str) -> Iterator[LifecycleRule]:
    """The rules about current objects below the store's prefix, with that prefix taken off."""
    for rule in rules:
        expiration = rule.get("Expiration", {})
        if rule.get("Status") != "Enabled" or not ("Days" in expiration or "Date" in expiration):
            continue
        chosen = rule.get("Filter", {})
        both = chosen.get("And", {})
        prefix = str(rule.get("Prefix") or chosen.get("Prefix") or both.get("Prefix") or "")
        tags = [*both.get("Tags", []), *([chosen["Tag"]] if "Tag" in chosen else [])]
        if prefix.startswith(store) or store.startswith(prefix):
            yield LifecycleRule(
                str(rule.get("ID", "without a name")),
                prefix[len(store) :],
                {tag["Key"]: tag["Value"] for tag in tags},
                int(expiration.get("Days", 0)),
            )
