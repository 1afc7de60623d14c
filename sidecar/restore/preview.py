"""What the next boot would do with a database, for `sidecar check`: the boot table, and nothing of it carried out."""

from sidecar.bootstrap import Services
from sidecar.cli.check.store import Finding
from sidecar.database.lineage import Marker
from sidecar.errors import DamagedRestorePoint, DatabaseBusy, UnsupportedRestorePoint
from sidecar.host.files import require_unused
from sidecar.host.locks import holder_of
from sidecar.model import Database, RestorePoint
from sidecar.restore.boot import none_good, refused
from sidecar.restore.boot_report import said
from sidecar.restore.decision import Decision, decide


async def foretell(parts: Services, database: Database, newest: RestorePoint | None) -> Finding:
    """Raises what the boot would raise, with its exit code."""
    if holder := holder_of(database):
        return Finding(f"a sidecar (pid {holder.pid}) protects it now, and has decided")
    settings = parts.configuration.settings
    local = parts.snapshotter.signature(database.path) is not None
    marker = parts.lineage(database).read() if local else None
    decision = decide(
        newest.key if newest else None,
        local=local,
        marker=marker,
        on_empty=settings.on_empty_store,
        on_conflict=settings.on_conflict,
    )
    key = newest.key if newest else ""
    if refusal := refused(decision, database, parts.store.url, key):
        raise refusal
    if newest and newest.gone:
        older = [point async for point in parts.catalog().points(database.name) if point.key < key]
        return _after_loss(decision, database, newest, older, marker)
    elsewhere = parts.lineage(database).elsewhere() if local else None
    if decision is Decision.PUBLISH_LOCAL and (marker or elsewhere):
        return _begun_anew(marker, elsewhere)
    if (
        newest
        and decision in {Decision.RESTORE, Decision.CONFLICT_REMOTE}
        and (damage := await damage_of(parts, newest))
    ):
        return await _past_damage(parts, database, newest, damage, marker)
    return _finding(decision, database, f"{key} of {said(newest)}" if newest else "")


async def damage_of(parts: Services, point: RestorePoint | None) -> str | None:
    """What is wrong with a restore point as far as its index tells; `sidecar verify` reads all of it."""
    if point is None or point.gone:
        return None
    try:
        await parts.reader(parts.catalog()).contents(point)
    except DamagedRestorePoint as damage:
        return damage.message
    except UnsupportedRestorePoint:
        return None
    return None


async def _past_damage(
    parts: Services, database: Database, newest: RestorePoint, damage: str, marker: Marker | None
) -> Finding:
    older = [point async for point in parts.catalog().points(database.name) if point.key < newest.key]
    for point in reversed(older):
        if marker and marker.names(point.key):
            return Finding(
                f"{damage}: it is left out, and the local file, which goes on from {point.key}, is kept", "warning"
            )
        if await damage_of(parts, point) is None:
            return Finding(f"{damage}: it is left out, and {point.key} of {said(point)} is restored", "warning")
    raise none_good(database, damage)


def _begun_anew(marker: Marker | None, elsewhere: Marker | None) -> Finding:
    """The local file is published to a store that has nothing of it, and comes from one that had."""
    kept = Finding("the local file is kept and published: the store has no restore point of it")
    if elsewhere and elsewhere.last:
        text = f"{kept.text}; it comes from another store, {elsewhere.store}: is `store` right?"
        return Finding(text, "warning")
    if marker and marker.last:
        lost = f"the store has no restore point any more, and the local file descends from {marker.last}"
        return Finding(f"{lost}: it would be kept and published. Were they deleted?", "warning")
    return kept


def _after_loss(
    decision: Decision, database: Database, newest: RestorePoint, older: list[RestorePoint], marker: Marker | None
) -> Finding:
    """The newest restore point is gone: a local file that descends from what is left is kept, else that is restored."""
    lost = f"the newest restore point {newest.key} is gone from the store"
    restores = decision in {Decision.RESTORE, Decision.CONFLICT_REMOTE}
    if restores and not older:
        raise none_good(database, lost)
    if not restores or (marker and marker.names(older[-1].key)):
        return Finding(f"{lost}: the local file is kept and published", "warning")
    aside = f"{_moved(database)}, and " if decision is Decision.CONFLICT_REMOTE else ""
    left = f"{older[-1].key} of {said(older[-1])}"
    return Finding(f"{lost}: {aside}{left} is restored, or an older one if that is damaged", "warning")


def _moved(database: Database) -> str:
    """What becomes of the local file that loses; whoever has it open now would be in the way."""
    moved = "the local file is moved aside and published under diverged/"
    try:
        require_unused(database.path)
    except DatabaseBusy as error:
        return f"{moved} (not now: {error.message}, and a start would end with {int(error.exit_code)})"
    return moved


def _finding(decision: Decision, database: Database, newest: str) -> Finding:
    unrelated = f"the local file does not descend from the newest restore point {newest}"
    match decision:
        case Decision.START_EMPTY:
            text = "there is neither a file nor a restore point: the app starts empty; are path and store right?"
            directory = database.path.parent
            missing = "" if directory.is_dir() else f" {directory} does not exist: the app has to make it first"
            return Finding(f"{text}{missing}", "warning")
        case Decision.PUBLISH_LOCAL:
            return Finding("the local file is kept and published: the store has no restore point of it")
        case Decision.KEEP_LOCAL:
            return Finding(f"the local file is kept: it descends from the newest restore point {newest}")
        case Decision.CONFLICT_LOCAL:
            return Finding(f"{unrelated}: it is kept and published above it (on_conflict=local)", "warning")
        case Decision.CONFLICT_REMOTE:
            text = f"{unrelated}: {_moved(database)}, and that restore point is restored (on_conflict=remote)"
            return Finding(text, "warning")
    return Finding(f"{newest} is restored")
