"""Restore: decide (pure), download, verify, rename."""

import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

from anyio import to_thread

from sidecar.concurrency import Pool, hedged, run_all
from sidecar.database.base import IntegrityCheck, YieldToApp
from sidecar.errors import DamagedDatabase, DamagedRestorePoint, NotFound, PreconditionFailed
from sidecar.host.files import local_errors, require_room, temporary, write_all
from sidecar.model import Blob, Bytes, Database, ObjectInfo, RestorePoint, Span
from sidecar.repository.catalog import Catalog
from sidecar.repository.format.chunks import Decoder
from sidecar.repository.format.index import CHUNK_SIZE
from sidecar.repository.format.tail import Contents, TailTooShort, decode_tail

TAIL = 256 << 10
HEDGE_AFTER = 1.0
HEDGE_SAMPLE = 4


@dataclass(frozen=True, slots=True)
class Restored:
    """A restore point that was downloaded and found good. `downloaded` counts bytes on the wire."""

    point: RestorePoint
    info: ObjectInfo
    contents: Contents
    downloaded: int


Progress = Callable[[int, int], None]


async def _at_once(_size: int) -> None:
    """Do not hold back."""


@dataclass(frozen=True, slots=True)
class DownloadOptions:
    """How a download is done. `limit_rate` is awaited before each range, with the bytes that it decompresses to.

    `yield_to_app` is called between the steps of SQLite's check, in its thread; `mode` is that of the new file.
    """

    limit_rate: Callable[[int], Awaitable[None]] = _at_once
    yield_to_app: YieldToApp | None = None
    mode: int = 0o666


_ORDINARY = DownloadOptions()


@dataclass(frozen=True, slots=True)
class _Source:
    """A restore point whose tail was read."""

    point: RestorePoint
    contents: Contents
    tail: Blob


class Reader:
    """Downloads and verifies restore points."""

    def __init__(self, catalog: Catalog, checker: IntegrityCheck, *, integrity: str = "quick") -> None:
        self._catalog = catalog
        self._checker = checker
        self._integrity = integrity

    async def contents(self, point: RestorePoint) -> tuple[ObjectInfo, Contents]:
        """The object and the index of a restore point, from its last bytes. Raises `DamagedRestorePoint`."""
        contents, tail = await self._open(point)
        return tail.info, contents

    async def download(
        self, point: RestorePoint, target: Path, progress: Progress | None = None, options: DownloadOptions = _ORDINARY
    ) -> Restored:
        """Write the database of a restore point to `target`, checked chunk by chunk and by SQLite.

        `progress` is told (bytes done, bytes in all) of the object. Raises `DamagedRestorePoint`, `NoRoom`,
        `NothingToRestore` when the object is gone; `target` is removed when anything fails.
        """
        contents, tail = await self._open(point)
        with local_errors(target), _removed_on_failure(target):
            require_room(target, contents.index.database_size)
            # A name of its own: what a killed predecessor left here may be linked to the live database.
            target.unlink(missing_ok=True)
            with _created(target, options.mode) as file:
                os.truncate(file, contents.index.database_size)
                source = _Source(point, contents, tail)
                await _Transfer(self._catalog, source, file, options).run(progress or _silent)
            try:
                await self._checker.check(target, self._integrity, options.yield_to_app)
            except DamagedDatabase as error:
                raise DamagedRestorePoint(f"restore point {point.key}: {error.message}") from error
        return Restored(point, tail.info, contents, contents.size)

    async def stage(
        self, point: RestorePoint, database: Database, progress: Progress | None = None
    ) -> tuple[Restored, Path]:
        """Download to a temporary name beside the database. Raises what `download` does."""
        staged = temporary(database.path)
        return await self.download(point, staged, progress), staged

    async def _open(self, point: RestorePoint) -> tuple[Contents, Blob]:
        """Index and tail of a restore point; the tail is the whole object when that is small."""
        wanted = point.size if point.size <= self._catalog.part_size else TAIL
        while True:
            blob = await _get(self._catalog, point, Span(-wanted) if wanted < point.size else None)
            try:
                contents = decode_tail(blob.data, blob.info.size, point.key)
            except TailTooShort as short:
                wanted = min(short.needed, blob.info.size)
                continue
            self._require_identity(point, contents)
            return contents, blob

    def _require_identity(self, point: RestorePoint, contents: Contents) -> None:
        """A store that answers with another object is noticed here."""
        index = contents.index
        if (index.database, index.timestamp) != (point.database, str(point.timestamp)):
            raise DamagedRestorePoint(
                f"restore point {point.key} is damaged: its index says {index.database} at {index.timestamp}"
            )


