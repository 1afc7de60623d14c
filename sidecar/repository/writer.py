"""Publishes a snapshot as a restore point: hashed, compared with the previous one, compressed, uploaded or copied.

Data moves in one direction: snapshot -> `SnapshotFrames` -> `PartAssembler` -> a stream of parts -> `ObjectUpload` -> store.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from itertools import accumulate
from urllib.parse import quote

import anyio

from sidecar.concurrency import run_all
from sidecar.errors import ConfigurationError, ReuseFailed
from sidecar.log import log
from sidecar.model import ObjectInfo, Snapshot
from sidecar.progress import Show, no_progress
from sidecar.repository.encoding import SnapshotFrames, hash_chunks, hash_some
from sidecar.repository.format.index import FORMAT_VERSION, Index, position_metadata, wal_metadata
from sidecar.repository.format.tail import Contents
from sidecar.repository.parts import Fetch, Part, PartAssembler, PartSizes, fetch_from, limits_of, sizes_of
from sidecar.repository.reuse import NO_COPIES, ChunkRun, CopiedChunks, Parent, PartLimits, plan_reuse
from sidecar.repository.suspicion import Extent
from sidecar.repository.taking_over import TakeOver, require_read
from sidecar.repository.upload import ObjectUpload, Permit, always
from sidecar.storage import ObjectStore


@dataclass(frozen=True, slots=True)
class PublisherIdentity:
    """Who publishes; recorded in the index of every restore point."""

    holder: str
    sidecar_version: str


@dataclass(frozen=True, slots=True)
class Published:
    """A restore point that was published. `uploaded` and `reused` are bytes of the object."""

    info: ObjectInfo
    contents: Contents
    uploaded: int
    reused: int

    @property
    def as_parent(self) -> Parent:
        """This restore point as the parent of the next one."""
        return Parent(self.info, self.contents)


class Publisher:
    """Turns snapshots into restore points: hashed, compared with the previous one, compressed, uploaded or copied."""

    def __init__(
        self,
        store: ObjectStore,
        identity: PublisherIdentity,
        *,
        part_size: int = 8 << 20,
        concurrency: int = 4,
        level: int = 1,
        show: Show = no_progress,
    ) -> None:
        """`show` takes a title and gives a function to call with (bytes of the database done, total bytes)."""
        self._store = store
        self._identity = identity
        self._part_size = part_size
        self._concurrency = concurrency
        self._level = level
        self._show = show
        self._logged_no_copies = False

    def limits(self, size: int) -> PartLimits:
        """The limits of the store for a database of `size` bytes."""
        return limits_of(self._store, self._part_size, size)

    async def index(self, snapshot: Snapshot, database: str, plan: TakeOver | None = None) -> Index:
        """Hash a snapshot; what it does not have is known by the plan. The index has no timestamp and no epoch yet."""
        digests = plan.digests(await hash_some(snapshot, plan.read)) if plan else await hash_chunks(snapshot)
        return Index(
            database=database,
            timestamp="",
            page_size=snapshot.page_size,
            database_size=snapshot.size,
            digests=digests,
            sqlite_version=snapshot.sqlite_version,
            sidecar_version=self._identity.sidecar_version,
            holder=self._identity.holder,
            epoch=0,
            permissions=snapshot.permissions,
            wal_by=snapshot.wal_by,
        )

    async def publish(
        self,
        snapshot: Snapshot,
        index: Index,
        key: str,
        parent: Parent | None = None,
        permit: Permit = always,
        plan: TakeOver | None = None,
    ) -> Published:
        """Publish a snapshot under a key that must not exist yet, reusing the parent's bytes where they are equal.

        Raises what `ObjectUpload.run` raises; instead of `ReuseFailed`, everything is uploaded, unless there is a plan, by
        which the snapshot does not have all. So it is if the store turned out to be able to do less than was known.
        """
        known = self._store.traits
        try:
            return await self._publish(snapshot, index, key, plan.parent if plan else parent, permit, plan)
        except ReuseFailed as error:
            if plan:
                raise
            log.warning("previous restore point not reused", reason=error.message)
        except ConfigurationError as error:
            if self._store.traits == known:
                raise
            if plan:
                raise ReuseFailed(error.message) from error
        return await self._publish(snapshot, index, key, None, permit)

    async def _publish(
        self,
        snapshot: Snapshot,
        index: Index,
        key: str,
        parent: Parent | None,
        permit: Permit,
        plan: TakeOver | None = None,
    ) -> Published:
        limits = self.limits(snapshot.size)
        if parent and limits == NO_COPIES:
            self._log_no_copies()
        runs = plan.runs_of(index, limits) if plan else plan_reuse(index, parent.contents if parent else None, limits)
        require_read(snapshot.read, runs)
        copies = any(isinstance(run, CopiedChunks) for run in runs)
        sizes = sizes_of(self._store, self._part_size, snapshot.size, copies=copies)
        metadata = _metadata(snapshot, index, runs, sizes)
        upload = ObjectUpload(self._store, key, metadata, concurrency=self._concurrency, permit=permit)
        with self._show(f"publish {key}") as progress:
            frames = SnapshotFrames(snapshot.content, index, runs, parent, self._level, progress)
            written = await write_through(frames.write_to, sizes, upload, fetch_from(self._store))
        contents = Contents(index, tuple(accumulate(frames.sizes, initial=0)), written.info.size)
        return Published(written.info, contents, written.uploaded, written.reused)

    def _log_no_copies(self) -> None:
        if not self._logged_no_copies:
            log.info("restore points uploaded whole", cause=f"{self._store.traits.store} copies no parts")
        self._logged_no_copies = True


@dataclass(frozen=True, slots=True)
class Written:
    """An object that was written, and how many of its bytes were uploaded and copied."""

    info: ObjectInfo
    uploaded: int
    reused: int


async def write_through(
    produce: Callable[[PartAssembler], Awaitable[None]],
    sizes: PartSizes,
    upload: ObjectUpload,
    fetch: Fetch | None = None,
) -> Written:
    """Run `produce` and the upload concurrently in bounded memory: the slower one sets the pace. `fetch`: see `PartAssembler`."""
    send, receive = anyio.create_memory_object_stream[Part](0)
    assembler = PartAssembler(send, sizes, fetch)
    published: list[ObjectInfo] = []

    async def feed() -> None:
        await produce(assembler)
        await assembler.flush()
        # Closed only here: a producer's failure must never look like the end of the object.
        await send.aclose()

    async def drain() -> None:
        published.append(await upload.run(receive))

    with send, receive:
        await run_all(feed, drain)
    return Written(published[0], assembler.uploaded, assembler.reused)


def _metadata(snapshot: Snapshot, index: Index, runs: list[ChunkRun], sizes: PartSizes) -> dict[str, str]:
    spans = [run.span for run in runs if isinstance(run, CopiedChunks)]
    around = 2 * sizes.part if sizes.equal else 0  # at most so many bytes of a copy are uploaded
    return {
        **Extent.of(snapshot).to_metadata(),
        "root": index.root,
        "epoch": str(index.epoch),
        "format": str(FORMAT_VERSION),
        "holder": quote(index.holder, safe=""),
        **position_metadata(index.position),
        **wal_metadata(index.wal_by),
        # Metadata is sent before the object's size is known; its other bytes are uploaded.
        "reused": str(sum((span.end or 0) - span.start - around for span in spans)),
    }
