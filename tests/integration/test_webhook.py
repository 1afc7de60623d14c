"""Webhooks over HTTP, against a real server: their content, which errors are retried, and no leak of the URL."""

import traceback
from collections.abc import Iterator

import aiohttp
import anyio
import pytest

from sidecar.errors import SidecarError, Undeliverable, Undelivered
from sidecar.monitoring.webhook import Webhook
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.receiver import SECRET, Receiver, receiving

pytestmark = pytest.mark.anyio


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as started:
        yield started


async def failure(url: str, timeout: float = 5.0) -> SidecarError:
    with pytest.raises(SidecarError) as caught:
        await Webhook("notify[1]", url, aiohttp.ClientTimeout(total=timeout)).send({"text": "x"})
    assert SECRET not in "".join(traceback.format_exception(caught.value))
    return caught.value


async def test_content_is_posted_as_json_and_a_beat_is_a_get(receiver: Receiver) -> None:
    webhook = Webhook("notify[1]", receiver.url)
    await webhook.send({"text": "größe 数", "kind": "failure"})
    await webhook.send(None)
    assert receiver.posts == [{"text": "größe 数", "kind": "failure"}]
    assert receiver.gets == [f"/services/{SECRET}"]


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (500, Undelivered),
        (503, Undelivered),
        (429, Undelivered),
        (408, Undelivered),
        (400, Undeliverable),
        (404, Undeliverable),
        (410, Undeliverable),
        (302, Undeliverable),
    ],
)
async def test_answers(receiver: Receiver, status: int, kind: type[SidecarError]) -> None:
    """A server error may pass, a client error will not; redirects are not followed."""
    receiver.status = status
    assert type(await failure(receiver.url)) is kind
    assert receiver.calls == 1


async def test_slow_receiver_costs_no_more_than_the_timeout(receiver: Receiver) -> None:
    receiver.slow = True
    with anyio.fail_after(5):
        assert type(await failure(receiver.url, timeout=0.2)) is Undelivered


async def test_receiver_that_refuses_connections_may_come_back() -> None:
    assert type(await failure(f"http://{LOOPBACK}:{free_port()}/{SECRET}")) is Undelivered


@pytest.mark.parametrize("url", [f"http://no such host.invalid/{SECRET}", f"http://[::1/{SECRET}", f"http:///{SECRET}"])
async def test_unusable_url_leaks_nothing(url: str) -> None:
    await failure(url)
