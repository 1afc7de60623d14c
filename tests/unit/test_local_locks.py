"""Locks on this machine: one sidecar for a database, and one for a store, which is a URL and a server."""

import json
from pathlib import Path

import pytest

from sidecar.errors import DatabaseBusy
from sidecar.host.endpoints import OWN
from sidecar.host.locks import Holder, holder_of, local_locks
from sidecar.model import Database
from sidecar.storage.s3.location import server

STORE = "s3://bucket/prefix"
A, B = "http://a:1", "http://b:1"


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


def database(name: str, tmp_path: Path) -> list[Database]:
    return [Database(name, tmp_path / name)]


def test_two_servers_with_one_bucket_name_are_two_stores(tmp_path: Path) -> None:
    with local_locks(database("one", tmp_path), None, STORE, "machine", A):
        with local_locks(database("two", tmp_path), None, STORE, "machine", B):
            pass
        with (
            pytest.raises(DatabaseBusy, match="http://a:1"),
            local_locks(database("three", tmp_path), None, STORE, "machine", A),
        ):
            pass


def test_the_default_provider_is_locked_as_by_versions_that_knew_no_endpoints(tmp_path: Path) -> None:
    with (
        local_locks(database("one", tmp_path), None, STORE, "machine", OWN),
        pytest.raises(DatabaseBusy),
        local_locks(database("two", tmp_path), None, STORE, "machine"),
    ):
        pass


@pytest.mark.parametrize(
    ("held", "asked", "same"),
    [
        (A, A, True),
        (A, B, False),
        ("", A, True),
        (A, "", True),
        (OWN, A, False),
        ("https://s3.eu-west-1.amazonaws.com", OWN, True),  # as an older version has it
    ],
)
def test_a_holder_of_unknown_endpoint_may_be_of_this_store(held: str, asked: str, same: bool) -> None:
    assert Holder(1, None, STORE, held).protects_with(STORE, asked) is same
    assert not Holder(1, None, STORE, held).protects_with("s3://other", asked)


def test_fields_of_newer_versions_are_ignored(tmp_path: Path) -> None:
    [one] = database("one", tmp_path)
    with local_locks([one], None, STORE):
        [lock] = tmp_path.glob("*.lock")
        lock.write_text(json.dumps({**json.loads(lock.read_text()), "added": 1}))
        assert holder_of(one)


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        (None, OWN),
        ("HTTPS://User:secret@S3.Example.com:443/", "https://s3.example.com"),
        ("http://127.0.0.1:8333", "http://127.0.0.1:8333"),
        ("http://[::1]:80/s3/", "http://[::1]/s3"),
        ("https://s3.amazonaws.com", OWN),
        ("https://S3.eu-central-1.amazonaws.com:443/", OWN),
        ("http://s3.us-gov-west-1.amazonaws.com", OWN),
        ("https://s3-us-west-2.amazonaws.com", OWN),
        ("https://s3-external-1.amazonaws.com", OWN),
        ("https://s3.dualstack.ap-southeast-2.amazonaws.com", OWN),
        ("https://s3-fips.dualstack.us-east-1.amazonaws.com", OWN),
        ("https://s3-accelerate.dualstack.amazonaws.com", OWN),
        ("https://s3.cn-north-1.amazonaws.com.cn", OWN),
        ("https://bucket.vpce-1a2b3c4d-5e6f.s3.us-east-1.vpce.amazonaws.com", OWN),
        ("https://s3.eu-west-1.amazonaws.com:8443", "https://s3.eu-west-1.amazonaws.com:8443"),
        ("https://s3.eu-west-1.amazonaws.com.example.org", "https://s3.eu-west-1.amazonaws.com.example.org"),
        ("https://s3.amazonaws.com/proxy", "https://s3.amazonaws.com/proxy"),
        ("https://sts.eu-west-1.amazonaws.com", "https://sts.eu-west-1.amazonaws.com"),
    ],
)
def test_an_endpoint_has_one_spelling_and_no_password(endpoint: str | None, expected: str) -> None:
    assert server(endpoint) == expected
