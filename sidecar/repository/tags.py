"""The tags of one database's restore points: their tier, and whether they are held."""

from sidecar.errors import AccessDenied, ConfigurationError, SidecarError
from sidecar.log import log
from sidecar.repository.holds import Holds
from sidecar.repository.retention import TIER_TAG, Tier
from sidecar.storage import ObjectStore


class RestorePointTags:
    """Reads and writes tags. A store that does not support tags, or does not let us read them, is reported once."""

    def __init__(self, database: str, store: ObjectStore, holds: Holds | None = None) -> None:
        """`holds` marks what is held in addition, for a store that has no tags or loses them."""
        self._database = database
        self._store = store
        self._holds = holds
        self._held: set[str] = set()
        self._warned: set[str] = set()

    async def read(self, key: str) -> dict[str, str] | None:
        """The tags of a restore point, or None if we may not read them. Raises `NotFound`."""
        try:
            return await self._store.tags(key)
        except (AccessDenied, ConfigurationError) as error:
            self.warn_once("tags not read", error, "restore points of earlier runs are left without a tier")
            return None

    async def add(self, key: str, name: str, value: str) -> None:
        """Add a tag to a restore point, unless its existing tags cannot be read: they would be overwritten."""
        tags = await self.read(key)
        if tags is not None:
            await self._store.tag(key, {**tags, name: value})

    async def remove_tier(self, key: str, tags: dict[str, str]) -> None:
        """Remove the tier from a restore point that has these tags."""
        await self._store.tag(key, {name: value for name, value in tags.items() if name != TIER_TAG})

    async def set_tier(self, key: str, tier: Tier, *, ours: bool) -> None:
        """Give a restore point its tier unless it has one: a held one stays held, no matter which machine held it.

        If tags cannot be read, only the restore points of this process are tagged: others may already have a tier.
        """
        tags = await self.read(key)
        if (tags is None and not ours) or TIER_TAG in (tags or {}):
            return
        await self._store.tag(key, {**(tags or {}), TIER_TAG: tier.value})

    async def hold(self, key: str) -> None:
        """Tag a restore point so that it never expires. Raises `NotFound`, and `AccessDenied` if it cannot be held."""
        try:
            tagged = await self._tag_as_held(key)
            if self._holds:
                await self._mark(key, self._holds, needed=not tagged)
        except AccessDenied as error:
            message = f"a suspicious snapshot is not published, because {key} cannot be held: {error.message}"
            raise AccessDenied(message, "allow s3:PutObjectTagging, and s3:PutObject below .sidecar/held/") from error
        self._held.add(key)

    async def _tag_as_held(self, key: str) -> bool:
        """False in a store without tags, which has no rules that go by them."""
        try:
            tags = await self.read(key) or {}
            if tags.get(TIER_TAG) != Tier.HELD:
                await self._store.tag(key, {**tags, TIER_TAG: Tier.HELD.value})
        except ConfigurationError as error:
            self.warn_once("tags not written", error)
            return False
        return True

    async def _mark(self, key: str, holds: Holds, *, needed: bool) -> None:
        """Mark it as held as well; only a store without tags needs that."""
        try:
            await holds.mark(key)
        except AccessDenied as error:
            if needed:
                raise
            self.warn_once("hold not marked", error)

    def is_held(self, key: str) -> bool:
        """Whether this process held the restore point, and has not called `discard` since."""
        return key in self._held

    def discard(self, key: str) -> None:
        """Forget a restore point; its tags stay."""
        self._held.discard(key)

    def warn_once(self, event: str, error: SidecarError, consequence: str = "") -> None:
        """Log a problem with this database's tags the first time that it occurs."""
        if event in self._warned:
            return
        self._warned.add(event)
        more = {"consequence": consequence} if consequence else {}
        log.warning(event, database=self._database, error=error.message, hint=error.hint, **more)
