"""A store in which restore points lie where lifecycle rules by prefix can select them, seen as if all were in one folder.

Everything above reads and writes a restore point under its own key, and gives it a tier by a tag. Here the key becomes that
of a place, and the tier a copy at another place: see `places`. Where rules select by tag nothing is placed, and no request
is added; but restore points that lie at such places, in a store that was copied, are found as soon as a slot is seen.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import TypeVar

from sidecar.concurrency import gathered
from sidecar.errors import ConfigurationError, NotFound, PreconditionFailed, SidecarError, StoreUnavailable
from sidecar.model import Blob, Bytes, Condition, ObjectInfo, Page, RestorePoint, Span
from sidecar.repository.keys import key_of
from sidecar.repository.places import (
    PRUNED,
    TIERS,
    Place,
    database_of_folder,
    database_of_slot,
    main_point_of,
    placed,
)
from sidecar.repository.retention import TIER_TAG, Tier
from sidecar.repository.slots import POINT, Slots, copy_whole
from sidecar.repository.whereabouts import Whereabouts
from sidecar.storage import Decorated, ObjectStore, Traits, Upload

T = TypeVar("T")


def places_by_prefix(traits: Traits) -> bool:
    """Whether restore points are to be placed: the store's rules are known to select by prefix, and not by tag.

    Only by traits that no refused request corrects: what was placed must be found as long as the process runs.
    """
    return traits.certain and traits.prefix_rules and not traits.tag_rules


class PlacedStore(Decorated):
    """Implements `storage.ObjectStore` around another one, whose requests are retried already."""

    def __init__(self, inner: ObjectStore, *, placing: bool | None = None) -> None:
        """`placing` None: by what is known of the store when a request is made."""
        super().__init__(inner)
        self._given = placing
        self._slots = Slots(inner)
        self._where = Whereabouts(inner, self._slots, lambda: self.placing)

    @property
    def placing(self) -> bool:
        """Whether new restore points are placed."""
        return places_by_prefix(self.traits) if self._given is None else self._given

    def is_spread(self, database: str) -> bool:
        """Whether a database's restore points may be at places of their own: they are placed, or a list has shown a slot."""
        return self._where.is_spread(database)

    def is_recent(self, key: str) -> bool:
        """Whether a restore point was last seen where it was published."""
        return self._where.was_at(key, Place.RECENT)

    async def prunable(self, key: str) -> list[ObjectInfo]:
        """The objects that have a restore point, without a copy that is held and those in slots."""
        found = await gathered(PRUNED, partial(self._where.at, key), at_once=len(PRUNED))
        return [info for info in found if info]

    async def around(self, operation: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """See `Decorated`."""
        return await attempt()

    async def keep_newest(self, key: str) -> None:
        """See that the newest restore point has a copy that no rule reaches. Two requests if it has.

        Raises `NotFound`, and what requests raise.
        """
        point = main_point_of(key)
        if point is None or not self.placing:
            return
        located = await self._where.locate(point)
        if located.place not in {Place.MAIN, None}:
            await self._slots.keep(located.object, point)

    async def head(self, key: str) -> ObjectInfo:
        """See `storage.ObjectStore`. Also finds a restore point by the key of the object that has it."""
        if point := main_point_of(key):
            return replace((await self._where.locate(point)).object, key=key)
        if found := placed(key):
            info = await self._inner.head(key)
            self._where.found_slots(found[1].database)
            return self._where.seen(found[1].key, info)
        if database := database_of_slot(key):
            for slot in await self._slots.read(database):
                if slot.key == key and slot.info and slot.point:
                    self._where.found_slots(database)
                    return self._where.seen(key_of(database, slot.point), slot.info)
        return await self._inner.head(key)

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """See `storage.ObjectStore`.

        Copies have ETags of their own. If the one that `if_match` names is gone, another one is read: it has the same bytes,
        which every reader checks.
        """
        read, point = partial(self._inner.get, span=span, into=into), main_point_of(key)
        if point is None:
            return await read(key, if_match=if_match)
        if known := self._where.known(key, if_match):
            try:
                return self._shown(key, await read(known.key, if_match=if_match))
            except (NotFound, PreconditionFailed):
                self._where.forget(key)
        if not self._where.is_spread(point.database):
            return await read(key, if_match=if_match)
        located = await self._where.locate(point)
        return self._shown(key, await read(located.object.key, if_match=located.object.etag))

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """See `storage.ObjectStore`."""
        database = database_of_folder(prefix)
        if database is None:
            return await self._inner.list(prefix, start_after=start_after, limit=limit)
        if not self._where.is_spread(database):
            page = await self._inner.list(prefix, start_after=start_after, limit=limit)
            if not any(database_of_slot(info.key) for info in page.objects):
                return page
            self._where.found_slots(database)
        return await self._where.pages(database, prefix, start_after, limit)

    async def put(
        self,
        key: str,
        data: Bytes,
        *,
        condition: Condition = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """See `storage.ObjectStore`. Raises `StoreUnavailable` if a restore point has no copy in a slot yet."""
        point = main_point_of(key) if self.placing else None
        target = f"{Place.RECENT}{key}" if point else key
        info = await self._inner.put(target, data, condition=condition, metadata=metadata, tags=tags)
        return await self._published(point, info) if point else info

    @asynccontextmanager
    async def upload(self, key: str, *, metadata: Mapping[str, str]) -> AsyncIterator[Upload]:
        """See `storage.ObjectStore`. `complete` raises `StoreUnavailable` if a restore point has no copy in a slot yet."""
        point = main_point_of(key) if self.placing else None
        target = f"{Place.RECENT}{key}" if point else key
        async with self._inner.upload(target, metadata=metadata) as upload:
            yield _PlacedUpload(upload, self._copy_part, partial(self._published, point) if point else None)

    async def tags(self, key: str) -> dict[str, str]:
        """See `storage.ObjectStore`. The tier is that of the place; other tags are the object's, as all are in the main place."""
        point = main_point_of(key)
        if point is None or not self.placing:
            return await self._inner.tags(await self._object_of(key))
        tiers = await self._tiers_of(key)
        target = next(iter(tiers.values()), None)
        if target is None:
            located = await self._where.locate(point)
            if located.place is Place.MAIN:
                return await self._inner.tags(key)
            target = located.object
        tags = await self._inner.tags(target.key) if self.traits.tags else {}
        return {**{name: value for name, value in tags.items() if name != TIER_TAG}, **_tier_tag(tiers)}

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """See `storage.ObjectStore`. With a tier, the restore point is copied to its place; if it had one, and has none now, to a slot."""
        point = main_point_of(key)
        if point is None or not self.placing:
            await self._inner.tag(await self._object_of(key), tags)
            return
        located = await self._where.locate(point)
        if located.place is Place.MAIN:
            await self._inner.tag(key, tags)
            return
        found, others = tags.get(TIER_TAG), {name: value for name, value in tags.items() if name != TIER_TAG}
        target = located.object
        if found is None:
            if await self._tiers_of(key):  # else it may be an older one, as after a drill: slots are for the last two
                await self.keep_newest(key)
        elif place := TIERS.get(Tier(found)):
            target = await self._where.at(key, place) or await self._copy(located.object, f"{place}{key}")
        if others and self.traits.tags:
            await self._inner.tag(target.key, others)

    async def _tiers_of(self, key: str) -> dict[Tier, ObjectInfo]:
        """The copies of a restore point at the places of tiers, the one that decides first."""
        found = await gathered(TIERS.values(), partial(self._where.at, key), at_once=len(TIERS))
        return {tier: info for tier, info in zip(TIERS, found, strict=True) if info}

    async def _published(self, point: RestorePoint, info: ObjectInfo) -> ObjectInfo:
        try:
            await self._slots.keep(info, point)
        except SidecarError as error:  # it exists, so no other kind of error may be raised
            raise StoreUnavailable(
                f"{point.key} has no copy yet that no lifecycle rule reaches: {error.message}", error.hint
            ) from error
        return self._where.seen(point.key, info)

    async def _copy(self, source: ObjectInfo, target: str) -> ObjectInfo:
        metadata = {name: value for name, value in source.metadata.items() if name != POINT}
        try:
            return await copy_whole(self._inner, source, target, metadata)
        except ConfigurationError as error:  # not for good: without its copy the restore point expires early
            raise StoreUnavailable(error.message, error.hint) from error

    async def _copy_part(self, upload: Upload, number: int, offset: int, source: ObjectInfo, span: Span) -> None:
        point = main_point_of(source.key)
        if point is None:
            await upload.copy_part(number, offset, source, span)
            return
        first = self._where.known(source.key, source.etag) or source
        try:
            await upload.copy_part(number, offset, first, span)
        except (NotFound, PreconditionFailed):
            self._where.forget(source.key)
            located = (await self._where.locate(point)).object
            if (located.key, located.etag) == (first.key, first.etag) or located.size != source.size:
                raise
            await upload.copy_part(number, offset, located, span)

    async def _object_of(self, key: str) -> str:
        """The key of the object that has a restore point; other keys are their own."""
        point = main_point_of(key)
        if point is None or not self._where.is_spread(point.database):
            return key
        return (await self._where.locate(point)).object.key

    def _shown(self, key: str, blob: Blob) -> Blob:
        return Blob(blob.data, self._where.seen(key, blob.info))


class _PlacedUpload:
    """An `Upload` of a restore point to its place, from parts of one that may be at another place."""

    def __init__(
        self,
        inner: Upload,
        copy: Callable[[Upload, int, int, ObjectInfo, Span], Awaitable[None]],
        published: Callable[[ObjectInfo], Awaitable[ObjectInfo]] | None,
    ) -> None:
        self._inner = inner
        self._copy = copy
        self._published = published

    async def put_part(self, number: int, offset: int, data: Bytes) -> None:
        """See `storage.Upload`."""
        await self._inner.put_part(number, offset, data)

    async def copy_part(self, number: int, offset: int, source: ObjectInfo, span: Span) -> None:
        """See `storage.Upload`."""
        await self._copy(self._inner, number, offset, source, span)

    async def complete(self) -> ObjectInfo:
        """See `storage.Upload`."""
        info = await self._inner.complete()
        return await self._published(info) if self._published else info


def _tier_tag(tiers: Mapping[Tier, ObjectInfo]) -> dict[str, str]:
    return {TIER_TAG: next(iter(tiers)).value} if tiers else {}
