"""Finds the objects that have the restore points of a store, at the places where they may be.

Where nothing is placed they are in the main place, and nothing else is asked for until a slot is seen.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from sidecar.concurrency import gathered
from sidecar.errors import NotFound
from sidecar.model import ObjectInfo, Page, RestorePoint
from sidecar.repository.keys import key_of
from sidecar.repository.places import Place, main_point_of, merged, places_after, places_for
from sidecar.repository.slots import POINT, Slots
from sidecar.storage import ObjectStore

REMEMBERED = 10_000  # restore points whose objects are remembered


@dataclass(frozen=True, slots=True)
class Located:
    """The object that has a restore point; `place` is None if that is a slot."""

    object: ObjectInfo
    place: Place | None


class Whereabouts:
    """Where the restore points of one store are. `placing` says whether they are placed in it."""

    def __init__(self, store: ObjectStore, slots: Slots, placing: Callable[[], bool]) -> None:
        self._inner = store
        self._slots = slots
        self._placing = placing
        self._has_slots: dict[str, bool] = {}  # by database, where nothing is placed
        self._objects: dict[str, ObjectInfo] = {}  # by restore point: the object that it was last seen as

    def known(self, key: str, etag: str | None) -> ObjectInfo | None:
        """The object with this ETag that a restore point was last seen as."""
        known = self._objects.get(key)
        return known if known and known.etag == etag else None

    def forget(self, key: str) -> None:
        """Forget as what a restore point was seen."""
        self._objects.pop(key, None)

    def is_spread(self, database: str) -> bool:
        """Whether the restore points of a database may be at more than the main place."""
        return self._placing() or self._has_slots.get(database, False)

    def found_slots(self, database: str) -> None:
        """Record that a slot of a database was seen."""
        self._has_slots[database] = True

    def was_at(self, key: str, place: Place) -> bool:
        """Whether a restore point was last seen at this place."""
        known = self._objects.get(key)
        return known is not None and known.key == f"{place}{key}"

    def seen(self, key: str, info: ObjectInfo) -> ObjectInfo:
        """Remember the object that a restore point was seen as. Returns it under the restore point's own key."""
        if len(self._objects) >= REMEMBERED:
            self._objects.clear()
        self._objects[key] = info
        return replace(info, key=key)

    async def pages(self, database: str, folder: str, start_after: str, limit: int) -> Page:
        """A page of a database's restore points at all places. Its other parameters are those of `ObjectStore.list`."""
        places = places_after(start_after, await self._inner.now())

        async def page_of(place: Place) -> Page:
            after = f"{place}{start_after}" if start_after else ""
            return await self._inner.list(f"{place}{folder}", start_after=after, limit=limit)

        pages = list(zip(places, await gathered(places, page_of, at_once=len(places)), strict=True))
        for place, page in reversed(pages):
            for info in page.objects:
                if main_point_of(own := info.key.removeprefix(place)):
                    self.seen(own, info)
        return merged(pages, await self._in_slots(database, start_after), limit)

    async def _in_slots(self, database: str, start_after: str) -> list[ObjectInfo]:
        """The restore points in slots that sort after a key, as a list shows them. They may be at no other place."""
        slots = [slot for slot in await self._slots.read(database) if slot.info and slot.point]
        keys = {key_of(database, slot.point): slot.info for slot in slots if slot.point and slot.info}
        return [replace(info, key=key, metadata={}) for key, info in keys.items() if key > start_after]

    async def locate(self, point: RestorePoint) -> Located:
        """The object that has a restore point, with its metadata. Raises `NotFound`."""
        if not self.is_spread(point.database):
            return Located(await self._inner.head(point.key), Place.MAIN)
        places = places_for(point, await self._inner.now(), placing=self._placing())
        for place in sorted(places, key=lambda each: not self.was_at(point.key, each)):
            if info := await self.at(point.key, place):
                self.seen(point.key, info)
                return Located(info, place)
        for slot in await self._slots.read(point.database):
            if slot.info and slot.point == point.timestamp:
                self.seen(point.key, slot.info)
                metadata = {name: value for name, value in slot.info.metadata.items() if name != POINT}
                return Located(replace(slot.info, metadata=metadata), None)
        raise NotFound(f"{point.key} does not exist")

    async def at(self, key: str, place: Place) -> ObjectInfo | None:
        """The object that has a restore point at a place, if there is one."""
        try:
            return await self._inner.head(f"{place}{key}")
        except NotFound:
            return None
