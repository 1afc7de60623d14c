"""From a snapshot to a restore point: hash, plan, compress in worker threads, upload or copy, in bounded memory."""

import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from pathlib import Path
from urllib.parse import quote

import structlog
from anyio import from_thread

from sidecar.concurrency import Pool, ordered
from sidecar.errors import ReuseFailed
from sidecar.model import ObjectInfo, Snapshot
from sidecar.repository.catalog import Catalog, Permit, always
from sidecar.repository.format.chunks import Encoder
from sidecar.repository.format.index import CHUNK_SIZE, FORMAT_VERSION, Index
from sidecar.repository.format.tail import Contents, encode_tail
from sidecar.repository.parts import Assembly, PartSizes
from sidecar.repository.reuse import Fresh, Reused, Segment, plan
from sidecar.repository.suspicion import Extent

log = structlog.get_logger()

BATCH = 2
HASHED = 16
THREADS = 2


@dataclass(frozen=True, slots=True)
class PublisherIdentity:
    """Who publishes: repeated in every restore point's index."""

    holder: str
    sidecar_version: str


@dataclass(frozen=True, slots=True)
class Parent:
    """A restore point to reuse: the object, and what is where in it."""

    info: ObjectInfo
    contents: Contents


@dataclass(frozen=True, slots=True)
class Published:
    """A restore point that exists. `uploaded` and `reused` are bytes of the object."""

    info: ObjectInfo
    contents: Contents
    uploaded: int
    reused: int

    @property
    def as_parent(self) -> Parent:
        """For the next publish."""
        return Parent(self.info, self.contents)


Show = Callable[[str], AbstractContextManager[Callable[[int, int], None]]]


@contextmanager
def _unseen(_title: str) -> Iterator[Callable[[int, int], None]]:
    yield lambda _done, _total: None


