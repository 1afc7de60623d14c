"""Prunes a store over the network beside the app, where `prune=on` asks for it. A directory is pruned by each cycle."""

from collections.abc import Sequence

import anyio

from sidecar.errors import SidecarError
from sidecar.log import log
from sidecar.repository.pruning import Pruning

PRUNE_EVERY = 6 * 3600.0  # seconds: it reads the tags of what is older than a day
TRY_EVERY = 600.0


async def keep_pruning(prunings: Sequence[Pruning]) -> None:
    """Prune each database a few times a day. What fails is tried again ten minutes later."""
    while True:
        await anyio.sleep(TRY_EVERY)
        for each in prunings:
            try:
                await each.run()
            except SidecarError as error:
                log.warning("pruning failed", error=error.message, hint=error.hint)
