"""Where the store is: what is accepted, what is refused, and that a password is never shown."""

from pathlib import Path

import pytest

from sidecar.errors import ConfigurationError
from sidecar.settings.load import load
from sidecar.storage.base import StoreLocation
from sidecar.storage.file.location import DirectoryLocation
from sidecar.storage.open import parse_location, removal_command
from sidecar.storage.s3.location import BucketLocation
from sidecar.storage.urls import is_http, without_password

SECRET = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"  # the example of AWS' documentation; secrets have slashes


@pytest.mark.parametrize(
    ("store", "location"),
    [
        ("s3://bucket", BucketLocation("bucket", "")),
        ("s3://bucket/", BucketLocation("bucket", "")),
        ("s3://bucket/a/b/", BucketLocation("bucket", "a/b")),
        ("s3://my.bucket-1/über @home", BucketLocation("my.bucket-1", "über @home")),
        ("file:///var/lib/x", DirectoryLocation(Path("/var/lib/x"))),
        ("file://./sidecar-store", DirectoryLocation(Path("./sidecar-store"))),
        ("file:///with space#1?", DirectoryLocation(Path("/with space#1?"))),
    ],
)
def test_a_store_is_a_bucket_with_a_prefix_or_a_directory(store: str, location: StoreLocation) -> None:
    assert parse_location(store) == location


@pytest.mark.parametrize(
    "store",
    [
        "",
        "bucket",
        "/var/lib/x",
        "file:/var/lib/x",
        "file://",
        "s3:bucket",
        "s3://",
        "s3:///prefix",
        "s3://bucket?region=x",
        "s3://bucket/p#f",
        "s3://[bucket]/prefix",
        "s3://<bucket>/prefix",
        "s3://my bucket/x",
        "s3://bucket:9000/x",
        "s3://key@bucket/x",
        "gs://bucket/x",
        "https://bucket.s3.amazonaws.com/x",
    ],
)
def test_any_other_store_is_refused_and_named(store: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^store: .* is neither s3://bucket/prefix nor file:///directory"):
        load({"databases": ("/d/app.db",), "store": store}, {})


@pytest.mark.parametrize(
    "url", [f"s3://AKIA:{SECRET}@bucket/prefix", f"s3://AKIA:{SECRET}@/x", f"https://u:{SECRET}@host/x"]
)
def test_a_password_in_a_refused_store_is_not_shown(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"databases": ("/d/app.db",), "store": url}, {})
    assert not any(piece in str(caught.value) for piece in ("AKIA", *SECRET.split("/")))


def test_a_password_in_any_refused_value_is_not_shown() -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({"databases": ("/d/app.db",), "interval": f"http://me:{SECRET}@host"}, {})
    assert not any(piece in str(caught.value) for piece in SECRET.split("/"))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("http://me:secret@host:9000/x", "http://***@host:9000/x"),
        ("s3://key:a/b@bucket/p", "s3://***@bucket/p"),
        ("https://key:12345/abc@host/x", "https://***@host/x"),
        ("http://me@host/x", "http://***@host/x"),
        ("http://host:9000/metrics?by=me@home", "http://host:9000/metrics?by=me@home"),
        ("s3://bucket/with@sign", "s3://bucket/with@sign"),
        ("file:///data/a@b", "file:///data/a@b"),
        ("/data/a@b", "/data/a@b"),
        ("", ""),
    ],
)
def test_only_the_user_part_of_a_url_is_masked(url: str, shown: str) -> None:
    assert without_password(url) == shown


@pytest.mark.parametrize(
    ("url", "command"),
    [
        ("s3://bucket", "aws s3 rm s3://bucket/lease.json"),
        ("s3://bucket/a/b/", "aws s3 rm s3://bucket/a/b/lease.json"),
        ("file:///var/store", "rm /var/store/lease.json"),
        ("memory://x", "delete memory://x/lease.json"),
    ],
)
def test_a_person_is_told_how_to_delete_an_object(url: str, command: str) -> None:
    assert removal_command(url, "lease.json") == command


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://example.com/hook", True),
        ("http://127.0.0.1:8000", True),
        ("http://[::1", False),
        ("http://", False),
        ("http://:8000/x", False),
        ("ftp://example.com", False),
        ("example.com", False),
    ],
)
def test_a_receiver_is_a_url_of_an_http_server(url: str, expected: bool) -> None:
    assert is_http(url) is expected