class Publisher:
    """ConcurrencyLimit snapshots into restore points."""

    def __init__(self, catalog: Catalog, identity: PublisherIdentity, *, level: int = 1, show: Show = _unseen) -> None:
        """`show` makes, from a title, what is told (bytes of the database done, bytes in all)."""
        self._catalog = catalog
        self._identity = identity
        self._level = level
        self._show = show

    async def index(self, snapshot: Snapshot, database: str) -> Index:
        """Hash a snapshot; the index has no timestamp and no epoch yet."""
        digests = bytearray()

        async def emit(some: bytes) -> None:
            digests.extend(some)

        chunks = -(-snapshot.size // CHUNK_SIZE)
        await ordered(_batches(range(chunks), HASHED), partial(_digests, snapshot.content), emit, threads=THREADS)
        return Index(
            database=database,
            timestamp="",
            page_size=snapshot.page_size,
            database_size=snapshot.size,
            digests=bytes(digests),
            sqlite_version=snapshot.sqlite_version,
            sidecar_version=self._identity.sidecar_version,
            holder=self._identity.holder,
            epoch=0,
        )

    async def publish(
        self, snapshot: Snapshot, index: Index, key: str, parent: Parent | None = None, permit: Permit = always
    ) -> Published:
        """Publish a snapshot under a key that must not exist yet, reusing what the parent has.

        Raises what `Catalog.publish` does, but for `ReuseFailed`: then everything is uploaded.
        """
        if parent is not None:
            try:
                return await self._publish(snapshot, index, key, parent, permit)
            except ReuseFailed as error:
                log.warning("everything is uploaded: the previous restore point cannot be reused", reason=error.message)
        return await self._publish(snapshot, index, key, None, permit)

    async def _publish(
        self, snapshot: Snapshot, index: Index, key: str, parent: Parent | None, permit: Permit
    ) -> Published:
        rules = self._catalog.rules_for(snapshot.size)
        segments = plan(index, parent.contents if parent else None, rules)
        copies = any(isinstance(segment, Reused) for segment in segments)
        part_size = self._catalog.part_size_for(snapshot.size, copies=copies)
        sizes = PartSizes(part_size, rules.minimum_part if copies else 0)
        metadata = {
            **Extent.of(snapshot).to_metadata(),
            "root": index.root,
            "epoch": str(index.epoch),
            "format": str(FORMAT_VERSION),
            "holder": quote(index.holder, safe=""),
            "reused": str(_reused(segments)),  # sent before the object's own size is known: the rest was uploaded
        }
        job = _Job(snapshot.content, index, segments, parent, self._level)
        with self._show(f"publish {key}") as progress:
            job.progress = progress
            info = await self._catalog.publish(key, sizes, metadata, job.produce, permit)
        contents = Contents(index, tuple(accumulate(job.sizes, initial=0)), info.size)
        return Published(info, contents, job.uploaded, job.reused)


def _reused(segments: list[Segment]) -> int:
    """Bytes that the store copies."""
    spans = [segment.span for segment in segments if isinstance(segment, Reused)]
    return sum((span.end or 0) - span.start for span in spans)


class _Job:
    """One object in the making. `sizes` are those of its frames so far."""

    def __init__(self, path: Path, index: Index, segments: list[Segment], parent: Parent | None, level: int) -> None:
        self._path = path
        self._index = index
        self._segments = segments
        self._parent = parent
        self._level = level
        self.sizes: list[int] = []
        self.uploaded = 0
        self.reused = 0
        self.progress: Callable[[int, int], None] = lambda _done, _total: None

    async def produce(self, assembly: Assembly) -> None:
        """Assemble the frames, segment by segment, then index and seek table."""
        for segment in self._segments:
            if isinstance(segment, Fresh):
                await self._compress(segment.chunks, assembly)
            elif self._parent:
                await assembly.copy(self._parent.info, segment.span)
                self.sizes += self._parent.contents.frame_sizes(segment.first_in_parent, len(segment.chunks))
                self._tell()
        await assembly.write(encode_tail(self._index, self.sizes))
        await assembly.end()
        self.uploaded, self.reused = assembly.uploaded, assembly.reused

    def _tell(self) -> None:
        size = self._index.database_size
        self.progress(min(size, len(self.sizes) * CHUNK_SIZE), size)

    async def _compress(self, chunks: range, assembly: Assembly) -> None:
        benches = Pool(partial(_Bench, self._level))

        async def emit(frames: list[bytes]) -> None:
            for frame in frames:
                self.sizes.append(len(frame))
                await assembly.write(frame)
            self._tell()

        await ordered(_batches(chunks, BATCH), partial(_encode, self._path, benches), emit, threads=THREADS)


class _Bench:
    """What a thread compresses with: used again, because fresh memory costs more than a copy."""

    def __init__(self, level: int) -> None:
        self.encoder = Encoder(level)
        self.buffer = memoryview(bytearray(CHUNK_SIZE))


def _batches(chunks: range, size: int) -> Iterator[range]:
    return (chunks[start : start + size] for start in range(0, len(chunks), size))


def _digests(path: Path, chunks: range) -> bytes:
    from_thread.check_cancelled()
    with _opened(path) as file:
        buffer = memoryview(bytearray(CHUNK_SIZE))
        return b"".join(hashlib.sha256(chunk).digest() for chunk in _read(file, chunks, buffer))


def _encode(path: Path, benches: Pool[_Bench], chunks: range) -> list[bytes]:
    bench = benches.take()
    with _opened(path) as file:
        frames = [bench.encoder.frame(chunk) for chunk in _read(file, chunks, bench.buffer)]
    benches.give(bench)
    return frames


def _read(file: int, chunks: range, buffer: memoryview) -> Iterator[memoryview]:
    """Chunk after chunk, in one buffer: each is gone when the next one comes."""
    for number in chunks:
        filled = 0
        while filled < CHUNK_SIZE and (count := os.preadv(file, [buffer[filled:]], number * CHUNK_SIZE + filled)):
            filled += count
        yield buffer[:filled]


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)
