"""A faulty network: an HTTP proxy in front of the S3 server, scripted by the test while it runs.

It runs in a thread with its own event loop, so that synchronous and asynchronous tests can use it. Requests pass
unchanged, including Host, so signatures stay valid.
"""

import asyncio
import threading
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Self

from tests.harness.eventually import eventually
from tests.harness.exchange import Exchange, Seen, Wire
from tests.harness.faults import (
    SLOW_DOWN,
    Answer,
    CloseMidBody,
    Compress,
    Direction,
    DropReply,
    Fault,
    Insist,
    Pass,
    Refuse,
    RefuseTags,
    ResetMidBody,
    Stall,
    Strip,
    StripReply,
    Throttle,
    TruncateReply,
    s3_error,
)
from tests.harness.http1 import Head, read_head
from tests.harness.imitations import Imitation
from tests.harness.ports import LOOPBACK, free_port

__all__ = [
    "SLOW_DOWN",
    "Answer",
    "CloseMidBody",
    "Compress",
    "Direction",
    "DropReply",
    "Fault",
    "FaultProxy",
    "Insist",
    "Pass",
    "Refuse",
    "RefuseTags",
    "ResetMidBody",
    "Rule",
    "Seen",
    "Stall",
    "Strip",
    "StripReply",
    "Throttle",
    "TruncateReply",
    "s3_error",
]


@dataclass(frozen=True, slots=True)
class _Filter:
    """A filter for requests; an omitted field matches everything."""

    method: str | None = None
    path_contains: str = ""
    query_contains: str = ""

    def matches(self, seen: Seen) -> bool:
        fits = self.method in (None, seen.method)
        return fits and self.path_contains in seen.path and self.query_contains in seen.query


@dataclass(slots=True)
class Rule:
    """A fault and the requests that it applies to. `hits` counts them."""

    fault: Fault
    filter: _Filter = field(default_factory=_Filter)
    times: int | None = None
    skip: int = 0
    hits: int = 0

    def takes(self, seen: Seen) -> bool:
        """Whether the rule applies to this request; counts matching requests."""
        if not self.filter.matches(seen) or self.hits == self.times:
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.hits += 1
        return True


class FaultProxy:
    """Listens on a free loopback port (`endpoint`) and passes requests to `upstream_port`. A context manager."""

    def __init__(self, upstream_port: int, imitation: Imitation | None = None) -> None:
        """Where no rule applies, the proxy does what the store does that it imitates."""
        self.port = free_port()
        self.imitation = imitation
        self._upstream = (LOOPBACK, upstream_port)
        self._lock = threading.Lock()
        self._rules: list[Rule] = []
        self._log: list[Seen] = []
        self._clients: set[Wire] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fault-proxy", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self.up()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def endpoint(self) -> str:
        """The URL that clients use instead of the server's."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def log(self) -> list[tuple[str, str, str]]:
        """Method, path with query, and status or name of the fault of every request, in the order of arrival."""
        with self._lock:
            return [(seen.method, seen.target, seen.outcome) for seen in self._log]

    def rule(
        self,
        fault: Fault,
        *,
        method: str | None = None,
        path_contains: str = "",
        query_contains: str = "",
        times: int | None = None,
        skip: int = 0,
    ) -> Rule:
        """Apply `fault` to matching requests: not to the first `skip`, then `times` times (None: from then on).

        The oldest rule that applies wins; requests to which no rule applies pass.
        """
        rule = Rule(fault, _Filter(method, path_contains, query_contains), times, skip)
        with self._lock:
            self._rules.append(rule)
        return rule

    def remove(self, rule: Rule) -> None:
        """End a rule; requests that it already delays stay delayed."""
        with self._lock:
            self._rules.remove(rule)

    def clear(self) -> None:
        """Forget all rules and the log."""
        with self._lock:
            self._rules.clear()
            self._log.clear()

    def seen(self, method: str | None = None, path_contains: str = "", query_contains: str = "") -> list[Seen]:
        """The matching requests so far, in the order of arrival."""
        wanted = _Filter(method, path_contains, query_contains)
        with self._lock:
            return [seen for seen in self._log if wanted.matches(seen)]

    def wait_seen(
        self,
        method: str | None = None,
        path_contains: str = "",
        query_contains: str = "",
        *,
        count: int = 1,
        timeout: float = 10.0,
    ) -> list[Seen]:
        """Wait for `count` matching requests and return them; they may be unfinished. AssertionError after `timeout` seconds."""

        def enough() -> list[Seen] | None:
            found = self.seen(method, path_contains, query_contains)
            return found if len(found) >= count else None

        return eventually(
            enough, timeout, f"{count} requests {method} {path_contains} {query_contains}, not {self.log}"
        )

    def down(self) -> None:
        """Reset all connections and refuse new ones."""
        self._call(self._down())

    def up(self) -> None:
        """Listen, on the same port as before."""
        self._call(self._up())

    def stop(self) -> None:
        """Close all connections and stop listening. Idempotent."""
        if self._loop.is_closed():
            return
        self.down()
        self._call(self._loop.shutdown_asyncgens())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _call(self, coroutine: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout=10)

    async def _up(self) -> None:
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, LOOPBACK, self.port)

    async def _down(self) -> None:
        if self._server is not None:
            # Closed only below: asyncio would lose a socket that was accepted but has no transport yet.
            for listening in self._server.sockets:
                self._loop.remove_reader(listening.fileno())
        while others := asyncio.all_tasks() - {
            asyncio.current_task()
        }:  # a socket that is being accepted soon becomes a connection
            for client in self._clients:
                client.reset()
            for connection in self._connections:
                connection.cancel()
            await asyncio.gather(*others, return_exceptions=True)
        if self._server is not None:
            self._server.close()
            self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = Wire(reader, writer)
        self._clients.add(client)  # here: a task that is cancelled before its first step does nothing at all
        connection = self._loop.create_task(self._serve(client))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)
        connection.add_done_callback(lambda _: self._clients.discard(client))

    async def _serve(self, client: Wire) -> None:
        """Handle all requests of one connection."""
        try:
            while request := await read_head(client.reader):
                if not await Exchange(client, self._upstream, request, self._record(request)).run():
                    break
        except (OSError, asyncio.IncompleteReadError):
            pass  # a peer left in the middle; the other one learns of it by the close below
        finally:
            await client.close()

    def _record(self, request: Head) -> Seen:
        """Log a request, and decide which fault is applied to it."""
        seen = Seen(request.method, request.target, request.headers)
        with self._lock:
            self._log.append(seen)
            seen.fault = next((rule.fault for rule in self._rules if rule.takes(seen)), Pass())
            if self.imitation and seen.fault == Pass():
                seen.fault = self.imitation.fault(seen)
        if isinstance(seen.fault, Insist | RefuseTags):
            seen.fault = seen.fault.answer(seen.method, seen.headers) or Pass()
        return seen
