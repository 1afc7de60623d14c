"""The SDK's own configuration: each error of it is reported at once, with the name of the variable or the file."""

import asyncio
from itertools import chain
from pathlib import Path

import pytest
from botocore.configprovider import BOTOCORE_DEFAUT_SESSION_VARIABLES, DEFAULT_S3_CONFIG_VARS
from botocore.credentials import ContainerProvider, EnvProvider
from botocore.exceptions import BotoCoreError, ConnectTimeoutError, ReadTimeoutError

from sidecar.errors import AccessDenied, ConfigurationError, OutcomeUnknown, StoreUnavailable
from sidecar.settings.environment import SDK_VARIABLES
from sidecar.storage.s3.configuration import configured_endpoint, require_proxy
from sidecar.storage.s3.errors import translate
from sidecar.storage.s3.session import new_session

FILES = {
    "bad.ini": "not an ini\n",
    "no.pem": "no certificate\n",
    "values.ini": "[default]\nretry_mode = sometimes\n",
    "loop.ini": """[profile a]
source_profile = b
role_arn = arn:aws:iam::1:role/a
[profile b]
source_profile = a
role_arn = arn:aws:iam::1:role/b
[profile fails]
credential_process = false
[profile talks]
credential_process = echo hello
[profile missing]
credential_process = /nowhere/program
[profile sso]
sso_session = nowhere
sso_account_id = 1
sso_role_name = r
""",
}


