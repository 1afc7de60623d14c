"""The stores that are known by their endpoint, as data. Any other store is tried once (`probing`).

Only what differs from AWS S3 is listed. Where a vendor's documentation does not decide a point, the row says less than the
store may be able to do: a wrong guess in that direction costs requests or bytes, never data.
"""

import re
from collections.abc import Mapping
from urllib.parse import urlsplit

from sidecar.storage.traits import PartCopy, Traits

# https://docs.aws.amazon.com/AmazonS3/latest/userguide/conditional-writes.html
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
AWS = Traits("AWS S3")

# An endpoint that is not listed. What it can do is assumed to be all, and not relied upon where data is at stake.
UNKNOWN = Traits("an unknown S3 store", certain=False)

_TIGRIS = r"(.+\.)?(storage\.tigris\.dev|t3\.storage\.dev)"
_STORES: tuple[tuple[str, Traits], ...] = (
    (r"(.+\.)?amazonaws\.com(\.cn)?", AWS),
    # No object tags, no conditions on a copy's source: https://developers.cloudflare.com/r2/api/s3/api/
    # All parts but the last have one size: https://developers.cloudflare.com/r2/objects/multipart-objects/#limitations
    # Lifecycle rules by prefix: https://developers.cloudflare.com/r2/buckets/object-lifecycles/
    (
        r".+\.r2\.cloudflarestorage\.com",
        Traits("Cloudflare R2", part_copy=PartCopy.UNCONDITIONAL, equal_parts=True, tags=False, tag_rules=False),
    ),
    # Lifecycle rules by prefix alone: https://www.tigrisdata.com/docs/buckets/object-lifecycle-rules/
    (_TIGRIS, Traits("Tigris", tag_rules=False)),
    # At most 1,000 parts: https://www.scaleway.com/en/docs/object-storage/api-cli/multipart-uploads/
    (r"(.+\.)?scw\.cloud", Traits("Scaleway", maximum_parts=1000)),
    # If-Match is only known to reads, preconditions are generations: https://cloud.google.com/storage/docs/request-preconditions
    # No copied parts: https://issuetracker.google.com/issues/323465186. Neither tags nor rules in this interface's form:
    # https://cloud.google.com/storage/docs/xml-api/overview
    (
        r"(.+\.)?storage\.googleapis\.com",
        Traits(
            "Google Cloud Storage",
            conditional_put=False,
            conditional_complete=False,
            part_copy=PartCopy.NO,
            tags=False,
            tag_rules=False,
            prefix_rules=False,
        ),
    ),
    # Conditional writes are refused with 501: https://github.com/hashicorp/terraform/issues/37143
    # A PUT with tags is rejected: https://www.backblaze.com/apidocs/s3-copy-object
    # What is overwritten is kept as a version, so that nothing can be placed there (`prefix_rules`).
    (
        r"(.+\.)?backblazeb2\.com",
        Traits(
            "Backblaze B2",
            conditional_put=False,
            conditional_complete=False,
            tags=False,
            tag_rules=False,
            prefix_rules=False,
        ),
    ),
    # Conditional writes are refused: https://github.com/lance-format/lance/issues/5614
    (r"(.+\.)?aliyuncs\.com", Traits("Alibaba OSS", conditional_put=False, conditional_complete=False)),
    # No copied parts: https://github.com/storj/roadmap/issues/40. Parts of 64 MiB are a segment of the store:
    # https://storj.dev/dcs/api/s3/multipart-upload. No rules are known of it.
    (
        r"(.+\.)?(storjshare|storj)\.io",
        Traits("Storj", part_copy=PartCopy.NO, tag_rules=False, prefix_rules=False, certain=False),
    ),
    # Accounts differ about conditional writes: these are only named here, and tried.
    (r"(.+\.)?your-objectstorage\.com", Traits("Hetzner Object Storage", certain=False)),
    (r"(.+\.)?digitaloceanspaces\.com", Traits("DigitalOcean Spaces", certain=False)),
)

# What a store has to be asked for with each request. The leader of a Tigris bucket decides all of them then, in whichever region
# they are made: https://tigrisdata.com/docs/objects/consistency. In a global bucket a region otherwise decides by what it knows, so
# that two machines could both take the lease: https://www.tigrisdata.com/docs/objects/conditionals/. That page, of 2026, no longer
# mentions the header and advises buckets in one region or multi-region, so docs/stores/tigris.md does not rely on it.
_HEADERS: tuple[tuple[str, Mapping[str, str]], ...] = ((_TIGRIS, {"X-Tigris-Consistent": "true"}),)


def traits_of(endpoint: str | None) -> Traits:
    """The traits of the store at this endpoint; None is the SDK's default, which is AWS."""
    if endpoint is None:
        return AWS
    return next((traits for pattern, traits in _STORES if _is_at(endpoint, pattern)), UNKNOWN)


def headers_of(endpoint: str | None) -> Mapping[str, str]:
    """The headers that every request to the store at this endpoint has, besides those of S3."""
    return next((headers for pattern, headers in _HEADERS if endpoint and _is_at(endpoint, pattern)), {})


def _is_at(endpoint: str, pattern: str) -> bool:
    return re.fullmatch(pattern, urlsplit(endpoint).hostname or "") is not None
