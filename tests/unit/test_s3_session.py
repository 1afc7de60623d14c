"""The SDK's descriptions, cut to size: what a client is made of is all there, and every store is where it was."""

import json
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.utils
import pytest
from aiobotocore.config import AioConfig
from botocore.endpoint_provider import EndpointProvider
from botocore.loaders import JSONFileLoader
from botocore.regions import EndpointResolver
from botocore.useragent import UserAgentString

from sidecar.storage.s3.session import PlainSession, new_session, parse_timestamp

DATA = Path(botocore.__file__).parent / "data"
UNASKED = ("Key", "Prefix", "CopySource")
REGIONS = ["us-east-1", "eu-central-1", "ap-south-2", "cn-north-1", "us-gov-west-1", "us-iso-east-1", "xx-new-1"]


def load(path: str) -> Any:
    """As a client of ours is given it."""
    return new_session().get_component("data_loader").file_loader.load_file(str(DATA / path))


def cut(value: Any) -> Any:
    if isinstance(value, dict):
        texts = {"documentation", "documentationUrl"}
        return {
            name: "" if name in texts and isinstance(each, str) else cut(each)
            for name, each in value.items()
            if (name, each) not in [("contextParam", {"name": unasked}) for unasked in UNASKED]
        }
    return [cut(each) for each in value] if isinstance(value, list) else value


@pytest.mark.parametrize("service", ["s3/2006-03-01", "sts/2011-06-15", "sso/2019-06-10", "sso-oidc/2019-06-10"])
@pytest.mark.parametrize("what", ["service-2", "endpoint-rule-set-1"])
def test_only_documentation_and_what_no_rule_asks_for_is_left_out(service: str, what: str) -> None:
    """Operations, shapes and rules are the SDK's own; a parameter that is called `documentation` would stay."""
    whole = JSONFileLoader().load_file(str(DATA / service / what))
    assert load(f"{service}/{what}") == cut(whole)


def test_no_rule_of_the_sdk_asks_for_the_key_of_an_object() -> None:
    """Else leaving the key out of what the rules are given would send requests to the wrong endpoint."""
    rules = json.dumps(load("s3/2006-03-01/endpoint-rule-set-1")["rules"])
    assert '"ref": "Bucket"' in rules
    assert "{Bucket}" in rules
    for name in UNASKED:
        assert f'"ref": "{name}"' not in rules
        assert f"{{{name}" not in rules


@pytest.mark.anyio
async def test_the_endpoint_of_a_bucket_is_looked_up_once_for_all_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Going through the rules costs as much as all else that a small request costs before it is sent."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    looked_up = EndpointProvider.resolve_endpoint.cache_info
    async with new_session().create_client("s3", region_name="us-east-1") as client:

        async def host(bucket: str, key: str) -> str:
            parameters = {"Bucket": bucket, "Key": key}
            return str(urlsplit(await client.generate_presigned_url("get_object", Params=parameters)).netloc)

        assert await host("one", "a") == "one.s3.amazonaws.com"
        before = looked_up().misses
        assert {await host("one", key) for key in ("b", "c/d", "e e")} == {"one.s3.amazonaws.com"}
        assert looked_up().misses == before
        assert await host("two", "a") == "two.s3.amazonaws.com"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-30T18:59:15.222Z",
        "2026-11-30T18:59:15Z",
        "2026-11-30T18:59:15.222812Z",
        "2026-11-30T18:59:15+02:00",
        "2026-11-30T18:59:15",
        "Mon, 30 Nov 2026 18:59:15 GMT",
        "Mon, 30 Nov 2026 18:59:15 +0100",
        "Monday, 30-Nov-26 18:59:15 GMT",
        "1796065155.5",
        1796065155,
    ],
)
def test_times_in_answers_are_those_that_the_sdk_would_read(text: Any) -> None:
    assert parse_timestamp(text) == botocore.utils.parse_timestamp(text)


@pytest.mark.parametrize("text", ["", "Z", "soon", "2026-13-01T00:00:00Z", "<html>"])
def test_what_is_no_time_is_an_error_as_with_the_sdk(text: str) -> None:
    with pytest.raises(ValueError):
        parse_timestamp(text)


@pytest.mark.parametrize("options", [{}, {"user_agent_extra": "extra"}, {"user_agent_appid": "mine"}])
def test_the_user_agent_is_the_sdks_own(options: dict[str, str]) -> None:
    """AWS_SDK_UA_APP_ID is the SDK's own setting; a client's string is not that of another client."""
    ours = new_session().get_component("user_agent_creator")
    ours.to_string()
    config = AioConfig(**options)
    assert ours.with_client_config(config).to_string() == (
        UserAgentString.from_environment().with_client_config(config).to_string()
    )


@cache
def resolvers() -> tuple[EndpointResolver, EndpointResolver]:
    """The SDK's own, and ours: to load their descriptions takes a tenth of a second."""
    return EndpointResolver(JSONFileLoader().load_file(str(DATA / "endpoints"))), EndpointResolver(load("endpoints"))


@pytest.mark.parametrize("region", REGIONS)
@pytest.mark.parametrize("service", ["s3", "sts", "oidc", "portal.sso"])
def test_endpoints_of_what_we_call_are_the_same(service: str, region: str) -> None:
    whole, ours = resolvers()
    assert ours.construct_endpoint(service, region) == whole.construct_endpoint(service, region)


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


@pytest.mark.anyio
async def test_a_client_is_made_without_the_transfer_functions_of_the_sdk(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are not used, and importing them takes longer than creating the client, which every boot waits for."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    async with PlainSession(botocore_session=new_session()).client("s3", region_name="us-east-1") as client:
        assert hasattr(client, "upload_part")
        assert not hasattr(client, "upload_file")


@pytest.mark.parametrize("service", ["s3", "sts", "sso", "sso-oidc"])
def test_the_description_of_a_service_is_found(service: str) -> None:
    """By its folder, without a look into those of all other services."""
    found = new_session().get_component("data_loader").load_service_model(service, "service-2")
    assert found["metadata"]["endpointPrefix"] in {service, "oidc", "portal.sso"}