@pytest.fixture(autouse=True)
def _in_a_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With these files in it, and no home of the developer's."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def translated(error: Exception, operation: str = "list_objects_v2") -> Exception:
    return translate(error, "bucket", None, operation, "key")


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("AWS_PROFILE", "nope", "AWS_PROFILE.*nope"),
        ("AWS_DEFAULT_PROFILE", "nope", "AWS_DEFAULT_PROFILE.*nope"),
        ("AWS_CONFIG_FILE", "bad.ini", "bad.ini"),
        ("AWS_SHARED_CREDENTIALS_FILE", "bad.ini", "bad.ini"),
        ("AWS_CONFIG_FILE", ".", "AWS_CONFIG_FILE: . cannot be read"),
        ("AWS_CONFIG_FILE", "values.ini", "retry_mode in values.ini: 'sometimes'"),
        ("AWS_CA_BUNDLE", "/nowhere.pem", "AWS_CA_BUNDLE: /nowhere.pem"),
        ("AWS_CA_BUNDLE", "no.pem", "AWS_CA_BUNDLE: no.pem .* PEM"),
        ("AWS_CA_BUNDLE", ".", "AWS_CA_BUNDLE: . cannot be used: it is a directory"),
        ("REQUESTS_CA_BUNDLE", "/nowhere.pem", "REQUESTS_CA_BUNDLE: /nowhere.pem"),
        ("AWS_RETRY_MODE", "sometimes", "AWS_RETRY_MODE: 'sometimes'"),
        ("AWS_MAX_ATTEMPTS", "many", "AWS_MAX_ATTEMPTS is not a number"),
        ("AWS_METADATA_SERVICE_TIMEOUT", "long", "AWS_METADATA_SERVICE_TIMEOUT is not a number"),
        ("AWS_REQUEST_CHECKSUM_CALCULATION", "no", "AWS_REQUEST_CHECKSUM_CALCULATION: 'no'"),
        ("AWS_RESPONSE_CHECKSUM_VALIDATION", "no", "AWS_RESPONSE_CHECKSUM_VALIDATION: 'no'"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "no", "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE: "),
    ],
)
def test_what_is_wrong_is_named(name: str, value: str, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exit code 78, before any request."""
    monkeypatch.setenv(name, value)

    def open_session() -> None:
        try:
            new_session()
        except BotoCoreError as error:  # as the client translates it
            raise translated(error) from error

    with pytest.raises(ConfigurationError, match=expected):
        open_session()


@pytest.mark.parametrize(
    ("profile", "kind", "expected"),
    [
        ("a", ConfigurationError, "[Ii]nfinite loop"),
        ("fails", AccessDenied, "custom-process"),
        ("talks", AccessDenied, "credential_process does not print JSON"),
        ("missing", ConfigurationError, "/nowhere/program"),
        ("sso", ConfigurationError, "sso-session does not exist"),
    ],
)
def test_a_profile_that_leads_to_no_credentials_is_not_an_outage(
    profile: str, kind: type[Exception], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_CONFIG_FILE", "loop.ini")
    monkeypatch.setenv("AWS_PROFILE", profile)

    async def find() -> None:
        session = new_session()
        try:
            await (await session.get_credentials()).get_frozen_credentials()
        except (BotoCoreError, OSError, ValueError) as error:
            raise translated(error) from error

    with pytest.raises(kind, match=expected):
        asyncio.run(find())


@pytest.mark.parametrize("name", ["/dev/null", "nowhere.ini", ""])
def test_a_file_that_is_meant_to_be_missing_is_no_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is how the SDK's files are switched off."""
    for variable in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(variable, name)
    new_session()


def test_the_sdk_reads_its_variables_without_white_space(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keys and settings; a variable of white space alone is one that is not set."""
    (tmp_path / "own.ini").write_text("[profile mine]\nregion = here\n")
    for name, value in {
        "AWS_CONFIG_FILE": " own.ini\n",
        "AWS_PROFILE": "mine \n",
        "AWS_CA_BUNDLE": " \n",
        "AWS_ACCESS_KEY_ID": "key\n",
        "AWS_SECRET_ACCESS_KEY": " secret",
    }.items():
        monkeypatch.setenv(name, value)
    session = new_session()
    found = session.get_component("credential_provider").get_provider("env").load
    keys = asyncio.run(found())
    assert (keys.access_key, keys.secret_key) == ("key", "secret")
    assert (session.get_config_variable("region"), session.get_config_variable("ca_bundle")) == ("here", None)


@pytest.mark.parametrize("error", [ConnectTimeoutError(endpoint_url="x"), ReadTimeoutError(endpoint_url="x")])
def test_a_silent_network_stays_an_outage(error: Exception) -> None:
    """The counterpart: these are retried."""
    assert isinstance(translated(error), StoreUnavailable)
    assert isinstance(translated(error, "put_object"), StoreUnavailable | OutcomeUnknown)


def test_control_characters_are_looked_for_in_every_variable_that_the_sdk_reads() -> None:
    """Our list is our own, because loading settings must not import the SDK."""
    tables = (BOTOCORE_DEFAUT_SESSION_VARIABLES, DEFAULT_S3_CONFIG_VARS)
    read: set[str] = set()
    for _, variables, *_ in chain.from_iterable(table.values() for table in tables):
        read.update([variables] if isinstance(variables, str) else variables or [])
    for value in chain(vars(EnvProvider).values(), vars(ContainerProvider).values()):
        names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        read.update(name for name in names if name.startswith("AWS_"))
    assert read <= set(SDK_VARIABLES)


SERVICES = "[default]\n{}\nservices = mine\n[services mine]\ns3 =\n  endpoint_url = {}\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[default]\nendpoint_url = http://all:1\n", "http://all:1"),
        (SERVICES.format("endpoint_url = http://all:1", "http://s3:1"), "http://s3:1"),
        (SERVICES.format("", "http://s3:1"), "http://s3:1"),
        ("[default]\nregion = x\n", None),
        ("[default]\nendpoint_url = http://all:1\nignore_configured_endpoint_urls = true\n", None),
    ],
)
def test_endpoint_of_the_config_file_is_known(monkeypatch: pytest.MonkeyPatch, text: str, expected: str | None) -> None:
    """It belongs to the store's identity, as that of a variable does."""
    Path("endpoint.ini").write_text(text)
    monkeypatch.setenv("AWS_CONFIG_FILE", "endpoint.ini")
    assert configured_endpoint() == expected


@pytest.mark.parametrize(
    "text",
    [
        "[default]\nendpoint_url = http://me:secret@all:1\n",
        SERVICES.format("", "http://me:secret@s3:1"),
        "[default]\nendpoint_url = all:1\n",
    ],
)
def test_endpoint_of_the_config_file_is_checked_and_not_shown(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    Path("endpoint.ini").write_text(text)
    monkeypatch.setenv("AWS_CONFIG_FILE", "endpoint.ini")
    with pytest.raises(ConfigurationError, match=r"endpoint_url in endpoint\.ini is not a URL") as caught:
        configured_endpoint()
    assert "secret" not in str(caught.value)


def test_without_a_config_file_there_is_no_endpoint_in_it() -> None:
    assert configured_endpoint() is None


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy"])
@pytest.mark.parametrize(
    "proxy",
    ["http://", "http://me:secret@host:none", "socks5://secret:1080", "http://host:0", "host:99999", "http://[::1"],
)
def test_a_proxy_that_is_none_is_named_and_not_shown(
    variable: str, proxy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request would fail, and be retried as in an outage."""
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(ConfigurationError, match=rf"^{variable} is not the URL of an HTTP proxy") as caught:
        require_proxy("http://store.example:8333")
    assert "secret" not in str(caught.value)
    require_proxy("https://store.example")  # HTTPS_PROXY is another variable
    monkeypatch.setenv("NO_PROXY", "store.example")
    require_proxy("http://store.example:8333")


@pytest.mark.parametrize("proxy", ["http://proxy:3128", "https://me:secret@proxy", "proxy:3128", "//proxy:3128"])
def test_a_proxy_may_lack_the_scheme(proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", proxy)
    require_proxy("http://store.example:8333")
