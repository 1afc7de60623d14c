"""What a daemon asks of its store, tried once from the token to the tag: the long part of `sidecar check`.

Nothing of it can be deleted afterwards with the rights a daemon has, so it leaves one tiny object under the reserved
name `.sidecar/`, the same one each time, tagged so that the bucket's lifecycle removes it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

from sidecar.bootstrap import Services
from sidecar.errors import AccessDenied, ConfigurationError, PreconditionFailed
from sidecar.lease.document import read_lease
from sidecar.model import IfAbsent, IfMatch, ObjectInfo, RestorePoint, Span
from sidecar.storage.base import Credentials, Probe

KEY = ".sidecar/check"
CONTENT = b"written by sidecar check\n"
COPY_KEY = ".sidecar/check-copy"
TAGS = {"sidecar-tier": "recent"}
SMALLEST_SOURCE = 5 << 20  # a range is copied only from a larger object (API_UploadPartCopy)
SKEW_REFUSED = timedelta(minutes=15)  # S3 answers RequestTimeTooSkewed beyond it
SKEW_NOTED = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Finding:
    """What came out of a step: `ok`, a `warning`, or `skipped` with the reason."""

    text: str
    kind: str = "ok"

    def line(self, title: str) -> str:
        """For people."""
        return f"{self.kind:<7} {title}: {self.text}"


_LOST = "restore points are lost with it; set SIDECAR_STORE to s3://bucket/prefix, or to a directory on another disk"

Steps = list[tuple[str, Callable[[], Awaitable[Finding | str]]]]


class Trial:
    """The steps, in the order in which each needs the one before."""

    def __init__(self, parts: Services) -> None:
        self._parts = parts
        self._catalog = parts.catalog()
        self._store = self._catalog.store
        self.newest: dict[str, RestorePoint] = {}  # by database, once the store has told
        self.other: str | None = None  # who holds the lease, if that is not this machine

    def steps(self) -> Steps:
        """Titles and what to do; each raises `SidecarError` when it fails."""
        found: Steps = []
        directory = self._parts.location.directory
        if credentials := self._parts.credentials:
            found += [("token", lambda: self._token(credentials)), ("role", lambda: self._role(credentials))]
        elif self._parts.location.uses_credentials:
            found += [("credentials", self._credentials)]
        found += [
            ("store", self._list),
            *([("place", partial(self._place, directory))] if directory else []),
            ("clock", self._clock),
            *([("lease", self._lease)] if self._parts.configuration.settings.lease == "on" else []),
            ("conditional write", partial(self._unless_new, self._write)),
            ("read", partial(self._unless_new, self._read)),
            ("part copy", self._copy),
            ("tag", partial(self._unless_new, self._tag)),
        ]
        if probe := self._parts.probe:
            found += [("no deletes", lambda: self._delete(probe))]
        return found

    async def _token(self, credentials: Credentials) -> str:
        return f"{await credentials.tokens.read()} from the {credentials.tokens.name}"

    async def _role(self, credentials: Credentials) -> str:
        expires = await credentials.fresh()
        return f"{credentials.role}, until {expires.isoformat(timespec='seconds')}"

    async def _credentials(self) -> Finding:
        environment = self._parts.configuration.environment
        if environment.static_keys:
            return Finding(f"the static keys in {' and '.join(environment.static_keys)}")
        if environment.role_arn:
            return Finding(
                "AWS_ROLE_ARN is set and there is no token for it: no AWS_WEB_IDENTITY_TOKEN_FILE, no fly_api_socket; "
                "the SDK looks for other credentials",
                "warning",
            )
        return Finding("what the SDK finds by itself")

    async def _place(self, directory: Path) -> Finding:
        """Of a directory: whether restore points outlive what they are made of."""
        if self._parts.configuration.sources["store"] == "default":
            return Finding(f"{self._parts.store.url} is the default, on this machine's own disk: {_LOST}", "warning")
        if any(_same_disk(directory.resolve(), each.path) for each in self._parts.databases):
            return Finding(f"{self._parts.store.url} is on the same file system as the database: {_LOST}", "warning")
        return Finding(f"{self._parts.status.store} is apart from the databases")

    async def _unless_new(self, attempt: Callable[[], Awaitable[Finding | str]]) -> Finding | str:
        """A directory that is no store yet is not made one by a look: it may be that nothing is mounted there."""
        file_backed = self._parts.file_backed
        if file_backed and file_backed.identity is None and not self.newest:
            await file_backed.rehearse()
            return Finding(
                "the directory is no store yet, and may be written to; the first start makes it one", "skipped"
            )
        return await attempt()

    async def _list(self) -> Finding:
        await self._parts.require_origin()
        for each in self._parts.databases:
            if newest := await self._catalog.newest(each.name):
                self.newest[each.name] = newest
        found = [
            f"{point.database}: {point.key}{', which is gone' if point.gone else ''}" for point in self.newest.values()
        ]
        text = f"{self._parts.status.store} answers; newest restore points: {', '.join(found) or 'none'}"
        return Finding(text, "warning" if any(point.gone for point in self.newest.values()) else "ok")

    async def _clock(self) -> Finding:
        skew = datetime.now(UTC) - await self._store.now()
        words = f"this clock is {abs(skew).total_seconds():.0f} s {'ahead of' if skew > timedelta(0) else 'behind'} the store's"
        if abs(skew) > SKEW_REFUSED and self._parts.location.refuses_wrong_clocks:
            raise AccessDenied(words, "set the machine's clock: S3 refuses requests beyond 15 minutes")
        return Finding(words, "warning" if abs(skew) > SKEW_NOTED else "ok")

    async def _lease(self) -> Finding:
        """Who has it, and whether a start here would wait for that one."""
        seen = await read_lease(self._store)
        if seen is None or seen.record.released:
            return Finding(f"free; {seen.record.holder} had it last" if seen else "free, and was never taken")
        holder, age = seen.record.holder, seen.age.total_seconds()
        left = seen.record.ttl - age
        if holder == self._parts.holder:
            return Finding(f"this machine's, {holder}, renewed {age:.0f} s ago")
        if left <= 0:
            return Finding(
                f"{holder} did not give it back, and has not renewed it for {age:.0f} s: a start takes it over"
            )
        self.other = holder
        return Finding(f"{holder} holds it: a start waits until it stops, or for {left:.0f} s if it is gone", "warning")

    async def _write(self) -> str:
        """If-None-Match and If-Match, each obeyed both when it holds and when it does not."""
        try:
            there = await self._store.put(KEY, CONTENT, condition=IfAbsent())
        except PreconditionFailed:
            there = await self._store.head(KEY)
        there = await self._store.put(KEY, CONTENT, condition=IfMatch(there.etag))
        await self._refused(IfAbsent(), "If-None-Match")
        await self._refused(IfMatch('"00000000000000000000000000000000"'), "If-Match")
        return f"{there.key} was written; If-None-Match and If-Match are obeyed"

    async def _refused(self, condition: IfAbsent | IfMatch, name: str) -> None:
        try:
            await self._store.put(KEY, CONTENT, condition=condition)
        except PreconditionFailed:
            return
        raise ConfigurationError(
            f"{self._parts.store.url} ignores {name}: writers could overwrite each other", "use a store that obeys it"
        )

    async def _read(self) -> str:
        blob = await self._store.get(KEY, span=Span(0, 3))
        if bytes(blob.data) != CONTENT[:3]:
            raise ConfigurationError(
                f"{self._parts.store.url} returns other bytes than were written", "is it an S3 endpoint?"
            )
        return f"{len(blob.data)} of {blob.info.size} bytes, as written"

    async def _copy(self) -> Finding:
        """Copies a part into an upload that is then aborted."""
        sources = [
            point for point in self.newest.values() if point.size > max(SMALLEST_SOURCE, self._store.minimum_part)
        ]
        if not sources:
            return Finding("no restore point is larger than 5 MiB yet, and only those are copied from", "skipped")
        point = sources[0]
        source = ObjectInfo(point.key, point.size, point.etag, point.timestamp.instant)
        async with self._store.upload(COPY_KEY, metadata={}) as upload:
            await upload.copy_part(1, 0, source, Span(0, SMALLEST_SOURCE))
        return Finding(f"the store copied 5 MiB of {point.key} itself; the upload was aborted")

    async def _tag(self) -> str:
        await self._store.tag(KEY, TAGS)
        return "; ".join(f"{name}={value}" for name, value in TAGS.items())

    async def _delete(self, probe: Probe) -> Finding:
        """Tried at our own object: where it is allowed, it tidies up."""
        try:
            await probe.delete(KEY)
        except AccessDenied:
            return Finding("refused, as it should be")
        return Finding(
            "these credentials may delete objects, so whoever gets hold of them can delete every restore point",
            "warning",
        )


def _same_disk(one: Path, other: Path) -> bool:
    """Whether two places, of which some folders may not exist yet, are on one file system."""
    return _device(one) == _device(other)


def _device(path: Path) -> int:
    there = next(folder for folder in (path, *path.parents) if folder.exists())
    return there.stat().st_dev
