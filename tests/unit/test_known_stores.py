"""Which store is behind an endpoint, and what it can do."""

import pytest

from sidecar.storage.s3.known import UNKNOWN, headers_of, traits_of
from sidecar.storage.traits import PartCopy

ENDPOINTS = {
    None: "AWS S3",
    "https://s3.eu-central-1.amazonaws.com": "AWS S3",
    "https://s3.cn-north-1.amazonaws.com.cn": "AWS S3",
    "https://bucket.vpce-1a2b.s3.us-east-1.vpce.amazonaws.com": "AWS S3",
    "https://0123456789abcdef.r2.cloudflarestorage.com": "Cloudflare R2",
    "https://0123456789abcdef.eu.r2.cloudflarestorage.com/": "Cloudflare R2",
    "https://fly.storage.tigris.dev": "Tigris",
    "https://t3.storage.dev": "Tigris",
    "https://s3.fr-par.scw.cloud": "Scaleway",
    "https://storage.googleapis.com": "Google Cloud Storage",
    "https://s3.us-west-004.backblazeb2.com": "Backblaze B2",
    "https://oss-eu-central-1.aliyuncs.com": "Alibaba OSS",
    "https://gateway.storjshare.io": "Storj",
    "https://fsn1.your-objectstorage.com": "Hetzner Object Storage",
    "https://fra1.digitaloceanspaces.com": "DigitalOcean Spaces",
    "HTTPS://FLY.STORAGE.TIGRIS.DEV:443": "Tigris",
}


@pytest.mark.parametrize(("endpoint", "store"), ENDPOINTS.items(), ids=str)
def test_a_known_store_is_recognised_by_its_endpoint(endpoint: str | None, store: str) -> None:
    assert traits_of(endpoint).store == store


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://127.0.0.1:9000",
        "http://[::1]:9000",
        "https://minio.example.com",
        "https://storage.googleapis.com.example.com",
        "https://notbackblazeb2.com",
        "https://example.com/amazonaws.com",
        "https://amazonaws.com@example.com",
    ],
)
def test_another_endpoint_is_of_an_unknown_store(endpoint: str) -> None:
    """A name inside a path, a password or a longer name is not the vendor's."""
    assert traits_of(endpoint) == UNKNOWN


def test_a_store_without_conditional_writes_is_known_to_have_none() -> None:
    """Its lease would be refused or, where the condition is ignored, would not exclude anybody."""
    without = {name for endpoint, name in ENDPOINTS.items() if not traits_of(endpoint).conditional_put}
    assert without == {"Google Cloud Storage", "Backblaze B2", "Alibaba OSS"}


def test_what_is_assumed_is_not_certain() -> None:
    uncertain = {name for endpoint, name in ENDPOINTS.items() if not traits_of(endpoint).certain}
    assert uncertain == {"Storj", "Hetzner Object Storage", "DigitalOcean Spaces"}
    assert not UNKNOWN.certain


def test_copies_that_r2_cannot_condition_are_not_conditional() -> None:
    traits = traits_of("https://0123456789abcdef.r2.cloudflarestorage.com")
    assert (traits.part_copy, traits.equal_parts, traits.tags) == (PartCopy.UNCONDITIONAL, True, False)


def test_a_store_that_must_be_asked_for_consistency_is_asked() -> None:
    asked = {name for endpoint, name in ENDPOINTS.items() if headers_of(endpoint)}
    assert asked == {"Tigris"}
    assert headers_of("https://fly.storage.tigris.dev") == {"X-Tigris-Consistent": "true"}
    assert headers_of("https://t3.storage.dev.example.com") == {}
