"""The read-model of the daemon and its judgement; pure."""

from sidecar.status.cost import Load, busiest, forecast, saved_by_need
from sidecar.status.findings import (
    HINT,
    covers,
    digests_of,
    format_findings,
    is_resolved,
    record_findings,
    single_finding,
)
from sidecar.status.health import (
    LOOK_FOR,
    STORED,
    TO_DECIDE,
    Health,
    Level,
    acknowledge_command,
    is_open,
    of_database,
    open_incidents,
    overall,
)
from sidecar.status.histogram import Histogram
from sidecar.status.listing import Listing, StoredPoint
from sidecar.status.model import CHUNKS, COSTS, DRILLS, PHASES, DatabaseStatus, Event, LeaseStatus, Status
from sidecar.status.problems import Kind, Problem
from sidecar.status.serialize import as_json
from sidecar.status.stream import StreamStatus

__all__ = [
    "CHUNKS",
    "COSTS",
    "DRILLS",
    "HINT",
    "LOOK_FOR",
    "PHASES",
    "STORED",
    "TO_DECIDE",
    "DatabaseStatus",
    "Event",
    "Health",
    "Histogram",
    "Kind",
    "LeaseStatus",
    "Level",
    "Listing",
    "Load",
    "Problem",
    "Status",
    "StoredPoint",
    "StreamStatus",
    "acknowledge_command",
    "as_json",
    "busiest",
    "covers",
    "digests_of",
    "forecast",
    "format_findings",
    "is_open",
    "is_resolved",
    "of_database",
    "open_incidents",
    "overall",
    "record_findings",
    "saved_by_need",
    "single_finding",
]
