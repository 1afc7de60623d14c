"""What the daemon does for those who ask over HTTP: POST `/backup` on the control socket, and POST `/wait`.

The client for the control socket is `host.control`.
"""

import asyncio
import json
import math
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address

import anyio
from aiohttp import web

from sidecar.errors import UsageError
from sidecar.host.control import DEFAULT_WAIT, wait_timeout
from sidecar.status import Status

Wait = Callable[[str | None, float], Awaitable[dict[str, object]]]

ANSWER_SECONDS = 10.0
PROGRESS_SECONDS = 0.25
GONE_SECONDS = 1.0  # between looks whether a client has hung up


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


def add_wait(application: web.Application, wait: Wait) -> web.Application:
    """Let an application answer to POST `/wait?database=NAME&timeout=5s` from this machine.

    200 says that everything committed before the request is stored. Everything else says that this is not known: 503 with
    the reason, and `Retry-After` where asking again may help; 400 for a wrong request, 404 for another database. The body is
    what `OnDemand.confirm` returns.
    """

    async def on_wait(request: web.Request) -> web.Response:
        if not is_local(request):
            return _refused(
                403, "only programs on this machine may wait", "use the loopback address or the control socket"
            )
        try:
            timeout = wait_timeout(request.query.get("timeout", DEFAULT_WAIT))
        except UsageError as error:
            return _refused(400, error.message, error.hint)
        with anyio.CancelScope() as scope, _cancelling_when_gone(request, scope):
            return await _waited(wait, request.query.get("database"), timeout.total_seconds())
        return web.Response(status=503)  # for one who has gone

    application.router.add_post("/wait", on_wait)
    return application


async def _waited(wait: Wait, database: str | None, timeout: float) -> web.Response:
    try:
        answer = await wait(database, timeout)
    except UsageError as error:
        return _refused(404, error.message, error.hint)
    if answer["stored"]:
        return web.json_response(answer)
    again = answer["retry_after"]
    headers = {"Retry-After": str(math.ceil(again))} if isinstance(again, int | float) else {}
    return web.json_response(answer, status=503, headers=headers)


@contextmanager
def _cancelling_when_gone(request: web.Request, scope: anyio.CancelScope) -> Iterator[None]:
    """Nobody waits for a client that has hung up. aiohttp would cancel every handler of such a client, or none.

    It is a timer and not a task, whose start and end would take longer than everything else that an answer takes.
    """
    loop = asyncio.get_running_loop()
    timer: asyncio.TimerHandle

    def look() -> None:
        nonlocal timer
        if request.transport is None:
            scope.cancel()
        else:
            timer = loop.call_later(GONE_SECONDS, look)

    timer = loop.call_later(GONE_SECONDS, look)
    try:
        yield
    finally:
        timer.cancel()


def _refused(status: int, error: str, hint: str) -> web.Response:
    return web.json_response({"stored": False, "error": error, "hint": hint, "retry_after": None}, status=status)


def is_local(request: web.Request) -> bool:
    """Whether the client is on this machine: it came through the unix socket, or from a loopback address."""
    peer = request.transport.get_extra_info("peername") if request.transport else None
    if not isinstance(peer, tuple):
        return isinstance(peer, str | bytes)
    address = ip_address(peer[0].partition("%")[0])
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
