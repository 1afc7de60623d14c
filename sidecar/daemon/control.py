"""The server of the control socket; its client is `host.control`."""

import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import anyio
from aiohttp import web

from sidecar.errors import ConfigurationError
from sidecar.monitoring.http import serving
from sidecar.status import Status

ANSWER_SECONDS = 10.0
PROGRESS_SECONDS = 0.25


@asynccontextmanager
async def control_socket(
    path: Path, application: web.Application, status: Status, backup: Callable[[], Awaitable[dict[str, object]]]
) -> AsyncIterator[None]:
    """Serve the application and POST `/backup` on a unix socket that only the owner of this process can connect to.

    Raises `ConfigurationError` when the socket cannot be created.
    """

    async def on_backup(request: web.Request) -> web.StreamResponse:
        return await _back_up(request, status, backup)

    application.router.add_post("/backup", on_backup)
    async with serving(application) as runner:
        await _listen_privately(runner, path)
        try:
            yield
        finally:
            path.unlink(missing_ok=True)


async def _back_up(
    request: web.Request, status: Status, backup: Callable[[], Awaitable[dict[str, object]]]
) -> web.StreamResponse:
    """Answer with progress, one JSON object a line, and the outcome in the last line.

    The backup is completed even when the client disconnects, and a client that never reads does not hold it up.
    """
    reply = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
    try:
        await reply.prepare(request)
    except ConnectionError:
        return reply
    async with anyio.create_task_group() as group:
        group.start_soon(_send_progress, reply, status)
        answer = await backup()
        group.cancel_scope.cancel()
    with anyio.move_on_after(ANSWER_SECONDS), suppress(ConnectionError):
        await reply.write(json.dumps({"answer": answer}).encode() + b"\n")
        await reply.write_eof()
    return reply


async def _send_progress(reply: web.StreamResponse, status: Status) -> None:
    sent = (0, 0)
    with suppress(ConnectionError):
        while True:
            await anyio.sleep(PROGRESS_SECONDS)
            done, total = (sum(each) for each in zip((0, 0), *status.publishing.values(), strict=True))
            if total and (done, total) != sent:
                sent = (done, total)
                await reply.write(json.dumps({"done": done, "total": total}).encode() + b"\n")


async def _listen_privately(runner: web.AppRunner, path: Path) -> None:
    """Listen on a unix socket that only its owner can reach. Raises `ConfigurationError`."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.parent.stat().st_uid != os.getuid():
            raise ConfigurationError(f"{path.parent} belongs to another user", "set control_socket to another path")
        path.unlink(missing_ok=True)
        await web.UnixSite(runner, str(path)).start()
        path.chmod(0o600)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on the control socket {path}: {error}", "set control_socket to a short path, or to off"
        ) from error
