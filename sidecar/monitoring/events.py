"""The events of a session, for the program that embeds it."""

from collections import deque

import anyio

from sidecar.status import Event


class Events:
    """An asynchronous iterator over the events of a session, oldest first. It ends with the session."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._arrived = anyio.Event()
        self._ended = False

    def add(self, event: Event) -> None:
        """Queue an event for the iteration."""
        self._waiting.append(event)
        self._arrived.set()

    def end(self) -> None:
        """End the iteration once the queued events have been consumed."""
        self._ended = True
        self._arrived.set()

    def __aiter__(self) -> "Events":
        return self

    async def __anext__(self) -> Event:
        while not self._waiting:
            if self._ended:
                raise StopAsyncIteration
            self._arrived = anyio.Event()
            await self._arrived.wait()
        return self._waiting.popleft()
