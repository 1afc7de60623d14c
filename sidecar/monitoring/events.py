"""What a session reports, for the program that embeds it."""

from collections import deque

import anyio

from sidecar.status import Event


class Events:
    """Events of a session, oldest first, as an asynchronous iterator that ends with the session."""

    def __init__(self) -> None:
        self._waiting: deque[Event] = deque()
        self._arrived = anyio.Event()
        self._ended = False

    def add(self, event: Event) -> None:
        """Give this event to whoever iterates."""
        self._waiting.append(event)
        self._arrived.set()

    def end(self) -> None:
        """End the iteration, after the events that are waiting."""
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
