"""Marks of held restore points, for stores without tags: an object of its own for each, `.sidecar/held/<key>`.

They are written beside the tag as well, because a store may lose its tags: behind a proxy that does not know them, or when
it is copied to another store. Where a restore point has a tier, that one decides, so a person can release it by its tag.
"""

from contextlib import suppress

from sidecar.errors import PreconditionFailed
from sidecar.model import IfAbsent
from sidecar.repository.keys import folder_of
from sidecar.storage import ObjectStore

FOLDER = ".sidecar/held/"
CONTENT = b"The restore point with this key is held: nothing expires it. Delete this object to release it.\n"


class Holds:
    """The marks in a store."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    async def mark(self, key: str) -> None:
        """Mark a restore point as held. Raises `NotFound` if it is gone, and what a PUT raises."""
        await self._store.head(key)
        with suppress(PreconditionFailed):  # it has its mark
            await self._store.put(f"{FOLDER}{key}", CONTENT, condition=IfAbsent())

    async def of(self, database: str) -> frozenset[str]:
        """The keys of a database's marked restore points. One request, and one for each thousand of them."""
        folder, after, found = f"{FOLDER}{folder_of(database)}", "", set[str]()
        while True:
            page = await self._store.list(folder, start_after=after)
            found.update(each.key.removeprefix(FOLDER) for each in page.objects)
            if not page.more:
                return frozenset(found)
            after = page.objects[-1].key
