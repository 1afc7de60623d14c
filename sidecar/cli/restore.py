"""`sidecar restore`: by hand, onto the database's own path or elsewhere."""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from anyio import to_thread

from sidecar.bootstrap import Services
from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.errors import (
    DamagedDatabase,
    DamagedRestorePoint,
    ExitCode,
    NotFound,
    NothingToRestore,
    UsageError,
)
from sidecar.host.files import Swap, aside, local_errors, require_unused, require_writable, swap
from sidecar.host.locks import local_locks
from sidecar.model import Database, RestorePoint, Timestamp
from sidecar.progress import progress_bar
from sidecar.repository.catalog import OTHERS, Replica, only
from sidecar.repository.keys import point_of
from sidecar.repository.reader import Restored
from sidecar.settings.fields import Configuration


async def restore(
    configuration: Configuration, *, at: str | None, key: str | None, output: str | None, force: bool
) -> int:
    """Restore what is asked for. An existing file is replaced only with `force`, and kept beside the new one."""
    if at and key:
        raise UsageError("--at and --key exclude each other", "give one of them")
    instant = _parse_time(at) if at else None
    async with attended(configuration) as parts:
        if len(parts.databases) > 1 and (key or output):
            raise UsageError("--key and --output are for one database", "name it with --database")
        replica = parts.replica()
        for database in parts.databases:
            point = await _choose(replica, database, instant, key)
            target = Path(output).resolve() if output else database.path
            if target == database.path:
                with local_locks([database], None, parts.store.url):
                    await _onto_own_path(parts, replica, database, point, force=force)
            else:
                await _elsewhere(parts, replica, Database(database.name, target), point, force=force)
            say(f"{point.key} restored to {target}")
    return ExitCode.OK


async def _choose(replica: Replica, database: Database, at: Timestamp | None, key: str | None) -> RestorePoint:
    if key:
        return await _by_key(replica, database, key)
    if at:
        return await replica.find(database.name, at)
    newest = await replica.newest(database.name)
    if newest is None:
        others = only(await replica.names(OTHERS))
        raise NothingToRestore(
            f"{replica.store.url} has no restore point of {database.name}{others}",
            "check `store` and the database's name",
        )
    if newest.gone:
        left = [point.key async for point in replica.points(database.name) if point.key < newest.key]
        hint = f"`--key {left[-1]}` restores the newest one that is left" if left else "no older one is left"
        raise DamagedRestorePoint(f"the newest restore point {newest.key} is gone from the store", hint)
    return newest


async def _by_key(replica: Replica, database: Database, key: str) -> RestorePoint:
    key = key.removeprefix(f"{replica.store.url}/")  # as other tools write it
    try:
        point = point_of(await replica.store.head(key))
    except NotFound:
        raise NothingToRestore(f"{key} does not exist in {replica.store.url}", "see `sidecar list`") from None
    if point is None or point.database != database.name:
        raise UsageError(
            f"{key} is no restore point of {database.name}", "see `sidecar list`; name the right --database"
        )
    return point


async def _onto_own_path(
    parts: Services, replica: Replica, database: Database, point: RestorePoint, *, force: bool
) -> None:
    """Never over a database that is in use; what was there stays beside it; the marker says what it is now.

    As at a boot, the database is `app_user`'s in the end.
    """
    if parts.snapshotter.signature(database.path) is not None:
        _require_force(database.path, force=force)
        require_unused(database.path)
    parts.entrust()  # before anything is downloaded in vain
    lineage = parts.lineage(database)
    await _replace(parts, replica, database, point, partial(lineage.descends, point.key, by_hand=True))
    parts.entrust()
    newest = await replica.newest(database.name)
    if newest and newest.key != point.key:
        say(
            f"note: this is not the newest restore point; `sidecar backup` makes it the newest, else a boot restores {newest.key}"
        )


async def _elsewhere(parts: Services, replica: Replica, target: Database, point: RestorePoint, *, force: bool) -> None:
    if target.path.is_dir():
        raise UsageError(f"--output {target.path} is a directory", "name a file")
    if target.path.exists():
        _require_force(target.path, force=force)
        require_unused(target.path)
    await _replace(parts, replica, target, point, lambda _root, _file: None)


async def _replace(
    parts: Services, replica: Replica, database: Database, point: RestorePoint, mark: Callable[[str, Path], None]
) -> None:
    """Download and verify first, then swap. `mark` is told the root digest and the file before the rename."""
    with local_errors(database.path):
        require_writable(database.path)
        database.path.parent.mkdir(parents=True, exist_ok=True)
        restored, staged = await _stage(parts, replica, database, point)
        try:
            at = Timestamp.of(datetime.now(UTC))
            kept = await _way_out(parts, database, at)
            before = partial(mark, restored.contents.index.root)
            durable = parts.durable(database.path)
            await to_thread.run_sync(swap, Swap(staged, database.path, kept, at, durable, before))
        finally:
            staged.unlink(missing_ok=True)
    if kept:
        say(f"the database that was there is kept at {kept}")


async def _stage(parts: Services, replica: Replica, database: Database, point: RestorePoint) -> tuple[Restored, Path]:
    with progress_bar(f"restore {point.key}") as progress:
        try:
            return await parts.restorer(replica).stage(point, database, progress)
        except DamagedRestorePoint as error:
            hint = error.hint or "restore an older one with --key; `sidecar list` shows them"
            raise DamagedRestorePoint(error.message, hint) from error


async def _way_out(parts: Services, database: Database, at: Timestamp) -> Path | None:
    """Where what is there goes. Asked again whether it is in use: an app may have been started during the download."""
    if parts.snapshotter.signature(database.path) is None:
        return None
    require_unused(database.path)
    with suppress(DamagedDatabase):  # it is kept as it is
        await parts.snapshotter.settle(database.path)
    return aside(database.path, "replaced", at)


def _require_force(path: Path, *, force: bool) -> None:
    if not force:
        raise UsageError(
            f"{path} exists", "--force replaces it and keeps the old one beside it; --output writes elsewhere"
        )


def _parse_time(text: str) -> Timestamp:
    try:
        return Timestamp(text)
    except ValueError:
        pass
    try:
        instant = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(
            f"--at {text!r} is not a time", "write it like 2026-11-20T14:55:00Z or 20261120T145503.123Z"
        ) from None
    return Timestamp.of(instant if instant.tzinfo else instant.replace(tzinfo=UTC))
