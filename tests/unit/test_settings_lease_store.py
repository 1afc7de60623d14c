"""Where the lease is kept, and with which credentials: none of the store's once it has some of its own."""

from pathlib import Path

import pytest

from sidecar.bootstrap import open_services
from sidecar.errors import ConfigurationError
from sidecar.host import SystemClock
from sidecar.settings import app_environment
from sidecar.settings.access import LEASE_VARIABLES, lease_access
from sidecar.settings.load import load

SETTINGS = {"databases": ("/data/app.db",), "store": "s3://b/app", "lease_store": "s3://leases/app"}
STORE = {
    "AWS_ACCESS_KEY_ID": "b2-key",
    "AWS_SECRET_ACCESS_KEY": "b2-secret",
    "AWS_REGION": "us-west-004",
    "AWS_ENDPOINT_URL_S3": "https://s3.us-west-004.backblazeb2.com",
}
KEYS = {"SIDECAR_LEASE_AWS_ACCESS_KEY_ID": "aws-key", "SIDECAR_LEASE_AWS_SECRET_ACCESS_KEY": "aws-secret"}
REGION = {"SIDECAR_LEASE_AWS_REGION": "eu-central-1"}


def test_the_lease_at_another_provider_has_nothing_of_the_store() -> None:
    configuration = load(SETTINGS, {**STORE, **KEYS, **REGION})
    access = lease_access(configuration, SystemClock())
    assert (access.endpoint, access.region) == ("https://s3.eu-central-1.amazonaws.com", "eu-central-1")
    assert access.keys is not None
    assert (access.keys.key, access.keys.secret, access.keys.token) == ("aws-key", "aws-secret", None)
    assert "secret" not in repr(access)
    assert configuration.environment.endpoint == STORE["AWS_ENDPOINT_URL_S3"]


def test_a_role_for_the_lease_beside_the_keys_of_the_store() -> None:
    role = {"SIDECAR_LEASE_AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/leases", **REGION}
    access = lease_access(load(SETTINGS, {**STORE, **role}), SystemClock())
    assert (access.keys, access.role_arn) == (None, role["SIDECAR_LEASE_AWS_ROLE_ARN"])
    assert access.sts_endpoint == "https://sts.eu-central-1.amazonaws.com"


def test_without_any_of_its_own_it_uses_those_of_the_store() -> None:
    access = lease_access(load(SETTINGS, STORE), SystemClock())
    assert (access.keys, access.endpoint) == (None, STORE["AWS_ENDPOINT_URL_S3"])


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({**REGION, "SIDECAR_LEASE_AWS_ACCESS_KEY_ID": "k"}, "no complete credentials for lease_store"),
        (REGION, "no complete credentials for lease_store"),
        (KEYS, "neither a region nor an endpoint"),
        ({"SIDECAR_LEASE_AWS_SECRET": "x"}, "is not a setting"),
        (
            {**KEYS, "SIDECAR_LEASE_AWS_ENDPOINT_URL_S3": "s3.example.com"},
            "for lease_store, with SIDECAR_LEASE_ in front",
        ),
        ({"SIDECAR_LEASE_STORE": "leases"}, "^lease_store: 'leases' is neither"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, dict) else "",
)
def test_what_cannot_work_is_refused(variables: dict[str, str], words: str) -> None:
    flags = {name: value for name, value in SETTINGS.items() if f"SIDECAR_{name.upper()}" not in variables}
    with pytest.raises(ConfigurationError, match=words):
        load(flags, {**STORE, **variables})


@pytest.mark.parametrize("lease_store", [{}, {"lease_store": "file:///var/lease"}], ids=["none", "directory"])
def test_variables_of_a_store_that_is_not_there_are_refused(lease_store: dict[str, str]) -> None:
    """Whoever set them believes that the lease is kept somewhere else."""
    flags = {name: value for name, value in SETTINGS.items() if name != "lease_store"} | lease_store
    assert load(flags, {**STORE, **dict.fromkeys(LEASE_VARIABLES, "")}).lease_keys is None
    with pytest.raises(ConfigurationError, match="SIDECAR_LEASE_AWS_ROLE_ARN is set, but the lease is kept in") as told:
        load(flags, {**STORE, "SIDECAR_LEASE_AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/leases"})
    assert "set lease_store" in told.value.hint


@pytest.mark.anyio
async def test_the_store_itself_is_refused(tmp_path: Path) -> None:
    store = f"file://{tmp_path}/store"
    settings = load({"databases": (str(tmp_path / "app.db"),), "store": store, "lease_store": f"{store}/"}, {})
    with pytest.raises(ConfigurationError, match="lease_store is the store itself"):
        async with open_services(settings):
            pass


def test_the_app_gets_none_of_them_where_they_are_withheld() -> None:
    given = dict.fromkeys(LEASE_VARIABLES, "x")
    left = {"SIDECAR_LEASE_AWS_REGION", "SIDECAR_LEASE_AWS_ENDPOINT_URL_S3"}
    assert set(app_environment(withhold=True, environ=given)) == left
    assert set(app_environment(withhold=False, environ=given)) == set(LEASE_VARIABLES)
