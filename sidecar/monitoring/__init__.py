"""How people and Prometheus see sidecar: page, metrics, webhooks, logs, open incidents."""

from sidecar.monitoring.incidents import Incidents
from sidecar.monitoring.listing import StoreListing
from sidecar.monitoring.notifier import Notifier

__all__ = [
    "Incidents",
    "Notifier",
    "StoreListing",
]
