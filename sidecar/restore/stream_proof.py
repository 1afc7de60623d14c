"""Proves that the stream between the last two restore points is complete: the older one with the stream applied is the newer
one.

Only this can reveal that a stream silently lacks something, because a restore point is a complete copy made by SQLite. The
result is compared with the newer one's digests, so one scratch file is enough. Bytes that SQLite's backup rewrites in each
copy are ignored.
"""

import hashlib
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from anyio import to_thread

from sidecar.database.base import Staging
from sidecar.errors import DamagedRestorePoint, DamagedSegment
from sidecar.log import log
from sidecar.model import Origin, Position, RestorePoint
from sidecar.policies import RetentionDays
from sidecar.repository import Catalog, DownloadOptions, Reader, Restored
from sidecar.repository.format.index import CHUNK_SIZE
from sidecar.repository.history import Path as History
from sidecar.repository.retention import Tier, lifetime
from sidecar.restore.descent import without_rewritten
from sidecar.restore.roll_forward import RollForward

EARLY = timedelta(days=1)  # by how much a rule may expire a segment before its time at most: its clock is another one
HINT = "every restore point is good; times between these two cannot be restored. Please report this with the log"


class StreamProof:
    """Proves the stream that leads to the newest restore point of one database."""

    def __init__(
        self,
        catalog: Catalog,
        reader: Reader,
        forward: RollForward,
        staging: Staging,
        path: Path,
        share: int,
        keep: RetentionDays,
    ) -> None:
        """`path` is that of the database; `reader` need not check what it downloads. `share` times its size must be free."""
        self._catalog = catalog
        self._reader = reader
        self._forward = forward
        self._staging = staging
        self._scratch = path.with_name(f"{path.name}.stream-drill")
        self._share = share
        self._surely_there = lifetime(Tier.STREAM, keep) - EARLY

    async def prove(self, newest: Restored, options: DownloadOptions) -> None:
        """Raises `DamagedSegment` or `DamagedDatabase` for the stream; other errors if the proof was not possible.

        Nothing is compared if no stream leads from one to the other, or if the newer one is in the middle of commits that
        were folded into one.
        """
        position = newest.contents.index.position
        before = await self._before(newest.point) if position else None
        if before is None or position is None:
            return
        history = await self._forward.look(before, await self._catalog.position(before))
        part = leading_to(history, position)
        if part:
            await self._compare(before, part, newest, options)
        elif history.stopped and await self._is_recent(before):
            raise _broken(before, newest.point, history.stopped)

    async def _before(self, newest: RestorePoint) -> RestorePoint | None:
        """The restore point before the newest one, on the main line."""
        older = [each for each in await self._catalog.up_to(newest) if each.timestamp < newest.timestamp]
        async for point in self._catalog.main_line(reversed(older)):
            return point
        return None

    async def _is_recent(self, before: RestorePoint) -> bool:
        """Whether no segment after `before` can have expired."""
        return await self._catalog.store.now() - before.timestamp.instant < self._surely_there

    async def _compare(
        self, before: RestorePoint, history: History, newest: Restored, options: DownloadOptions
    ) -> None:
        _, contents = await self._reader.contents(before)
        room = max(contents.index.database_size, newest.contents.index.database_size) * self._share
        with self._staging.reserve(self._scratch, room) as (file, _):
            try:
                restored = await self._reader.download(before, file, None, options)
            except DamagedRestorePoint as damage:  # of the older one, which is not the subject of this proof
                log.warning("drill: stream not compared", database=before.database, error=damage.message)
                return
            reached = await self._forward.write(restored, file, history)
            if reached.stopped:
                raise _broken(before, newest.point, reached.stopped)
            if reached.position != history.end:
                log.info("drill: stream not compared", database=before.database, cause="commits were folded into one")
                return
            if problem := await self._difference(file, newest, options):
                raise _broken(before, newest.point, problem)
            log.info("drill: stream good", database=before.database, key=before.key, commits=reached.commits)

    async def _difference(self, file: Path, newest: Restored, options: DownloadOptions) -> str:
        """How a file differs from a restore point, or an empty string."""
        index, size = newest.contents.index, file.stat().st_size
        if size != index.database_size:
            return f"the result has {size} bytes, not {index.database_size}"
        first = without_rewritten(await self._reader.first_chunk(newest.point))
        with file.open("rb") as content:
            for number in range(index.chunks):
                await options.limit_rate(CHUNK_SIZE)
                chunk = await to_thread.run_sync(content.read, CHUNK_SIZE)
                if number == 0:
                    same = without_rewritten(chunk) == first
                else:
                    same = (await to_thread.run_sync(hashlib.sha256, chunk)).digest() == index.digest(number)
                if not same:
                    return (
                        f"the result differs between byte {number * CHUNK_SIZE} and {number * CHUNK_SIZE + len(chunk)}"
                    )
        return ""


def leading_to(history: History, position: Position) -> History | None:
    """The history up to a position on it; None if it does not lead there. Pure."""
    if history.start == position:
        return History(position, (), position)
    for number, leg in enumerate(history.legs):
        if leg.stream.name == position.stream and position.commit <= leg.upto:
            needed = tuple(each for each in leg.segments if each.first <= position.commit)
            last = replace(leg, upto=position.commit, segments=needed)
            legs = (*history.legs[:number], *([last] if position.commit > leg.after else ()))
            end: Origin = Position(legs[-1].stream.name, legs[-1].upto) if legs else history.start
            return History(history.start, legs, end)
    return None


def _broken(before: RestorePoint, newest: RestorePoint, why: str) -> DamagedSegment:
    return DamagedSegment(f"the stream does not lead from {before.key} to {newest.key}: {why}", HINT)
