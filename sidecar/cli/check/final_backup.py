"""How the final backup of a database would be made, and how long it would take, where a daemon runs that knows it."""

from collections.abc import Mapping
from typing import Any

from sidecar.backup import may_be_in_place
from sidecar.bootstrap import Services
from sidecar.cli.check.finding import Finding
from sidecar.cli.check.stream import journal_mode
from sidecar.errors import SidecarError
from sidecar.host import holder_of
from sidecar.host.control import ask_for_status
from sidecar.model import Database
from sidecar.units import format_duration, format_size

IN_PLACE = "in place: it reads what commits have changed since the restore point before, and compares the rest"


async def final_backup(services: Services, database: Database) -> Finding:
    """Ask the daemon, if one runs here; else tell it by settings and size."""
    if holder_of(database):
        try:
            shown: Any = await ask_for_status((database,), services.store.url, services.endpoint)
        except SidecarError as error:
            return Finding(f"not known: {error.message}")
        databases = shown["databases"] if shown else ()
        return _by_daemon(services, next((each for each in databases if each["name"] == database.name), None))
    signature = services.snapshotter.signature(database.path)
    if signature is None:
        return Finding("everything would be copied: the database does not exist, or has zero bytes")
    size = signature.database.size
    if not may_be_in_place(size):
        return Finding(f"everything would be copied: it has only {format_size(size)}")
    mode = await journal_mode(services, database)
    if isinstance(mode, Finding):
        return Finding(f"everything would be copied, {format_size(size)}: the database is {mode.text}")
    return Finding(f"would be published {IN_PLACE}, once streaming has begun and a restore point followed")


def _by_daemon(services: Services, known: Mapping[str, Any] | None) -> Finding:
    if known is None or "final_in_place" not in known:
        return Finding("not known: the sidecar that runs here does not say")
    limit = services.configuration.settings.final_backup_timeout
    how = f"would be published {IN_PLACE}" if known["final_in_place"] else "everything would be copied"
    seconds = known["final_estimate"]
    if seconds is None:
        return Finding(f"{how}; how long that takes is not known before the first restore point")
    kind = "warning" if seconds > limit.total_seconds() else "ok"
    return Finding(f"{how}; about {seconds:.1f} s, and final_backup_timeout is {format_duration(limit)}", kind)
