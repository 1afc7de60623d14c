"""The contract of a receiver of notifications."""

from collections.abc import Mapping
from typing import Protocol


class Receiver(Protocol):
    """Who is told of what happens. Its address is a secret: no error and no log line has it."""

    @property
    def name(self) -> str:
        """What it is called in logs, like `notify[1]`."""
        ...

    async def send(self, content: Mapping[str, object] | None) -> None:
        """POST this as JSON, or without content call by GET. Bounded in time.

        Raises `Undelivered` for what may succeed later, and `Undeliverable`.
        """
        ...
