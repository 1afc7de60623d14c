"""The copies of a database's last two restore points, at keys that no lifecycle rule reaches.

A rule by prefix cannot spare the newest restore point, and an app may sleep for a year. So each one is copied to the slot
whose content is older: what the other slot has is not touched, and the store does not grow.

A machine that was paused in the middle may copy something old over what the machine after it has put there. It looks for
newer restore points after its copy, and then puts the newest there itself; so does the next cycle of either.

A store may also go on with a copy for which nobody waits any more. What is copied to that slot next is copied to the other
one as well.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from sidecar.concurrency import gathered
from sidecar.errors import DamagedRestorePoint, NotFound, StoreUnavailable, UnsupportedRestorePoint
from sidecar.log import log
from sidecar.model import ObjectInfo, RestorePoint, Span, Timestamp
from sidecar.repository.format.tail import TailTooShort, decode_tail
from sidecar.repository.keys import folder_of, key_of
from sidecar.repository.places import FRESH, Place, Slot, epoch_of, main_point_of, slot_for, slots_of
from sidecar.storage import ObjectStore

POINT = "point"  # in the metadata of a copy: the timestamp of the restore point
TAIL = 256 << 10
ATTEMPTS = 3

UNDER_WAY = timedelta(hours=1)
"""For so long a copy may still be made of which no reply was received: until then its slot can change at any time."""


class Slots:
    """The slots in a store, of all databases."""

    def __init__(self, store: ObjectStore) -> None:
        """`store` is the one with the objects themselves, not one that shows them elsewhere."""
        self._store = store
        self._kept: dict[str, Timestamp] = {}  # by database: what was last copied, or found to be in a slot
        self._begun: dict[str, datetime] = {}  # by slot: the last copy without a reply, by the store's clock

    async def read(self, database: str) -> list[Slot]:
        """What the slots of a database have. Raises `UnsupportedRestorePoint` if that cannot be told."""
        return await gathered(slots_of(database), self._read, at_once=2)

    async def keep(self, source: ObjectInfo, point: RestorePoint) -> None:
        """Copy the newest restore point, the object `source` with its metadata, to a slot, unless one has it.

        Raises what requests raise; then it may not be there.
        """
        for _ in range(ATTEMPTS):
            slots, now = await self.read(point.database), await self._store.now()
            slot = self._choose(source, point, slots, now)
            if slot is None:
                self._kept[point.database] = point.timestamp
                return
            await self._save(slot, point)
            metadata = {**source.metadata, POINT: str(point.timestamp)}
            await self._copy(source, slot.key, metadata, now)
            found = await self._read(slot.key)
            if found.info is None or found.point != point.timestamp:
                continue  # another machine wrote there at the same time
            if found.info.size != source.size:
                raise StoreUnavailable(
                    f"the store copied {found.info.size} of the {source.size} bytes of {source.key} to {slot.key}",
                    "it is copied again",
                )
            self._kept[point.database] = point.timestamp
            newer = await self._published_after(point)
            if newer is None and not self._is_unsure(slot, now):
                return
            if newer is None:
                continue
            log.warning("slot repaired", slot=slot.key, older=point.key, newest=newer[1].key)
            source, point = newer
        raise StoreUnavailable(
            f"the slots of {point.database} change all the time", "let only one machine publish to this store"
        )

    def _choose(self, source: ObjectInfo, point: RestorePoint, slots: Sequence[Slot], now: datetime) -> Slot | None:
        """The slot to copy a restore point to; None if it has one.

        One in a slot that may change gets the other slot as well, unless that has something newer, of a later term first.
        """
        epoch = epoch_of(source)
        having = [each for each in slots if each.point == point.timestamp]
        if not having:
            return slot_for(point.timestamp, epoch, slots, self._kept.get(point.database))
        if not all(self._is_unsure(each, now) for each in having):
            return None
        newest = (epoch, point.timestamp.text)
        older = (each for each in slots if (each.epoch if epoch else 0, each.point.text if each.point else "") < newest)
        return next(older, None)

    def _is_unsure(self, slot: Slot, now: datetime) -> bool:
        begun = self._begun.get(slot.key)
        return begun is not None and now - begun < UNDER_WAY

    async def _copy(self, source: ObjectInfo, key: str, metadata: dict[str, str], now: datetime) -> None:
        before = self._begun.pop(key, None)
        self._begun[key] = now  # stays if this raises or is cancelled
        await self._store.copy(source, key, metadata=metadata)
        del self._begun[key]
        if before:
            self._begun[key] = before

    async def _published_after(self, point: RestorePoint) -> tuple[ObjectInfo, RestorePoint] | None:
        """The newest restore point that another machine has published meanwhile, with its object."""
        folder, after, newest = f"{Place.RECENT}{folder_of(point.database)}", f"{Place.RECENT}{point.key}", None
        while True:
            page = await self._store.list(folder, start_after=after)
            for info in page.objects:
                newest = main_point_of(info.key.removeprefix(Place.RECENT)) or newest
            if not page.more:
                break
            after = page.objects[-1].key
        return (await self._store.head(f"{Place.RECENT}{newest.key}"), newest) if newest else None

    async def _save(self, slot: Slot, point: RestorePoint) -> None:
        """Before a slot is overwritten: if its restore point may be nowhere else any more, copy it to the daily ones.

        Its own copy was to be made when it was superseded, which a machine that fell asleep then may not have done.
        """
        if slot.info is None or slot.point is None or point.timestamp.instant - slot.point.instant < FRESH:
            return
        key = key_of(point.database, slot.point)
        for place in (Place.HOURLY, Place.DAILY, Place.HELD, Place.MAIN):
            if await self._exists(f"{place}{key}"):
                return
        metadata = {name: value for name, value in slot.info.metadata.items() if name != POINT}
        await copy_whole(self._store, slot.info, f"{Place.DAILY}{key}", metadata)

    async def _exists(self, key: str) -> bool:
        try:
            await self._store.head(key)
        except NotFound:
            return False
        return True

    async def _read(self, key: str) -> Slot:
        try:
            info = await self._store.head(key)
            return Slot(key, info, await self._point_of(info))
        except NotFound:
            return Slot(key)

    async def _point_of(self, info: ObjectInfo) -> Timestamp:
        """Of which restore point this is a copy. If the store was copied without metadata, the object itself says so."""
        try:
            if POINT in info.metadata:
                return Timestamp(info.metadata[POINT])
            return Timestamp(await self._timestamp_inside(info))
        except (ValueError, DamagedRestorePoint):
            raise UnsupportedRestorePoint(
                f"{info.key} does not name the restore point that it is a copy of",
                "a newer version of sidecar wrote it: use that version; or move the object away, if a person wrote it",
            ) from None

    async def _timestamp_inside(self, info: ObjectInfo) -> str:
        wanted = TAIL
        while True:
            span = Span(-wanted) if wanted < info.size else None
            blob = await self._store.get(info.key, span=span, if_match=info.etag)
            try:
                return decode_tail(blob.data, info.size, info.key).index.timestamp
            except TailTooShort as short:
                wanted = short.needed


async def copy_whole(store: ObjectStore, source: ObjectInfo, key: str, metadata: dict[str, str]) -> ObjectInfo:
    """Copy an object and see that the copy is there in full. Raises `StoreUnavailable` if it is not."""
    await store.copy(source, key, metadata=metadata)
    found = await store.head(key)
    if found.size != source.size:
        raise StoreUnavailable(
            f"the store copied {found.size} of the {source.size} bytes of {source.key} to {key}", "it is copied again"
        )
    return replace(found, metadata=metadata)
