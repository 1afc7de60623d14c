"""The HTTP server behind the daemon's sockets. It is loaded with its first client, or when the app runs.

The server's library takes longer to import than a small database to restore, and the app waits for neither. Clients that
come before it is there wait in the queues of the sockets.
"""

import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from functools import partial

import anyio
from anyio import to_thread

from sidecar.log import log
from sidecar.status import Kind, Status

# Takes the sockets that anybody may reach, and those that only we may.
Load = Callable[[Sequence[socket.socket], Sequence[socket.socket]], AbstractAsyncContextManager[None]]


class Server:
    """Serves the sockets, once that is needed. Its failure ends nothing else."""

    def __init__(self, load: Load, status: Status) -> None:
        """`load` is called in a thread, and returns the context in which the sockets are served."""
        self._load = load
        self._status = status
        self._app_runs = anyio.Event()

    async def load(self) -> None:
        """Load the server now, because the app runs."""
        self._app_runs.set()

    @asynccontextmanager
    async def running(self, public: Sequence[socket.socket], private: Sequence[socket.socket]) -> AsyncIterator[None]:
        """Serve both kinds of sockets until the block ends, and close them."""
        with ExitStack() as stack:
            for each in (*public, *private):
                stack.enter_context(each)
            async with anyio.create_task_group() as group:
                if public or private:
                    group.start_soon(self._run, public, private)
                try:
                    yield
                finally:
                    group.cancel_scope.cancel()

    async def _run(self, public: Sequence[socket.socket], private: Sequence[socket.socket]) -> None:
        try:
            await self._until_needed((*public, *private))
            async with await to_thread.run_sync(self._load, public, private):
                await anyio.sleep_forever()
        except Exception as error:
            log.exception("HTTP interface failed because of a bug; the app and its backups continue")
            self._status.report("", f"bug: {error!r}", "please report it with the log", Kind.FAILURE)

    async def _until_needed(self, sockets: Sequence[socket.socket]) -> None:
        async with anyio.create_task_group() as group:

            async def wait(one: Callable[[], Awaitable[object]]) -> None:
                await one()
                group.cancel_scope.cancel()

            group.start_soon(wait, self._app_runs.wait)
            for each in sockets:
                group.start_soon(wait, partial(anyio.wait_readable, each))
