"""Where we listen, and what we take from the platform's and the SDK's variables."""

import pytest

from sidecar.errors import ConfigurationError
from sidecar.settings.environment import is_passthrough, read_environment
from sidecar.settings.fields import listen_address
from sidecar.settings.load import load
from sidecar.storage.urls import require_endpoint


@pytest.mark.parametrize(
    "value", ["9180", "localhost", "0.0.0.0:", ":9180", "0.0.0.0:http", "0.0.0.0:65536", "0.0.0.0:-1", ""]
)
def test_a_listen_address_without_host_or_port_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^listen:"):
        load({"databases": ("/data/app.db",), "listen": value}, {})


@pytest.mark.parametrize(
    ("value", "expected"),
    [("0.0.0.0:9180", ("0.0.0.0", 9180)), ("[::]:1", ("::", 1)), ("localhost:0", ("localhost", 0)), ("off", None)],
)
def test_a_listen_address_is_host_and_port_or_off(value: str, expected: tuple[str, int] | None) -> None:
    assert listen_address(value) == expected


def test_the_holder_is_the_machine_on_fly_and_the_host_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.gethostname", lambda: "laptop")
    there, here = read_environment({"FLY_MACHINE_ID": "148e2"}), read_environment({})
    assert (there.holder, there.on_fly) == ("148e2", True)
    assert (here.holder, here.on_fly) == ("laptop", False)


@pytest.mark.parametrize(
    ("environ", "endpoint", "region"),
    [
        ({}, None, None),
        ({"AWS_REGION": "a", "AWS_DEFAULT_REGION": "b", "AWS_ENDPOINT_URL": "http://x"}, "http://x", "a"),
        (
            {"AWS_DEFAULT_REGION": "b", "AWS_ENDPOINT_URL": "http://x", "AWS_ENDPOINT_URL_S3": "http://y"},
            "http://y",
            "b",
        ),
        ({"AWS_REGION": "", "AWS_ENDPOINT_URL": ""}, None, None),
    ],
)
def test_endpoint_and_region_are_those_of_the_sdk(
    environ: dict[str, str], endpoint: str | None, region: str | None
) -> None:
    read = read_environment(environ)
    assert (read.endpoint, read.region) == (endpoint, region)


@pytest.mark.parametrize("variable", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_STS"])
@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://me:secret@host:8333", "user or a password"),
        ("http://me@host:8333", "user or a password"),
        ("http://me:se/cret@host:8333", "port is not a number|user or a password"),
        ("http://me:secret@host:99999", "port is not a number"),
        ("https://host:port", "port is not a number"),
        ("http://host:0", "port is not a number"),
        ("http://host:-1", "port is not a number"),
        ("host:8333", "does not begin with http"),
        ("s3://host", "does not begin with http"),
        ("ftp://host", "does not begin with http"),
        ("http:/host", "does not begin with http"),
        ("https://", "no host"),
        ("http://:8333", "no host"),
        ("http://::1:8333", "brackets"),
        ("http://fe80::1", "brackets"),
        ("http://[::1", "not valid"),
        ("http://host:8333?a=b", "query"),
        ("http://host:8333/#part", "fragment"),
        ("http://my host", "white space"),
    ],
)
def test_an_endpoint_that_is_no_url_is_refused(variable: str, url: str, fault: str) -> None:
    """Its variable is named; its value, which may contain a password, is not."""
    with pytest.raises(ConfigurationError, match=f"{variable} is not a URL of a server.*({fault})") as caught:
        load({"databases": ("/data/app.db",), "store": "s3://b/p"}, {variable: url, "AWS_REGION": "x"})
    assert url not in caught.value.message
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "url", ["http://host", "HTTPS://Host.example:443/", "http://[::1]:8333", "http://127.0.0.1:1/s3", "https://store_1"]
)
def test_an_endpoint_may_have_a_path_and_be_an_address(url: str) -> None:
    require_endpoint("AWS_ENDPOINT_URL", url)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"RELEASE_COMMAND": "1"}, True),
        ({"FLY_TEST_COMMAND": "1"}, True),
        ({"RELEASE_COMMAND": "0"}, False),
        ({}, False),
    ],
)
def test_release_commands_and_test_machines_touch_nothing(environ: dict[str, str], expected: bool) -> None:
    assert is_passthrough(environ) is expected


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SESSION_TOKEN", "AWS_REGION"])
@pytest.mark.parametrize("value", ["\u201cAKIAIOSFODNN7\u201d", "AKIA\u00a0IOSFODNN7", "s\u00e9cret"])
def test_what_no_header_can_carry_is_refused_by_name_and_not_shown(name: str, value: str) -> None:
    """Curly quotes come from a word processor. The SDK would fail in each request, which looks like an outage."""
    environ = {"SIDECAR_DATABASES": "a.db", "SIDECAR_STORE": "s3://bucket"} | {name: value}
    with pytest.raises(ConfigurationError, match=rf"^{name} contains a character that is not ASCII") as caught:
        load({}, environ)
    assert value not in str(caught.value)


def test_a_secret_key_is_any_text() -> None:
    load({}, {"SIDECAR_DATABASES": "a.db", "SIDECAR_STORE": "s3://bucket", "AWS_SECRET_ACCESS_KEY": "s\u00e9 cret"})
