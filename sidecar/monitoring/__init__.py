"""How people and Prometheus see sidecar: page, metrics, webhooks, logs, open incidents."""

from sidecar.monitoring.acknowledgement import KINDS, Acknowledged, acknowledge_all, require_kind
from sidecar.monitoring.events import Events
from sidecar.monitoring.incident_store import close_incidents
from sidecar.monitoring.incidents import Incidents
from sidecar.monitoring.listing import StoreListing
from sidecar.monitoring.notifier import Notifier
from sidecar.monitoring.store_status import StoreReader

__all__ = [
    "KINDS",
    "Acknowledged",
    "Events",
    "Incidents",
    "Notifier",
    "StoreListing",
    "StoreReader",
    "acknowledge_all",
    "close_incidents",
    "require_kind",
]
