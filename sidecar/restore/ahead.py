"""What follows a restore point is looked up, and its first segments are fetched, while that one is still downloaded.

There may be hundreds of small objects, each of which costs a round trip. Beside a large download they cost no time.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from sidecar.concurrency import run_all
from sidecar.model import Bytes, Database, Position, RestorePoint
from sidecar.progress import Progress
from sidecar.repository import Reader, Restored
from sidecar.repository.history import Path as History


@dataclass(frozen=True, slots=True)
class Ahead:
    """The history of a restore point whose metadata names `position`, and its first segments by their keys."""

    position: Position | None
    history: History
    segments: dict[str, Bytes]


@dataclass(frozen=True, slots=True)
class StagedAhead:
    """A restore point that is staged at `path`, and what follows it, if that is known by now."""

    restored: Restored
    path: Path
    ahead: Ahead | None


async def stage_ahead(
    reader: Reader,
    point: RestorePoint,
    target: Database,
    progress: Progress | None,
    look: Callable[[RestorePoint], Awaitable[Ahead | None]],
) -> StagedAhead:
    """Stage a restore point while `look` is awaited. Raises what either of the two raises; then nothing is staged."""
    staged: list[tuple[Restored, Path]] = []
    ahead: list[Ahead | None] = []

    async def stage() -> None:
        staged.append(await reader.stage(point, target, progress))

    async def look_meanwhile() -> None:
        ahead.append(await look(point))

    try:
        await run_all(stage, look_meanwhile)
    except BaseException:
        for _, path in staged:
            path.unlink(missing_ok=True)
        raise
    return StagedAhead(*staged[0], ahead[0])
