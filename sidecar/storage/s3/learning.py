"""What this process knows about its store, and how a refused request corrects it.

Traits may be wrong at any time: the store is not known, or a proxy was put in front of it. A correction only ever makes us
expect less of the store.
"""

from dataclasses import asdict, replace
from typing import Any

import anyio

from sidecar.log import log
from sidecar.storage.traits import Traits


class Learning:
    """The traits of one store. `corrections` are those that requests of this process led to."""

    def __init__(self, traits: Traits, where: str) -> None:
        """`where` is the store's URL, for the log."""
        self.traits = traits
        self.corrections: dict[str, Any] = {}
        self._where = where
        self._corrected = anyio.Event()

    def adopt(self, traits: Traits) -> None:
        """Believe this, except where a request of this process showed otherwise."""
        self.traits = replace(traits, **self.corrections)

    def correct(self, cause: str, **changes: Any) -> None:
        """Believe this from now on, because a request was refused for that `cause`. Logged if it is new."""
        known = asdict(self.traits)
        new = {name: value for name, value in changes.items() if known[name] != value}
        if not new:
            return
        self.traits = replace(self.traits, **new)
        self.corrections |= new
        log.info("store traits corrected", store=self._where, cause=cause, **new)
        self._corrected.set()

    async def until_corrected(self) -> None:
        """Wait for the next correction."""
        await self._corrected.wait()
        self._corrected = anyio.Event()
