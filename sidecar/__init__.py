"""SQLite in production on machines whose disk does not survive. `sidecar.open` is the library, see `docs/library.md`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sidecar import errors
    from sidecar.api import Durable, Sidecar, StatusReport
    from sidecar.api import open_session as open  # noqa: A004 - meant to be read as `sidecar.open`
    from sidecar.backup.by_hand import BackupResult, DatabaseBackup
    from sidecar.model import RestorePoint, Timestamp
    from sidecar.monitoring.events import Events
    from sidecar.repository.inventory import DatabaseHistory, History
    from sidecar.restore.by_hand import RestoreResult
    from sidecar.restore.verification import VerificationReport, Verified
    from sidecar.settings.fields import Settings
    from sidecar.status.health import Health
    from sidecar.status.model import Event

__version__ = "0.1.0"

__all__ = [
    "BackupResult",
    "DatabaseBackup",
    "DatabaseHistory",
    "Durable",
    "Event",
    "Events",
    "Health",
    "History",
    "RestorePoint",
    "RestoreResult",
    "Settings",
    "Sidecar",
    "StatusReport",
    "Timestamp",
    "VerificationReport",
    "Verified",
    "__version__",
    "errors",
    "open",
]

# Where each name is, imported when it is first asked for: the command line starts without any of it.
_PLACES = {
    "BackupResult": "backup.by_hand",
    "DatabaseBackup": "backup.by_hand",
    "DatabaseHistory": "repository.inventory",
    "Durable": "api",
    "Event": "status.model",
    "Events": "monitoring.events",
    "Health": "status.health",
    "History": "repository.inventory",
    "RestorePoint": "model",
    "RestoreResult": "restore.by_hand",
    "Settings": "settings.fields",
    "Sidecar": "api",
    "StatusReport": "api",
    "Timestamp": "model",
    "VerificationReport": "restore.verification",
    "Verified": "restore.verification",
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return import_module("sidecar.errors")
    if name == "open":
        return import_module("sidecar.api").open_session
    if name not in _PLACES:
        raise AttributeError(f"module 'sidecar' has no attribute {name!r}")
    return getattr(import_module(f"sidecar.{_PLACES[name]}"), name)
