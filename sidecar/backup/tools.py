"""What every database's backup works with."""

from dataclasses import dataclass

import structlog

from sidecar.concurrency import ConcurrencyLimit
from sidecar.database.base import Snapshotter
from sidecar.host.clock import Clock
from sidecar.lease.fence import Fence
from sidecar.repository.catalog import Catalog
from sidecar.repository.existence import LOOK_EVERY
from sidecar.repository.reader import Reader
from sidecar.repository.writer import Publisher
from sidecar.status.model import Status
from sidecar.storage.base import Prunable

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Tools:
    """What every database's backup works with."""

    catalog: Catalog
    publisher: Publisher
    reader: Reader
    snapshotter: Snapshotter
    status: Status
    clock: Clock
    fence: Fence
    turn: ConcurrencyLimit
    prunable: Prunable | None = None
    look_every: float = LOOK_EVERY
