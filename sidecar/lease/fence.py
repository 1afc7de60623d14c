"""The contract of what lets one machine publish and no other."""

from collections.abc import Mapping
from datetime import datetime
from typing import Protocol


class Fence(Protocol):
    """What lets one machine publish and no other; `exclusive` says that it does."""

    exclusive: bool

    @property
    def unfinished(self) -> str | None:
        """The last machine that ran an app and did not give its lease back, until ours is `started`."""
        ...

    @property
    def epoch(self) -> int:
        """The number of our term, written into what we publish."""
        ...

    def require(self) -> None:
        """Raise `LeaseLost` when another machine took over. Asks nobody."""
        ...

    async def ensure(self) -> datetime:
        """Be inside our term, prolonging it if need be. Returns the instant, in the store's clock, to stamp with.

        Raises `LeaseLost`, or `Transient` when the store is away.
        """
        ...

    def started(self) -> None:
        """Our app is started: it has been said who was `unfinished`, and the next renewal writes that down."""
        ...

    async def settle(self, latest: Mapping[str, str], *, running: bool = False) -> None:
        """Write down from which restore points, by database, this term begins, and whether an app is started next.

        Raises as `ensure`.
        """
        ...

    async def confirm(self, database: str, key: str) -> None:
        """A restore point is visible now: write it down, which proves that nobody had taken over by then.

        Raises `LeaseLost` when somebody had, and may have begun from an older one; `Transient` when that is not known.
        """
        ...
