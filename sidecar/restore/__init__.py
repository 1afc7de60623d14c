"""Brings a database back and proves that it can: boot table, put in place, drills."""

from sidecar.restore.boot import Boot, Booted
from sidecar.restore.by_hand import RestoreByHand, RestoreResult
from sidecar.restore.drill import Drill
from sidecar.restore.mount_guard import require_mounted
from sidecar.restore.placement import Placement
from sidecar.restore.proof import Prover, Throttle
from sidecar.restore.survey import Survey, require_descent
from sidecar.restore.verification import Outcome, Verification, VerificationReport, Verified

__all__ = [
    "Boot",
    "Booted",
    "Drill",
    "Outcome",
    "Placement",
    "Prover",
    "RestoreByHand",
    "RestoreResult",
    "Survey",
    "Throttle",
    "Verification",
    "VerificationReport",
    "Verified",
    "require_descent",
    "require_mounted",
]
