"""The client of the daemon's control socket, for other processes on the same machine."""

import json
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import NoReturn
from urllib.parse import urlencode

import aiohttp

from sidecar.errors import ConfigurationError, DatabaseBusy, UsageError
from sidecar.host.locks import Holder, holder_of
from sidecar.model import Database
from sidecar.progress import Progress
from sidecar.units import format_duration, parse_duration

ANSWER_SECONDS = 1.5
LATE_SECONDS = 10.0  # beyond the timeout of a wait: its answer says more than that there was none
DEFAULT_WAIT = timedelta(seconds=5)
_SHORTEST_WAIT, _LONGEST_WAIT = timedelta(milliseconds=10), timedelta(minutes=10)


def wait_timeout(value: str | float | timedelta) -> timedelta:
    """How long somebody waits until what was committed is stored; a number is in seconds. Raises `UsageError`."""
    hint = "it is a duration from 10ms to 10m, like 5s"
    try:
        timeout = timedelta(seconds=value) if isinstance(value, int | float) else parse_duration(value)
    except (ValueError, OverflowError) as error:
        raise UsageError(f"timeout: {error}", hint) from error
    if not _SHORTEST_WAIT <= timeout <= _LONGEST_WAIT:
        raise UsageError(f"timeout: {format_duration(timeout)} is not between 10ms and 10m", hint)
    return timeout


async def ask_for_status(databases: Sequence[Database], store: str, endpoint: str = "") -> dict[str, object] | None:
    """The status of the daemon that protects one of these databases, or None if none with a control socket does.

    Raises `ConfigurationError` if the daemon uses another store, and `DatabaseBusy` if it does not answer.
    """
    for database in databases:
        holder = _holder_of(database, store, endpoint)
        if holder and holder.control:  # without a socket it is another command, or `control_socket=off`
            return await ControlClient(Path(holder.control)).status() or _no_answer(holder, database)
    return None


async def ask_for_backup(
    databases: Sequence[Database], store: str, progress: Progress, endpoint: str = ""
) -> dict[str, object] | None:
    """Ask the daemon that protects one of these databases to back up all that it protects. None if no daemon runs.

    Raises what `ask_for_status` raises, and `DatabaseBusy` for a daemon without a control socket.
    """
    for database in databases:
        if holder := _holder_of(database, store, endpoint):
            client = ControlClient(Path(holder.control)) if holder.control else None
            return (await client.backup(progress) if client else None) or _no_answer(holder, database)
    return None


async def ask_to_wait(
    databases: Sequence[Database], store: str, name: str | None, timeout: timedelta, endpoint: str = ""
) -> dict[str, object] | None:
    """Wait until what was committed is stored, as the daemon that protects one of these databases says; None if none runs.

    Raises what `ask_for_backup` raises.
    """
    for database in databases:
        if holder := _holder_of(database, store, endpoint):
            client = ControlClient(Path(holder.control)) if holder.control else None
            return (await client.wait(name, timeout) if client else None) or _no_answer(holder, database)
    return None


def _holder_of(database: Database, store: str, endpoint: str) -> Holder | None:
    holder = holder_of(database)
    if holder and not holder.protects_with(store, endpoint):
        same = f"store {holder.store}" if holder.store != store else "same AWS_ENDPOINT_URL_S3"
        raise ConfigurationError(
            f"a sidecar (pid {holder.pid}) protects {database.path} with another store: {holder.place}",
            f"use the {same}, or stop that sidecar",
        )
    return holder


def _no_answer(holder: Holder, database: Database) -> NoReturn:
    raise DatabaseBusy(
        f"a sidecar (pid {holder.pid}) protects {database.path} and does not answer",
        "if it is another command, try again when it has ended; if it is a daemon, its `control_socket` may be off",
    )


class ControlClient:
    """Talks to a daemon through its control socket. Raises `DatabaseBusy` if the daemon does not answer or ends first."""

    def __init__(self, path: Path) -> None:
        self._path = path

    async def status(self) -> dict[str, object] | None:
        """The daemon's status, or None if no daemon listens."""

        async def read(reply: aiohttp.ClientResponse) -> dict[str, object]:
            return dict(await reply.json())

        return await self._request("GET", "/status", read, ANSWER_SECONDS)

    async def backup(self, progress: Callable[[int, int], None]) -> dict[str, object] | None:
        """Back up every database now; None if no daemon listens. `progress` is called with (bytes done, total bytes)."""

        async def read(reply: aiohttp.ClientResponse) -> dict[str, object]:
            async for line in reply.content:
                message = json.loads(line)
                if "answer" in message:
                    return dict(message["answer"])
                progress(message["done"], message["total"])
            raise aiohttp.ClientPayloadError("the reply ended without an answer")

        return await self._request("POST", "/backup", read)

    async def wait(self, name: str | None, timeout: timedelta) -> dict[str, object] | None:
        """Wait until what was committed is stored; None if no daemon listens. The answer is that of POST `/wait`."""

        async def read(reply: aiohttp.ClientResponse) -> dict[str, object]:
            if reply.content_type != "application/json":  # from a version that does not know `/wait`
                raise aiohttp.ClientPayloadError("the daemon cannot wait")
            return dict(await reply.json())

        query = urlencode({"timeout": format_duration(timeout)} | ({"database": name} if name else {}))
        return await self._request("POST", f"/wait?{query}", read, timeout.total_seconds() + LATE_SECONDS)

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
            raise DatabaseBusy(
                "the daemon does not answer", "check whether it is suspended or the machine overloaded, and try again"
            ) from error
        except (aiohttp.ClientError, ValueError) as error:
            raise DatabaseBusy("the daemon exited before it answered", "try again, or read its log") from error
