"""What the control socket answers beyond the read-only HTTP interface; its client is `host.control`."""

import json
from collections.abc import Awaitable, Callable
from contextlib import suppress

import anyio
from aiohttp import web

from sidecar.status import Status

ANSWER_SECONDS = 10.0
PROGRESS_SECONDS = 0.25


def add_backup(
    application: web.Application, status: Status, backup: Callable[[], Awaitable[dict[str, object]]]
) -> web.Application:
    """Let an application answer to POST `/backup`. Whoever reaches it may have a restore point published."""

    async def on_backup(request: web.Request) -> web.StreamResponse:
        return await _back_up(request, status, backup)

    application.router.add_post("/backup", on_backup)
    return application


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
