"""Previews what the next boot would do with a database, according to the boot table, without doing it."""

from dataclasses import dataclass

from sidecar.database import CheckReport, Lineage, Marker
from sidecar.errors import DatabaseBusy
from sidecar.host import holder_of, require_unused
from sidecar.model import Database, RestorePoint
from sidecar.repository import Reader
from sidecar.restore.boot_report import format_time
from sidecar.restore.decision import Decision
from sidecar.restore.roll_forward import RollForward
from sidecar.restore.survey import Situation, Survey
from sidecar.status import format_findings


@dataclass(frozen=True, slots=True)
class Preview:
    """What a boot would do, for people. `warning`: it needs attention first."""

    text: str
    warning: bool = False


async def preview(
    survey: Survey, reader: Reader, forward: RollForward, database: Database, lineage: Lineage
) -> Preview:
    """Raises what the boot would raise. Only the index of a restore point is read; `sidecar verify` reads all of it."""
    if holder := holder_of(database):
        return Preview(f"a sidecar (pid {holder.pid}) protects it now: its boot is over")
    found = await survey.look(database, lineage)
    found.require_start()
    if found.restores:
        return await _restore(survey, reader, forward, found)
    if found.newest and found.newest.gone:
        return Preview(f"{_gone(found.newest)}: the local file is kept and published", warning=True)
    return _keep(found, lineage.elsewhere() if found.local else None)


async def _restore(survey: Survey, reader: Reader, forward: RollForward, found: Situation) -> Preview:
    """Preview a restore: of the newest restore point, or of an older one if it is damaged or gone, with its stream."""
    damage: list[str] = []
    good = await survey.newest_good(found, reader.contents, lambda each: damage.append(each.message))
    chosen = f"{good.point.key} of {format_time(good.point)}"
    tail = await forward.look(good.point, good.value[1].index.position) if good.value else None
    if tail and tail.legs:
        chosen += f", with its stream up to commit {tail.legs[-1].upto} of {tail.legs[-1].stream.name},"
    if tail and tail.stopped:
        damage.append(f"the stream ends early ({tail.stopped})")
    if not damage:
        if found.decision is Decision.RESTORE:
            note = _format_check(good.value[1].index.check if good.value else None)
            return Preview(f"{chosen} is restored{note}", warning=bool(note))
        text = f"{_unrelated(found)}: {_moved(found)}, and that restore point is restored (on_conflict=remote)"
        return Preview(text, warning=True)
    lost = f"{damage[0]}: it is skipped, and "
    if found.newest and found.newest.gone:
        lost = f"{_gone(found.newest)}: "
    if good.value is None:
        kept = (
            "the local file"
            if found.newest and found.newest.gone
            else f"the local file, a descendant of {good.point.key},"
        )
        return Preview(f"{lost}{kept} is kept and published", warning=True)
    aside = f"{_moved(found)}, and " if found.decision is Decision.CONFLICT_REMOTE else ""
    return Preview(f"{lost}{aside}{chosen} is restored", warning=True)


def _format_check(check: CheckReport | None) -> str:
    return f"; {format_findings(check.findings)}" if check and check.findings else ""


def _keep(found: Situation, elsewhere: Marker | None) -> Preview:
    match found.decision:
        case Decision.PUBLISH_LOCAL:
            return _begin(found.marker, elsewhere)
        case Decision.KEEP_LOCAL:
            return Preview(f"the local file is kept: it descends from the newest restore point {_newest(found)}")
        case Decision.COMPARE:
            text = (
                "the local file is compared with the newest restore point and its stream, and kept if it has all of it"
            )
            return Preview(text, warning=True)
        case Decision.CONFLICT_LOCAL:
            return Preview(f"{_unrelated(found)}: it is kept and published above it (on_conflict=local)", warning=True)
    text = "there is neither a file nor a restore point: the app starts empty; check the path and the store"
    directory = found.database.path.parent
    missing = "" if directory.is_dir() else f" {directory} does not exist: it is created first"
    return Preview(f"{text}{missing}", warning=True)


def _begin(marker: Marker | None, elsewhere: Marker | None) -> Preview:
    """Preview the first publish of a local file to this store. It may come from another store."""
    kept = "the local file is kept and published: the store has no restore point of it"
    if elsewhere and elsewhere.last:
        text = f"{kept}; it comes from another store, {elsewhere.place}: check `store`"
        return Preview(text, warning=True)
    if marker and marker.last:
        lost = f"the store no longer has any restore point, and the local file descends from {marker.last}"
        return Preview(f"{lost}: it would be kept and published. Check whether they were deleted", warning=True)
    return Preview(kept)


def _moved(found: Situation) -> str:
    """What happens to a local file that loses the conflict. A process that has it open now would prevent that."""
    moved = "the local file is moved aside and published under diverged/"
    try:
        require_unused(found.database.path)
    except DatabaseBusy as error:
        return f"{moved} (not now: {error.message}, and a start would end with {int(error.exit_code)})"
    return moved


def _gone(newest: RestorePoint) -> str:
    return f"the newest restore point {newest.key} is gone from the store"


def _unrelated(found: Situation) -> str:
    return f"the local file does not descend from the newest restore point {_newest(found)}"


def _newest(found: Situation) -> str:
    return f"{found.newest.key} of {format_time(found.newest)}" if found.newest else ""
