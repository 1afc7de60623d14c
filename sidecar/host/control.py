"""The other end of the daemon's control socket, for commands on the same machine."""

import json
from collections.abc import Awaitable, Callable
from pathlib import Path

import aiohttp

from sidecar.errors import DatabaseBusy

ANSWER_SECONDS = 10.0


class ControlClient:
    """The other end of the control socket."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def status(self) -> dict[str, object] | None:
        """The daemon's status, or None when no daemon listens."""

        async def read(reply: aiohttp.ClientResponse) -> dict[str, object]:
            return dict(await reply.json())

        return await self._request("GET", "/status", read, ANSWER_SECONDS)

    async def backup(self, progress: Callable[[int, int], None]) -> dict[str, object] | None:
        """Have every database backed up now; None when no daemon listens. `progress` is told bytes done, bytes in all."""

        async def read(reply: aiohttp.ClientResponse) -> dict[str, object]:
            async for line in reply.content:
                told = json.loads(line)
                if "answer" in told:
                    return dict(told["answer"])
                progress(told["done"], told["total"])
            raise aiohttp.ClientPayloadError("it ended without an answer")

        return await self._request("POST", "/backup", read)

    async def _request(
        self,
        method: str,
        path: str,
        read: Callable[[aiohttp.ClientResponse], Awaitable[dict[str, object]]],
        seconds: float | None = None,
    ) -> dict[str, object] | None:
        connector = aiohttp.UnixConnector(str(self._path))
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=5)
        try:
            async with (
                aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
                session.request(method, f"http://sidecar{path}") as reply,
            ):
                return await read(reply)
        except (aiohttp.ClientConnectorError, FileNotFoundError):
            return None
        except TimeoutError as error:
            raise DatabaseBusy("the daemon does not answer", "is it stopped, or the machine overloaded?") from error
        except (aiohttp.ClientError, ValueError) as error:
            raise DatabaseBusy("the daemon ended while it was asked", "ask again, or look at its log") from error
