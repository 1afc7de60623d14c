"""Asks whether what was committed is stored where no machine's end can reach it, before a visitor is told that it is kept."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp

_SECONDS = 30.0  # more than whoever is asked takes for an answer


class NotConfirmed(Exception):
    """It is not known to be stored. `again` is after how many seconds it may be, None where nobody knows."""

    def __init__(self, reason: str, again: int | None) -> None:
        super().__init__(reason)
        self.again = again


class Confirmation:
    """Whoever answers a POST to this address with 200 once everything that was committed before it is stored."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self._session = session
        self._url = url

    async def require(self) -> None:
        """Return once it is stored. Raises `NotConfirmed` for every other answer, and without one."""
        try:
            async with self._session.post(self._url) as answer:
                body = await answer.read()
                if answer.status == 200:
                    return
                again = answer.headers.get("Retry-After", "")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise NotConfirmed(str(error) or type(error).__name__, 1) from error
        raise NotConfirmed(_reason(body) or f"status {answer.status}", int(again) if again.isdecimal() else None)


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, LookupError, TypeError):
        return ""


@asynccontextmanager
async def confirmation(url: str) -> AsyncIterator[Confirmation | None]:
    """Nobody is asked without an address."""
    if not url:
        yield None
        return
    # As many at once as visitors write: each of them is asked for alone, and they are answered together.
    async with aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0), timeout=aiohttp.ClientTimeout(total=_SECONDS)
    ) as session:
        yield Confirmation(session, url)
