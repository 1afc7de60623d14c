"""Whether this is the store that the local databases come from: nothing is begun in another one that looks like it.

Where a file system is not mounted there is an empty directory, or none. A history that is begun in it would be a second one:
once the first is back, the local database loses a conflict with it.
"""

from collections.abc import Mapping

from sidecar.domain import Database
from sidecar.errors import StoreMissing
from sidecar.lineage import Lineage
from sidecar.ports import Identified
from sidecar.replica import Replica


async def require_origin(lineages: Mapping[Database, Lineage], replica: Replica, identified: Identified | None) -> None:
    """Ask the store for what it has of each database that comes from a store with a name of its own.

    Raises `StoreMissing` when it has nothing and another name, or none; else what asking raises.
    """
    for database, lineage in lineages.items() if identified else ():
        marker = lineage.read()
        if identified is None or marker is None or marker.last is None or marker.identity is None:
            continue
        newest = await replica.newest(database.name)
        if newest is None and identified.identity != marker.identity:
            what = "is another one" if identified.identity else "is empty, or not there"
            raise StoreMissing(
                f"{database.path} comes from the store {replica.store.url}, with {marker.last}, and what is there now {what}",
                f"is the store's file system mounted? Nothing was written to it. If the store is lost for good, "
                f"remove {lineage.path} to begin a new one from the local database",
            )
