"""Reads restore points: the index from the last bytes, the database in parallel ranges, with every chunk checked."""

import fcntl
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from anyio import to_thread

from sidecar.concurrency import Pool, hedged, run_all
from sidecar.database import CheckReport, IntegrityCheck, YieldToApp
from sidecar.errors import DamagedRestorePoint, NotFound, PreconditionFailed
from sidecar.host import local_errors, make_directory, narrowed, require_room, temporary, write_all
from sidecar.model import Blob, Bytes, Database, ObjectInfo, Permissions, RestorePoint, Span
from sidecar.progress import Progress
from sidecar.repository.chunks import Chunks
from sidecar.repository.format.chunks import Decoder
from sidecar.repository.format.index import CHUNK_SIZE
from sidecar.repository.format.tail import Contents, TailTooShort, decode_tail
from sidecar.storage import ObjectStore

TAIL = 256 << 10
HEDGE_AFTER = 1.0
HEDGE_SAMPLE = 4


@dataclass(frozen=True, slots=True)
class Restored:
    """A restore point that was downloaded and found good. `downloaded` counts bytes on the wire.

    `check` is the report of SQLite's check: a good restore point may have findings, which its app had as well.
    """

    point: RestorePoint
    info: ObjectInfo
    contents: Contents
    downloaded: int
    check: CheckReport


async def _unlimited(_size: int) -> None:
    """Do not limit the rate."""


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """Options of a download. `limit_rate` is awaited before each range, with the number of bytes that it decompresses to.

    `yield_to_app` is called between the steps of SQLite's check, in its thread; `mode` limits the mode of the new file.
    """

    limit_rate: Callable[[int], Awaitable[None]] = _unlimited
    yield_to_app: YieldToApp | None = None
    mode: int = 0o666


_DEFAULT = DownloadOptions()


@dataclass(frozen=True, slots=True)
class _Source:
    """A restore point whose tail was read. If the object is small, the tail is all of it."""

    point: RestorePoint
    contents: Contents
    tail: Blob


class Reader:
    """Reads restore points from a store, and verifies them."""

    def __init__(
        self,
        store: ObjectStore,
        checker: IntegrityCheck,
        *,
        part_size: int = 8 << 20,
        concurrency: int = 4,
        integrity: str = "quick",
        trusting: bool = False,
    ) -> None:
        """`part_size` is the largest range of a request, in bytes; `integrity` is how SQLite checks a download.

        A `trusting` reader does not repeat a check that was made when the restore point was published.
        """
        self.part_size = part_size
        self.concurrency = concurrency
        self._store = store
        self._checker = checker
        self._integrity = integrity
        self._trusting = trusting

    async def contents(self, point: RestorePoint) -> tuple[ObjectInfo, Contents]:
        """The object and the index of a restore point, from its last bytes. Raises `DamagedRestorePoint`."""
        source = await self._open(point)
        return source.tail.info, source.contents

    async def chunks(self, point: RestorePoint) -> Chunks:
        """Read its chunks one by one, as they are needed. Raises `DamagedRestorePoint`."""
        source = await self._open(point)
        return Chunks(self._store, point, source.contents, source.tail)

    async def first_chunk(self, point: RestorePoint) -> bytes:
        """The first MiB of the database, or all of it if it is smaller. Raises `DamagedRestorePoint`."""
        frames, run = _Frames(self._store, await self._open(point), self.part_size), range(1)
        async with frames.fetched(run) as data:
            frame = memoryview(data)[: frames.contents.offsets[1] - frames.contents.offsets[0]]
            return await to_thread.run_sync(Decoder(frames.contents.index).chunk, 0, frame)

    async def download(
        self,
        point: RestorePoint,
        target: Path,
        progress: Progress | None = None,
        options: DownloadOptions = _DEFAULT,
    ) -> Restored:
        """Write the database of a restore point to `target`, checked chunk by chunk and by SQLite.

        `progress` is called with (bytes done, total bytes) of the object. Raises `DamagedRestorePoint`, also if the object
        is gone, and `NoRoom`; `target` is removed if anything fails.
        """
        return await self._download(await self._open(point), target, progress, options)

    async def _download(
        self, source: _Source, target: Path, progress: Progress | None, options: DownloadOptions
    ) -> Restored:
        point, size = source.point, source.contents.index.database_size
        with local_errors(target), _removed_on_failure(target):
            require_room(target, size)
            # Always create a new file: one that a killed process left behind may be linked to the live database.
            target.unlink(missing_ok=True)
            with _created(target, options.mode & _widest(source.contents.index.permissions)) as file:
                os.truncate(file, size)
                frames = _Frames(self._store, source, self.part_size)
                await self._write(frames, file, progress or _no_progress, options)
                report = await self._check(source, target, options)
        return Restored(point, source.tail.info, source.contents, source.contents.size, report)

    async def _check(self, source: _Source, target: Path, options: DownloadOptions) -> CheckReport:
        """The report of SQLite's check of a download whose digests are right.

        A table that cannot be read is damage only if it was not known: otherwise the live database had it already.
        """
        known = source.contents.index.check
        if known and (self._integrity == "none" or (self._trusting and known.covers(self._integrity))):
            return known
        report = await self._checker.check(target, self._integrity, options.yield_to_app)
        if report.unreadable and not (known and (known.unreadable or known.covers("quick"))):
            raise DamagedRestorePoint(f"restore point {source.point.key} is damaged: {report.unreadable}")
        return report

    async def stage(
        self, point: RestorePoint, database: Database, progress: Progress | None = None
    ) -> tuple[Restored, Path]:
        """Download to a temporary file beside the database, whose directory is created if it is missing.

        Raises what `download` raises.
        """
        source, staged = await self._open(point), temporary(database.path)
        with local_errors(database.path):
            make_directory(staged.parent, source.contents.index.permissions)
        return await self._download(source, staged, progress, _DEFAULT), staged

    async def _open(self, point: RestorePoint) -> _Source:
        """Read the tail of a restore point, which includes the index. Raises `DamagedRestorePoint`."""
        wanted = point.size if point.size <= self.part_size else TAIL
        while True:
            blob = await _get(self._store, point, Span(-wanted) if wanted < point.size else None)
            try:
                contents = decode_tail(blob.data, blob.info.size, point.key)
            except TailTooShort as short:
                wanted = min(short.needed, blob.info.size)
                continue
            _require_identity(point, contents)
            return _Source(point, contents, blob)

    async def _write(self, frames: "_Frames", file: int, progress: Progress, options: DownloadOptions) -> None:
        """Fetch, check and write all chunks, `concurrency` runs of them at once."""
        contents = frames.contents
        runs = iter(contents.group(self.part_size))

        async def worker() -> None:
            for run in runs:
                await options.limit_rate(len(run) * CHUNK_SIZE)
                async with frames.fetched(run) as data:
                    await to_thread.run_sync(_write_run, contents, run, data, file)
                progress(frames.received, contents.size)

        await run_all(*[worker] * self.concurrency)


