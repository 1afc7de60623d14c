"""Web-identity tokens: what is one, and what is read from a file that somebody is writing."""

import base64
import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from sidecar.errors import ConfigurationError, TokenUnavailable
from sidecar.storage.s3.tokens import PATIENCE, TokenFile, decode
from tests.fakes import FakeClock
from tests.harness.fly_machine import Issuer

ISSUER = Issuer()


def jwt(payload: object, head: object = None, signature: str = "c2lnbmF0dXJlLW9mLWEtdG9rZW4") -> bytes:
    parts = [head or {"alg": "RS256"}, payload]
    encoded = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*encoded, signature]).encode()


def test_a_token_says_who_it_is_for_and_never_itself() -> None:
    """Neither str nor repr of what was decoded has a part of the token."""
    text = ISSUER.token()
    token = decode(text.encode())
    assert token is not None
    assert token.text == text
    assert (token.issuer, token.audience) == ("https://oidc.fly.io/acme", "sts.amazonaws.com")
    assert token.subject == "acme:shop:winter-sun-7421"
    assert token.expires is not None
    assert 500 < (token.expires - datetime.now(UTC)).total_seconds() <= 600
    assert all(part not in f"{token!r} {token}" for part in text.split("."))


@pytest.mark.parametrize("cut", [0, 1, 50, 200, 400, 600, -20, -330, -342])
def test_every_half_written_token_is_none(cut: int) -> None:
    """Unless all that is missing is a piece of the signature: whoever verifies it will say so."""
    text = ISSUER.token().encode()
    assert decode(text[:cut]) is None or len(text[:cut].rpartition(b".")[2]) >= 16


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\n",
        b"<html>",
        b"a.b.c",
        b"..",
        b"\xff\xfe",
        jwt("text"),
        jwt([1]),
        jwt({"exp": "soon"}),
        jwt({"exp": 1e300}),
        jwt({}, head=[1]),
        jwt({}, head={"typ": "JWT"}),
        jwt({}, signature=""),
        jwt({}, signature="!!!!!!!!!!!!!!!!!!!!"),
        jwt({}) + b".more",
    ],
)
def test_what_is_no_token_is_none(data: bytes) -> None:
    assert decode(data) is None


def test_claims_may_be_absent_or_lists() -> None:
    token = decode(jwt({"aud": ["a", "b"]}) + b"\n")
    assert token is not None
    assert (token.issuer, token.audience, token.subject, token.expires) == ("", "a b", "", None)


@pytest.mark.anyio
async def test_a_file_is_read_anew_each_time(tmp_path: Path) -> None:
    file, first, second = tmp_path / "token", ISSUER.token(), ISSUER.token()
    source = TokenFile(file, FakeClock())
    for text in (first, second):
        file.write_text(f"{text}\n")
        assert (await source.read()).text == text


class _Platform(FakeClock):
    """Writes the file while it is waited for: first a half, then the whole."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self._file = file
        self.text = ISSUER.token()

    async def sleep(self, seconds: float) -> None:
        """See `ports.Clock`."""
        await super().sleep(seconds)
        self._file.write_text(self.text[:100] if len(self.sleeps) < 3 else self.text)


@pytest.mark.anyio
async def test_a_file_that_is_being_written_is_waited_for(tmp_path: Path) -> None:
    clock = _Platform(tmp_path / "token")
    assert (await TokenFile(tmp_path / "token", clock).read()).text == clock.text
    assert len(clock.sleeps) == 3


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("content", "word"), [(None, "does not exist"), ("", "is empty"), (" \n", "is empty"), ("eyJhbGci", "8 bytes")]
)
async def test_a_file_without_a_token_is_waited_for_in_vain(content: str | None, word: str, tmp_path: Path) -> None:
    """Not for long: whoever asks has patience of its own, and should know the reason. What is in it is not shown."""
    clock, file = FakeClock(), tmp_path / "token"
    if content is not None:
        file.write_text(content)
    with pytest.raises(TokenUnavailable, match=word) as caught:
        await TokenFile(file, clock).read()
    assert PATIENCE <= clock.elapsed < 2 * PATIENCE
    assert str(file) in caught.value.message
    assert "eyJ" not in str(caught.value)


@pytest.mark.anyio
async def test_a_file_that_may_not_be_read_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="cannot be read"):
        await TokenFile(tmp_path, FakeClock()).read()
