"""The contract of a receiver of notifications."""

from collections.abc import Mapping
from typing import Protocol


class Receiver(Protocol):
    """A receiver of notifications. Its address is a secret: no error and no log line contains it."""

    @property
    def name(self) -> str:
        """Its name in logs, like `notify[1]`."""
        ...

    async def send(self, content: Mapping[str, object] | None) -> None:
        """POST the content as JSON, or send a GET request when there is none. Bounded in time.

        Raises `Undelivered` when a later attempt may succeed, and `Undeliverable` when none will.
        """
        ...