async def _get(
    catalog: Catalog, point: RestorePoint, span: Span | None, etag: str | None = None, into: memoryview | None = None
) -> Blob:
    try:
        return await catalog.store.get(point.key, span=span, if_match=etag, into=into)
    except (NotFound, PreconditionFailed) as error:
        raise DamagedRestorePoint(f"restore point {point.key} disappeared or changed while it was read") from error


class _Transfer:
    """The ranges of one restore point on their way into a file, a few at once."""

    def __init__(self, catalog: Catalog, source: _Source, file: int, options: DownloadOptions) -> None:
        self._catalog = catalog
        self._source = source
        self._file = file
        self._options = options
        self._runs = iter(source.contents.group(catalog.part_size))
        self._buffers = Pool(partial(bytearray, catalog.part_size))
        self._taken: list[float] = []
        self._done = len(source.tail.data)

    async def run(self, progress: Progress) -> None:
        """Fetch, check and write everything; `progress` is told (bytes done, bytes in all)."""

        async def worker() -> None:
            for run in self._runs:
                await self._options.limit_rate(len(run) * CHUNK_SIZE)
                await self._take(run)
                progress(self._done, self._source.contents.size)

        await run_all(*[worker] * self._catalog.concurrency)

    async def _take(self, run: range) -> None:
        contents, tail = self._source.contents, self._source.tail
        start, end = contents.offsets[run.start], contents.offsets[run.stop]
        first_in_tail = contents.size - len(tail.data)
        if start >= first_in_tail:
            await self._write(run, memoryview(tail.data)[start - first_in_tail :])
            return
        data, buffer = await self._fetch(Span(start, end))
        await self._write(run, data)
        self._buffers.give(buffer)
        self._done = min(self._done + end - start, contents.size)

    async def _write(self, run: range, data: Bytes) -> None:
        await to_thread.run_sync(_write_run, self._source.contents, run, data, self._file)

    async def _fetch(self, span: Span) -> tuple[Bytes, bytearray]:
        """The bytes of a range, and the buffer to give back."""

        async def attempt() -> tuple[Bytes, bytearray]:
            buffer = self._buffers.take()  # not given back by an attempt that is given up: it may still be written to
            etag = self._source.tail.info.etag
            blob = await _get(self._catalog, self._source.point, span, etag, memoryview(buffer))
            return blob.data, buffer

        started = time.monotonic()
        found = await hedged(attempt, _patience(self._taken))
        self._taken.append(time.monotonic() - started)
        return found


def _patience(taken: list[float]) -> float:
    """Seconds after which a range is asked for a second time: what is long beside the others, and never hasty."""
    return max(HEDGE_AFTER, 4 * median(taken)) if len(taken) >= HEDGE_SAMPLE else 5 * HEDGE_AFTER


def _write_run(contents: Contents, run: range, data: Bytes, file: int) -> None:
    """Decompress, check and write the chunks of one run; `data` begins with the first one's frame."""
    decoder = Decoder(contents.index)
    view = memoryview(data)
    origin = contents.offsets[run.start]
    for number in run:
        frame = view[contents.offsets[number] - origin : contents.offsets[number + 1] - origin]
        write_all(file, decoder.chunk(number, frame), number * CHUNK_SIZE)


@contextmanager
def _created(path: Path, mode: int) -> Iterator[int]:
    file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_NOFOLLOW, mode)
    try:
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


def _silent(_done: int, _total: int) -> None:
    """No progress wanted."""