def _require_identity(point: RestorePoint, contents: Contents) -> None:
    """Raise `DamagedRestorePoint` if the store returned another object."""
    index = contents.index
    if (index.database, index.timestamp) != (point.database, str(point.timestamp)):
        raise DamagedRestorePoint(
            f"restore point {point.key} is damaged: its index names {index.database} at {index.timestamp}"
        )


async def _get(
    store: ObjectStore, point: RestorePoint, span: Span | None, etag: str | None = None, into: memoryview | None = None
) -> Blob:
    try:
        return await store.get(point.key, span=span, if_match=etag, into=into)
    except (NotFound, PreconditionFailed) as error:
        raise DamagedRestorePoint(f"restore point {point.key} disappeared or changed while it was read") from error


class _Frames:
    """The frames of one restore point, fetched run by run. A range that stalls is requested a second time.

    `received` counts the bytes that have arrived.
    """

    def __init__(self, store: ObjectStore, source: _Source, part_size: int) -> None:
        self.contents = source.contents
        self.received = len(source.tail.data)
        self._store = store
        self._source = source
        self._buffers = Pool(partial(bytearray, part_size))
        self._seconds: list[float] = []

    @asynccontextmanager
    async def fetched(self, run: range) -> AsyncIterator[Bytes]:
        """The frames of these chunks, whose memory is reused after the block."""
        contents, tail = self.contents, self._source.tail
        start, end = contents.offsets[run.start], contents.offsets[run.stop]
        first_in_tail = contents.size - len(tail.data)
        if start >= first_in_tail:
            yield memoryview(tail.data)[start - first_in_tail :]
            return
        data, buffer = await self._fetch(Span(start, end))
        yield data
        self._buffers.give(buffer)
        self.received = min(self.received + end - start, contents.size)

    async def _fetch(self, span: Span) -> tuple[Bytes, bytearray]:
        """The bytes of a range, and the buffer that they are in."""

        async def attempt() -> tuple[Bytes, bytearray]:
            buffer = self._buffers.take()  # an abandoned attempt never gives it back: it may still be written to
            etag = self._source.tail.info.etag
            blob = await _get(self._store, self._source.point, span, etag, memoryview(buffer))
            return blob.data, buffer

        started = time.monotonic()
        found = await hedged(attempt, _hedge_after(self._seconds))
        self._seconds.append(time.monotonic() - started)
        return found


def _hedge_after(seconds: list[float]) -> float:
    """Seconds after which a range is requested a second time: much longer than the others took."""
    return max(HEDGE_AFTER, 4 * median(seconds)) if len(seconds) >= HEDGE_SAMPLE else 5 * HEDGE_AFTER


def _write_run(contents: Contents, run: range, data: Bytes, file: int) -> None:
    """Decompress, check and write the chunks of one run; `data` begins with the frame of the first one."""
    decoder = Decoder(contents.index)
    view = memoryview(data)
    base = contents.offsets[run.start]
    for number in run:
        frame = view[contents.offsets[number] - base : contents.offsets[number + 1] - base]
        write_all(file, decoder.chunk(number, frame), number * CHUNK_SIZE)


def _widest(recorded: Permissions | None) -> int:
    """The permission bits that a new file may have before it gets the recorded owner and group."""
    return 0o666 if recorded is None else 0o600 | narrowed(recorded.mode)


@contextmanager
def _created(path: Path, mode: int) -> Iterator[int]:
    """A new file, locked while it is open so that no other process takes it for a leftover in a staging directory."""
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode)
    try:
        with suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield file
    finally:
        os.close(file)


@contextmanager
def _removed_on_failure(path: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _no_progress(_done: int, _total: int) -> None:
    """Ignore progress."""
