"""Guards a file store against an unmounted file system: its empty mount point looks like an empty store.

Publishing there would start a second history, and once the file system is mounted again, the local database would lose a
conflict with the first one. A directory that was never a mount point itself (in a container's image, on the database's
volume) is really lost when it is missing: the boot table then keeps the local database and publishes it.
"""

from collections.abc import Mapping
from pathlib import Path

from sidecar.database import Lineage, Marker
from sidecar.errors import StoreMissing
from sidecar.host import mount_of
from sidecar.host.mounts import mounts
from sidecar.model import Database
from sidecar.repository import Catalog
from sidecar.storage import FileBacked


async def require_mounted(
    lineages: Mapping[Database, Lineage], catalog: Catalog, file_backed: FileBacked | None
) -> None:
    """Compare the lineage markers on this disk with what is mounted now.

    Raises `StoreMissing` if a marker names another mount point and the store is empty, and `SidecarError` if the store
    cannot be asked.
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
        f"the store {catalog.store.url} is empty or missing: it was on the file system at {first.mount if first else ''}, "
        f"and {' and '.join(database.name for database in apart)} came from it",
        f"check that it is mounted; nothing was written. If it is lost for good, remove {markers}: the local database then starts a new store",
    )


def _is_away(marker: Marker, directory: Path) -> bool:
    """Whether nothing is mounted at the store's mount point, or another type of file system, like the host's disk below a NAS."""
    known = mounts()
    if not known or marker.mount in {None, "/"}:
        return False
    if marker.mount not in {mount.point for mount in known}:
        return True
    here = mount_of(directory)
    return here is not None and here.point == marker.mount and marker.filesystem not in {None, here.kind}
