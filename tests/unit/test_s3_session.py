"""The SDK's descriptions, cut to size: what a client is made of is all there, and every store is where it was."""

from pathlib import Path
from typing import Any

import botocore
import pytest
from botocore.loaders import JSONFileLoader
from botocore.regions import EndpointResolver

from sidecar.storage.s3.session import new_session

DATA = Path(botocore.__file__).parent / "data"
REGIONS = ["us-east-1", "eu-central-1", "ap-south-2", "cn-north-1", "us-gov-west-1", "us-iso-east-1", "xx-new-1"]


def load(path: str) -> Any:
    """As a client of ours is given it."""
    return new_session().get_component("data_loader").file_loader.load_file(str(DATA / path))


def without_documentation(value: Any) -> Any:
    if isinstance(value, dict):
        texts = {"documentation", "documentationUrl"}
        return {
            name: "" if name in texts and isinstance(each, str) else without_documentation(each)
            for name, each in value.items()
        }
    return [without_documentation(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("service", ["s3/2006-03-01", "sts/2011-06-15", "sso/2019-06-10", "sso-oidc/2019-06-10"])
@pytest.mark.parametrize("what", ["service-2", "endpoint-rule-set-1"])
def test_only_documentation_is_left_out(service: str, what: str) -> None:
    """Operations, shapes and rules are the SDK's own; a parameter that is called `documentation` would stay."""
    whole = JSONFileLoader().load_file(str(DATA / service / what))
    assert load(f"{service}/{what}") == without_documentation(whole)


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("service", ["s3", "sts", "oidc", "portal.sso"])
def test_endpoints_of_what_we_call_are_the_same(service: str, region: str) -> None:
    whole = EndpointResolver(JSONFileLoader().load_file(str(DATA / "endpoints")))
    assert EndpointResolver(load("endpoints")).construct_endpoint(service, region) == whole.construct_endpoint(
        service, region
    )


def test_a_description_that_is_not_there_is_none() -> None:
    """The SDK looks in several directories."""
    assert load("s3/2006-03-01/nothing") is None


def test_own_descriptions_are_still_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_DATA_PATH is the SDK's own setting."""
    folder = tmp_path / "s3" / "2006-03-01"
    folder.mkdir(parents=True)
    (folder / "own-1.json").write_text('{"documentation": "text", "kept": [1]}')
    monkeypatch.setenv("AWS_DATA_PATH", str(tmp_path))
    own = new_session().get_component("data_loader").load_service_model("s3", "own-1")
    assert own == {"documentation": "", "kept": [1]}


async def _keys() -> tuple[str, str, str | None]:
    credentials = await new_session().get_credentials()
    found = await credentials.get_frozen_credentials()
    return found.access_key, found.secret_key, found.token


@pytest.mark.anyio
@pytest.mark.parametrize("space", ["", "\n", " \r\n"])
async def test_static_keys_have_no_surrounding_white_space(space: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key that was read from a file ends in a newline, with which no request can be sent."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", f"AKIA{space}")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", f"{space}secret")
    assert await _keys() == ("AKIA", "secret", None)
    monkeypatch.setenv("AWS_SESSION_TOKEN", f"token{space}")
    assert await _keys() == ("AKIA", "secret", "token")
