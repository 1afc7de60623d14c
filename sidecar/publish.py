"""From a snapshot to a restore point: hash, compress in worker threads, upload, in bounded memory."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from anyio import from_thread, to_thread

from sidecar.domain import ObjectInfo, Snapshot
from sidecar.format import CHUNK_SIZE, FORMAT_VERSION, Encoder, Index, encode_tail
from sidecar.pipeline import ordered
from sidecar.replica import Replica, Writer

BATCH = 2
THREADS = 2


@dataclass(frozen=True, slots=True)
class Origin:
    """Who publishes: repeated in every restore point's index."""

    holder: str
    sidecar_version: str
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class Published:
    """A restore point that exists. `uploaded` and `reused` are bytes of the object."""

    info: ObjectInfo
    index: Index
    uploaded: int
    reused: int


class Publisher:
    """Turns snapshots into restore points."""

    def __init__(self, replica: Replica, origin: Origin, *, level: int = 1) -> None:
        self._replica = replica
        self._origin = origin
        self._level = level

    async def index(self, snapshot: Snapshot, database: str) -> Index:
        """Hash a snapshot; the index has no timestamp yet."""
        return Index(
            database=database,
            timestamp="",
            page_size=snapshot.page_size,
            database_size=snapshot.size,
            digests=await to_thread.run_sync(_digests, snapshot.path, snapshot.size),
            sqlite_version=snapshot.sqlite_version,
            sidecar_version=self._origin.sidecar_version,
            holder=self._origin.holder,
            epoch=self._origin.epoch,
        )

    async def publish(self, snapshot: Snapshot, index: Index, key: str) -> Published:
        """Publish a snapshot under a key that must not exist yet. Raises what `Replica.publish` does."""
        metadata = {
            "size": str(index.database_size),
            "root": index.root,
            "epoch": str(index.epoch),
            "format": str(FORMAT_VERSION),
        }
        produce = partial(self._produce, snapshot.path, index)
        part_size = self._replica.part_size_for(snapshot.size)
        info = await self._replica.publish(key, part_size, metadata, produce)
        return Published(info, index, uploaded=info.size, reused=0)

    async def _produce(self, path: Path, index: Index, write: Writer) -> None:
        sizes: list[int] = []

        async def emit(frames: list[bytes]) -> None:
            for frame in frames:
                sizes.append(len(frame))
                await write(frame)

        batches = (range(first, min(first + BATCH, index.chunks)) for first in range(0, index.chunks, BATCH))
        await ordered(batches, partial(_encode, path, self._level), emit, threads=THREADS)
        await write(encode_tail(index, sizes))


def _digests(path: Path, size: int) -> bytes:
    digests = bytearray()
    with _opened(path) as file:
        for start in range(0, size, CHUNK_SIZE):
            from_thread.check_cancelled()
            digests += hashlib.sha256(os.pread(file, CHUNK_SIZE, start)).digest()
    return bytes(digests)


def _encode(path: Path, level: int, chunks: range) -> list[bytes]:
    encoder = Encoder(level)
    with _opened(path) as file:
        return [encoder.frame(os.pread(file, CHUNK_SIZE, number * CHUNK_SIZE)) for number in chunks]


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDONLY)
    try:
        yield file
    finally:
        os.close(file)
