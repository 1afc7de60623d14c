"""Credentials by their variables: what is refused before anything starts, and what the app gets to see."""

import pytest

from sidecar.errors import ConfigurationError
from sidecar.settings.environment import CREDENTIAL_VARIABLES, SDK_VARIABLES, app_environment, read_environment
from sidecar.settings.load import load

ROLE = "arn:aws:iam::123456789012:role/sidecar/sidecar-writer-shop"
S3 = {"SIDECAR_DATABASES": "/data/app.db", "SIDECAR_STORE": "s3://bucket/shop"}
GOOD = {**S3, "AWS_ROLE_ARN": ROLE, "AWS_REGION": "eu-central-1"}


@pytest.mark.parametrize("role", [ROLE, "arn:aws-cn:iam::123456789012:role/x", "arn:aws:iam::role/NAME"])
def test_roles_of_every_partition_and_of_other_stores_are_taken(role: str) -> None:
    environment = load(
        {}, {**GOOD, "AWS_ROLE_ARN": role, "AWS_WEB_IDENTITY_TOKEN_FILE": "/.fly/oidc_token"}
    ).environment
    assert (environment.role_arn, environment.token_file) == (role, "/.fly/oidc_token")


@pytest.mark.parametrize(
    ("environ", "word"),
    [
        (
            {**GOOD, "AWS_ACCESS_KEY_ID": "k", "AWS_SECRET_ACCESS_KEY": "s"},
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        ),
        ({**GOOD, "AWS_SESSION_TOKEN": "t"}, "AWS_SESSION_TOKEN"),
        ({**GOOD, "AWS_ROLE_ARN": "sidecar-writer"}, "'sidecar-writer' is not the ARN"),
        ({**GOOD, "AWS_ROLE_ARN": ROLE + " x"}, "is not the ARN"),
        ({**GOOD, "AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/"}, "is not the ARN"),
        ({**GOOD, "AWS_ROLE_ARN": "arn:aws:iam::123456789012:user/x"}, "is not the ARN"),
        ({**GOOD, "AWS_REGION": ""}, "no region"),
        ({**S3, "AWS_WEB_IDENTITY_TOKEN_FILE": "/token"}, "without AWS_ROLE_ARN"),
    ],
)
def test_what_contradicts_itself_is_refused_by_name(environ: dict[str, str], word: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        load({}, environ)
    assert word in str(caught.value)
    assert caught.value.hint


def test_surrounding_white_space_of_the_sdks_variables_does_not_count() -> None:
    environ = {**GOOD, "AWS_ROLE_ARN": f" {ROLE}\n", "AWS_REGION": "eu-central-1\n", "AWS_ACCESS_KEY_ID": " \n"}
    environment = load({}, environ | {"AWS_ENDPOINT_URL_S3": "http://x:1\n"}).environment
    assert (environment.role_arn, environment.region, environment.static_keys) == (ROLE, "eu-central-1", ())
    assert environment.endpoint == "http://x:1"


@pytest.mark.parametrize("name", SDK_VARIABLES)
def test_a_control_character_within_the_sdks_variables_is_refused_by_name(name: str) -> None:
    """Found in the middle of a request otherwise, where it looks like a network that is down."""
    with pytest.raises(ConfigurationError) as caught:
        load({}, {**S3, name: "wJalr\nXUtn"})
    assert str(caught.value).startswith(f"{name} contains a control character")
    assert "wJalr" not in str(caught.value)


def test_a_store_that_needs_no_credentials_does_not_mind() -> None:
    load(
        {},
        {**GOOD, "SIDECAR_STORE": "file:///store", "AWS_ACCESS_KEY_ID": "k", "AWS_REGION": "", "AWS_PROFILE": "a\nb"},
    )


def test_empty_variables_are_not_set() -> None:
    environment = load({}, {**GOOD, "AWS_ACCESS_KEY_ID": "", "AWS_WEB_IDENTITY_TOKEN_FILE": ""}).environment
    assert (environment.static_keys, environment.token_file) == ((), None)


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        ({"FLY_MACHINE_ID": "148e2"}, "sidecar-148e2"),
        ({"AWS_ROLE_SESSION_NAME": "shop:148e2/ä", "FLY_MACHINE_ID": "x"}, "shop-148e2--"),
        ({"FLY_MACHINE_ID": "x" * 100}, f"sidecar-{'x' * 56}"),
        ({"AWS_ROLE_SESSION_NAME": "x"}, "x-"),
    ],
)
def test_sessions_are_named_as_the_service_allows(environ: dict[str, str], name: str) -> None:
    """[\\w+=,.@-]{2,64}: API_AssumeRoleWithWebIdentity."""
    assert read_environment(environ).session_name == name


def test_the_token_service_has_an_endpoint_of_its_own_or_shares_one() -> None:
    shared = {"AWS_ENDPOINT_URL": "http://x"}
    assert read_environment(shared).sts_endpoint == "http://x"
    assert read_environment({**shared, "AWS_ENDPOINT_URL_STS": "http://y"}).sts_endpoint == "http://y"
    assert read_environment({"AWS_ENDPOINT_URL_S3": "http://z"}).sts_endpoint is None


def test_withheld_are_credentials_and_nothing_else() -> None:
    others = {
        "PATH": "/bin",
        "AWS_REGION": "x",
        "AWS_ENDPOINT_URL_S3": "x",
        "SIDECAR_STORE": "x",
        "AWS_MAX_ATTEMPTS": "2",
    }
    environ = {**others, **dict.fromkeys(CREDENTIAL_VARIABLES, "secret")}
    assert app_environment(withhold=True, environ=environ) == others
    assert app_environment(withhold=False, environ=environ) == environ
