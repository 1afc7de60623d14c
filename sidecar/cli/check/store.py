"""Trial of the store: every kind of request that a daemon makes, tried once, from the token to the tag.

With a daemon's rights nothing can be deleted afterwards. So the trial leaves one tiny object under the reserved name
`.sidecar/`, the same one each time, tagged so that the bucket's lifecycle rules remove it.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sidecar.bootstrap import Services
from sidecar.cli.check.finding import Finding
from sidecar.errors import AccessDenied, ConfigurationError, PreconditionFailed
from sidecar.lease import read_lease, unsuitable
from sidecar.model import IfAbsent, IfMatch, ObjectInfo, RestorePoint, Span
from sidecar.policies import Expires
from sidecar.repository.retention import TIER_TAG, Tier
from sidecar.repository.rights import CONTENT, KEY, NOBODYS_ETAG
from sidecar.storage import Credentials, Learner, ObjectStore, PartCopy, Probe, Retrying, abilities

COPY_KEY = ".sidecar/check-copy"
TAGS = {TIER_TAG: Tier.RECENT.value}
SMALLEST_SOURCE = 5 << 20  # a range is copied only from a larger object (API_UploadPartCopy)
SKEW_REFUSED = timedelta(minutes=15)  # S3 answers RequestTimeTooSkewed beyond it
SKEW_NOTED = timedelta(seconds=30)


_LOST = "restore points are lost with it; set SIDECAR_STORE to s3://bucket/prefix, or to a directory on another disk"

Steps = list[tuple[str, Callable[[], Awaitable[Finding]]]]


class StoreTrial:
    """The steps of the trial, in an order in which each needs those before it."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._catalog = services.catalog()
        self._store = self._catalog.store
        self.newest: dict[str, RestorePoint] = {}  # by database, known after the step `store`
        self.other: str | None = None  # the holder of the lease, if it is another machine

    def steps(self) -> Steps:
        """Titles and functions; a step that fails raises `SidecarError`."""
        found: Steps = []
        directory = self._services.location.directory
        if credentials := self._services.credentials:
            found += [("token", lambda: self._token(credentials)), ("role", lambda: self._role(credentials))]
        elif self._services.location.uses_credentials:
            found += [("credentials", self._credentials)]
        found += [
            ("store", self._list),
            *([("place", partial(self._place, directory))] if directory else []),
            ("clock", self._clock),
            *([("traits", partial(self._traits, self._services.learner))] if self._services.learner else []),
            *([("lease store", self._lease_store)] if self._services.lease_site else []),
            *([("lease", self._lease)] if self._services.configuration.settings.lease == "on" else []),
            ("conditional write", partial(self._unless_new, self._conditions)),
            ("read", partial(self._unless_new, self._read)),
            ("part copy", self._copy),
            ("tag", partial(self._unless_new, self._tag)),
        ]
        if probe := self._services.probe:
            found += [("no deletes", lambda: self._delete(probe))]
        return found

    async def _token(self, credentials: Credentials) -> Finding:
        return Finding(f"{await credentials.tokens.read()} from the {credentials.tokens.name}")

    async def _role(self, credentials: Credentials) -> Finding:
        expires = await credentials.fresh()
        return Finding(f"{credentials.role}, until {expires.isoformat(timespec='seconds')}")

    async def _credentials(self) -> Finding:
        environment = self._services.configuration.environment
        if environment.static_keys:
            return Finding(f"the static keys in {' and '.join(environment.static_keys)}")
        if environment.role_arn:
            return Finding(
                "AWS_ROLE_ARN is set and there is no token for it: no AWS_WEB_IDENTITY_TOKEN_FILE, no fly_api_socket; "
                "the SDK looks for other credentials",
                "warning",
            )
        return Finding("those that the SDK finds by itself")

    async def _place(self, directory: Path) -> Finding:
        """Whether the restore points in a directory outlive the databases."""
        if self._services.configuration.sources["store"] == "default":
            return Finding(f"{self._services.store.url} is the default, on this machine's own disk: {_LOST}", "warning")
        if any(_same_disk(directory.resolve(), each.path) for each in self._services.databases):
            return Finding(f"{self._services.store.url} is on the same file system as the database: {_LOST}", "warning")
        return Finding(f"{self._services.status.store} is separate from the databases")

    async def _unless_new(self, attempt: Callable[[], Awaitable[Finding]]) -> Finding:
        """Skip a step that writes while the directory is not a store yet: perhaps its file system is not mounted."""
        file_backed = self._services.file_backed
        if file_backed and file_backed.identity is None and not self.newest:
            await file_backed.rehearse()
            return Finding(
                "the directory is not a store yet, but can be written to; the first start makes it one", "skipped"
            )
        return await attempt()

    async def _list(self) -> Finding:
        await self._services.require_mounted()
        for each in self._services.databases:
            if newest := await self._catalog.newest(each.name):
                self.newest[each.name] = newest
        found = [
            f"{point.database}: {point.key}{', which is gone' if point.gone else ''}" for point in self.newest.values()
        ]
        text = f"{self._services.status.store} answers; newest restore points: {', '.join(found) or 'none'}"
        return Finding(text, "warning" if any(point.gone for point in self.newest.values()) else "ok")

    async def _clock(self) -> Finding:
        skew = datetime.now(UTC) - await self._store.now()
        side = "ahead of" if skew > timedelta(0) else "behind"
        words = f"this clock is {abs(skew).total_seconds():.1f} s {side} the store's"
        if abs(skew) > SKEW_REFUSED and self._services.location.refuses_wrong_clocks:
            raise AccessDenied(words, "set the machine's clock: S3 refuses requests beyond 15 minutes")
        return Finding(words, "warning" if abs(skew) > SKEW_NOTED else "ok")

    async def _lease(self) -> Finding:
        """Who holds the lease, and whether a start here would wait for that machine."""
        seen = await read_lease(self._catalog.lease_store, self._catalog.name)
        if seen is None or seen.record.released:
            return Finding(f"free; {seen.record.holder} had it last" if seen else "free; no machine has held it yet")
        holder, age = seen.record.holder, seen.age.total_seconds()
        left = seen.record.ttl - age
        if holder == self._services.holder:
            return Finding(f"this machine's, {holder}, renewed {age:.0f} s ago")
        if left <= 0:
            return Finding(
                f"{holder} did not release it, and has not renewed it for {age:.0f} s: a start takes it over"
            )
        self.other = holder
        return Finding(f"{holder} holds it: a start waits until it stops, or for {left:.0f} s if it is gone", "warning")

    async def _lease_store(self) -> Finding:
        """Write to the lease's store as a holder does, and compare its clock, by which keys are stamped, with the store's."""
        lease = self._catalog.lease_store
        await self._write(lease)
        apart = abs(await lease.now() - await self._store.now())
        words = f"{lease.url} obeys If-None-Match and If-Match"
        if apart > SKEW_NOTED:
            return Finding(
                f"{words}; its clock and that of the store differ by {apart.total_seconds():.0f} s", "warning"
            )
        return Finding(words)

    async def _traits(self, learner: Learner) -> Finding:
        """What the store can do; one that is not known by its endpoint is asked."""
        how = "known by its endpoint"
        if not learner.known:
            try:
                await learner.probe()
                await learner.remember()
                how = "tried just now"
            except AccessDenied as denied:
                return Finding(f"not tried: {denied.message}; what is refused later is done in another way", "warning")
        traits = self._store.traits
        missing = [f"no {each.name} ({each.instead})" for each in abilities(traits) if not each.works]
        return Finding(f"{traits.store}, {how}: {'; '.join(missing) or 'nothing is missing'}")

    async def _conditions(self) -> Finding:
        """Whether conditions are obeyed. They must be where the lease is."""
        services = self._services
        plain = Retrying(services.store, services.clock, services.retry_policy)  # one that looks up nothing itself
        if services.configuration.settings.lease == "on" and not services.lease_site:
            try:
                return await self._write(plain)
            except ConfigurationError as refusal:
                raise ConfigurationError(refusal.message, unsuitable(plain).hint) from refusal
        try:
            return await self._write(plain)
        except ConfigurationError:
            await self._store.put(KEY, CONTENT)
            text = "If-None-Match and If-Match are not obeyed: an object is looked up before it is written"
            return Finding(text, "warning" if services.lease_site is None else "ok")

    async def _write(self, store: ObjectStore) -> Finding:
        """Write under If-None-Match and If-Match: both must be obeyed, when they hold and when they do not."""
        try:
            there = await store.put(KEY, CONTENT, condition=IfAbsent())
        except PreconditionFailed:
            there = await store.head(KEY)
        there = await store.put(KEY, CONTENT, condition=IfMatch(there.etag))
        await self._require_refusal(store, IfAbsent(), "If-None-Match")
        await self._require_refusal(store, IfMatch(NOBODYS_ETAG), "If-Match")
        return Finding(f"{there.key} was written; If-None-Match and If-Match are obeyed")

    async def _require_refusal(self, store: ObjectStore, condition: IfAbsent | IfMatch, name: str) -> None:
        try:
            await store.put(KEY, CONTENT, condition=condition)
        except PreconditionFailed:
            return
        raise ConfigurationError(
            f"{store.url} ignores {name}: writers could overwrite each other", "use a store that obeys it"
        )

    async def _read(self) -> Finding:
        blob = await self._store.get(KEY, span=Span(0, 3))
        if bytes(blob.data) != CONTENT[:3]:
            raise ConfigurationError(
                f"{self._services.store.url} returns other bytes than were written",
                "check that AWS_ENDPOINT_URL_S3 names an S3 endpoint",
            )
        return Finding(f"{len(blob.data)} of {blob.info.size} bytes were read back, as written")

    async def _copy(self) -> Finding:
        """Copy a part into an upload, and abort the upload."""
        sources = [
            point
            for point in self.newest.values()
            if point.size > max(SMALLEST_SOURCE, self._store.traits.minimum_part)
        ]
        if not sources:
            return Finding("no restore point is larger than 5 MiB yet, and only those are copied from", "skipped")
        point = sources[0]
        source = ObjectInfo(point.key, point.size, point.etag, point.timestamp.instant)
        try:
            async with self._store.upload(COPY_KEY, metadata={}) as upload:
                await upload.copy_part(1, 0, source, Span(0, SMALLEST_SOURCE))
        except ConfigurationError:
            if self._store.traits.part_copy is not PartCopy.NO:
                raise
            return Finding("the store copies no parts: every restore point is uploaded whole", "warning")
        return Finding(f"the store copied 5 MiB of {point.key} itself; the upload was aborted")

    async def _tag(self) -> Finding:
        try:
            await self._store.tag(KEY, TAGS)
        except ConfigurationError as refusal:
            if self._store.traits.tags:
                raise
            if self._services.status.expires is Expires.PREFIXES:
                return Finding(f"{refusal.message}: rules select restore points by prefix instead")
            return Finding(f"{refusal.message}: no lifecycle rule by tag can select restore points", "warning")
        return Finding("; ".join(f"{name}={value}" for name, value in TAGS.items()))

    async def _delete(self, probe: Probe) -> Finding:
        """Try to delete our own object, which should be refused; if it is not, the object is gone at least."""
        prunes = self._services.configuration.settings.prune == "on"
        try:
            await probe.delete(KEY)
        except AccessDenied as error:
            if prunes:
                raise AccessDenied(
                    f"prune=on, but {error.message}", "allow s3:DeleteObject, or set prune=off"
                ) from error
            return Finding("refused, as it should be")
        if prunes:
            return Finding(
                "allowed, which prune=on needs: whoever gets hold of these credentials can delete restore points"
            )
        return Finding(
            "these credentials may delete objects: anybody who gets hold of them can delete every restore point",
            "warning",
        )


def _same_disk(one: Path, other: Path) -> bool:
    """Whether two paths, which need not exist yet, are on the same file system."""
    return _device(one) == _device(other)


def _device(path: Path) -> int:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return there.stat().st_dev
