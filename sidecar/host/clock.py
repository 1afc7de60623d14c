"""The real clock."""

import random
import time
from datetime import UTC, datetime

import anyio


class SystemClock:
    """Implements `ports.Clock`."""

    def now(self) -> datetime:
        """See `ports.Clock`."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """See `ports.Clock`."""
        return time.monotonic()

    async def sleep(self, seconds: float) -> None:
        """See `ports.Clock`."""
        await anyio.sleep(seconds)

    def random(self) -> float:
        """See `ports.Clock`."""
        return random.random()  # noqa: S311 - jitter, no secret
