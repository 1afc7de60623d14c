"""Restores databases and proves that it can: boot table, placement, restores to a point in time, drills."""

from sidecar.restore.boot import Boot, Booted
from sidecar.restore.descent import DescentLook
from sidecar.restore.drill import Drill
from sidecar.restore.mount_guard import require_mounted
from sidecar.restore.placement import Placement
from sidecar.restore.proof import Prover, Throttle
from sidecar.restore.recovery import Recovery
from sidecar.restore.roll_forward import RollForward
from sidecar.restore.stream_proof import StreamProof
from sidecar.restore.survey import Survey, require_descent

__all__ = [
    "Boot",
    "Booted",
    "DescentLook",
    "Drill",
    "Placement",
    "Prover",
    "Recovery",
    "RollForward",
    "StreamProof",
    "Survey",
    "Throttle",
    "require_descent",
    "require_mounted",
]
