"""Guards a file store against an unmounted file system: its empty mount point looks like an empty store.

A history that is begun there would be a second one: once the first is back, the local database loses a conflict with it.
A directory that was never a mount of its own (in a container's image, on the database's volume) is just lost when it is not there: the local
database is kept and published then, as the boot table says.
"""

from collections.abc import Mapping
from pathlib import Path

from sidecar.database.lineage import Lineage, Marker
from sidecar.errors import StoreMissing
from sidecar.host.mounts import mount_of, mounts
from sidecar.model import Database
from sidecar.repository.catalog import Catalog
from sidecar.storage.base import FileBacked


async def require_origin(
    lineages: Mapping[Database, Lineage], catalog: Catalog, file_backed: FileBacked | None
) -> None:
    """Look at the markers on this disk, and at the store where one was written below another mount point.

    Raises `StoreMissing` when the store has nothing of that database; else what asking it raises.
    """
    if file_backed is None:
        return
    apart = {
        database: lineage
        for database, lineage in lineages.items()
        if (marker := lineage.on_this_disk()) and marker.last and _is_away(marker, file_backed.directory)
    }
    if not apart or any([await catalog.newest(database.name) for database in lineages]):
        return
    first = next(iter(apart.values())).on_this_disk()
    markers = ", ".join(str(lineage.path) for lineage in apart.values())
    raise StoreMissing(
        f"the store {catalog.store.url} is empty, or not there: it was on the file system at {first.mount if first else ''}, "
        f"and {' and '.join(database.name for database in apart)} came from it",
        f"is that mounted? Nothing was written. Is it lost for good, remove {markers}: the local database begins a new store then",
    )


def _is_away(marker: Marker, directory: Path) -> bool:
    """Whether the mount of its own that the store lay below is not there, or is of another kind: the host's disk below a NAS."""
    known = mounts()
    if not known or marker.mount in {None, "/"}:
        return False
    if marker.mount not in {mount.point for mount in known}:
        return True
    here = mount_of(directory)
    return here is not None and here.point == marker.mount and marker.filesystem not in {None, here.kind}
