"""Requests of every kind to an S3 store, and what is asked of the errors they end in."""

from collections.abc import Awaitable, Callable

import pytest

from sidecar.errors import SidecarError
from sidecar.model import IfAbsent, Span
from sidecar.storage.s3.store import S3Store
from tests.harness.seaweed import ADMIN, READER

KEY = "app.db/20261120T145503.123Z.sqlite3.zst"
NEW = "app.db/20261120T150003.123Z.sqlite3.zst"
DATA = bytes(range(256)) * 4096
SECRETS = (ADMIN[1], READER[1], "wrong-secret", "AWS4-HMAC", "X-Amz-Signature", "Authorization")

Request = Callable[[S3Store], Awaitable[object]]


async def _upload(store: S3Store) -> None:
    async with store.upload(NEW, metadata={}) as upload:
        await upload.put_part(1, 0, DATA)
        await upload.complete()


REQUESTS: dict[str, Request] = {
    "get": lambda store: store.get(KEY),
    "get span": lambda store: store.get(KEY, span=Span(-10)),
    "head": lambda store: store.head(KEY),
    "list": lambda store: store.list("app.db/"),
    "put": lambda store: store.put(KEY, DATA),
    "put if absent": lambda store: store.put(NEW, DATA, condition=IfAbsent()),
    "upload": _upload,
    "now": lambda store: store.now(),
}
WRITES = ("put", "put if absent", "upload")
READS = tuple(name for name in REQUESTS if name not in WRITES)


def use(monkeypatch: pytest.MonkeyPatch, keys: tuple[str, str]) -> None:
    """Credentials for the SDK of this process."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", keys[0])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", keys[1])


async def failure(request: Awaitable[object]) -> SidecarError:
    """The error a request ends in; it tells no secret, and is made of words."""
    with pytest.raises(SidecarError) as caught:
        await request
    text = f"{caught.value} {caught.value.__cause__}"
    assert not [secret for secret in SECRETS if secret in text]
    assert "\n" not in str(caught.value)
    return caught.value
