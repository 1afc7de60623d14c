"""Implements `Receiver` over HTTP: webhooks, and heartbeats as healthchecks.io expects them.

The URL is the credential. aiohttp's messages may quote it, so none of them is passed on.
"""

from collections.abc import Mapping

import aiohttp

from sidecar.errors import Undeliverable, Undelivered

TIMEOUT = aiohttp.ClientTimeout(total=10)
LATER = {408, 425, 429}


class Webhook:
    """A webhook. Redirects are not followed: they would send the message to an address that nobody configured."""

    def __init__(self, name: str, url: str, timeout: aiohttp.ClientTimeout = TIMEOUT) -> None:
        self.name = name
        self._url = url
        self._timeout = timeout

    async def send(self, content: Mapping[str, object] | None) -> None:
        """See `Receiver`."""
        try:
            status = await self._request(content)
        except (aiohttp.InvalidURL, ValueError):
            raise Undeliverable(f"{self.name} is not a usable URL") from None
        except TimeoutError:
            raise Undelivered(f"{self.name} did not answer in time") from None
        except (aiohttp.ClientError, OSError) as error:
            raise Undelivered(f"{self.name} is unreachable: {type(error).__name__}") from None
        if status in LATER or status >= 500:
            raise Undelivered(f"{self.name} answered with {status}")
        if not 200 <= status < 300:
            raise Undeliverable(f"{self.name} answered with {status}", "check its URL")

    async def _request(self, content: Mapping[str, object] | None) -> int:
        async with (
            aiohttp.ClientSession(timeout=self._timeout) as session,
            session.request(
                "GET" if content is None else "POST", self._url, json=content, allow_redirects=False
            ) as reply,
        ):
            return reply.status
