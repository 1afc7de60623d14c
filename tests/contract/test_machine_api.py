"""fly.io's machine API as a source of tokens: what it answers, and what else may listen where it should."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from sidecar.errors import AccessDenied, ConfigurationError, SidecarError, TokenUnavailable
from sidecar.storage.s3.tokens import MachineApi
from tests.harness.fly_machine import FlyMachine, Issuer, Reply

pytestmark = pytest.mark.anyio


@pytest.fixture
def fly() -> Iterator[FlyMachine]:
    with FlyMachine(Issuer()) as machine:
        yield machine


async def test_the_machine_gives_another_token_each_time(fly: FlyMachine) -> None:
    source = MachineApi(fly.socket)
    tokens = [await source.read(), await source.read()]
    assert tokens[0].text != tokens[1].text
    assert [token.audience for token in tokens] == ["sts.amazonaws.com"] * 2
    assert fly.minted == 2


@pytest.mark.parametrize(
    ("reply", "kind", "word"),
    [
        (Reply(200, "<html>", "text/html"), ConfigurationError, "text/html, 6 bytes"),
        (Reply(200, "x" * 100_000), ConfigurationError, "65536 bytes"),
        (Reply(200, " \n"), TokenUnavailable, "sends an empty answer"),
        (Reply(302, ""), ConfigurationError, "302"),
        (Reply(404, "no"), ConfigurationError, "404"),
        (Reply(401, "no"), AccessDenied, "401"),
        (Reply(403, "no"), AccessDenied, "403"),
        (Reply(429, "no"), TokenUnavailable, "429"),
        (Reply(500, "eyJhbGciOi"), TokenUnavailable, "500"),
        (Reply(503, "no"), TokenUnavailable, "503"),
    ],
)
async def test_other_answers_are_named(reply: Reply, kind: type[SidecarError], word: str, fly: FlyMachine) -> None:
    """Once more or never: by what it is. The answer itself may be a secret."""
    fly.reply = reply
    with pytest.raises(kind, match=word) as caught:
        await MachineApi(fly.socket).read()
    assert type(caught.value) is kind
    assert str(fly.socket) in caught.value.message
    assert "eyJ" not in str(caught.value)


async def test_sockets_that_are_none_are_named(tmp_path: Path) -> None:
    """Not there; a file; a name that is too long for a socket."""
    (tmp_path / "file").touch()
    with pytest.raises(TokenUnavailable, match="no process listens"):
        await MachineApi(tmp_path / "file").read()
    for path in (tmp_path / "missing", tmp_path / ("x" * 200)):
        with pytest.raises(SidecarError, match=r"missing|xxxx") as caught:
            await MachineApi(path).read()
        assert caught.value.hint
