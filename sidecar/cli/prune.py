"""`sidecar prune`: delete what has expired, with credentials that may delete."""

from collections import Counter
from collections.abc import Sequence

from sidecar.cli.output import Table, complain, format_age, say
from sidecar.cli.session import attended
from sidecar.errors import ExitCode
from sidecar.repository.pruning import Prospect, Pruned, pruner_of
from sidecar.repository.rights import may_write
from sidecar.settings import Configuration
from sidecar.units import format_size


async def prune(configuration: Configuration, *, dry_run: bool) -> int:
    """Say what has expired of every database, then delete it, unless this is a dry run."""
    async with attended(configuration) as services:
        keep, store = configuration.settings.retention_days, services.status.store
        pruner = pruner_of(services.catalog(), services.prunable, keep, services.clock)
        found = [await pruner.prospect(each.name) for each in services.databases]
        if dry_run:
            _list(found)
        for each in found:
            say(_format(each, dry_run=dry_run))
        if services.location.uses_credentials and await may_write(services.catalog().store):
            complain(
                "these credentials may write to the store as well: give `sidecar prune` a key of its own that may only "
                "list, read and delete"
            )
        if dry_run:
            return ExitCode.OK
        for each in found:
            say(_format_done(each, await pruner.carry_out(each.plan), store))
    return ExitCode.OK


def _list(found: Sequence[Prospect]) -> None:
    """Every restore point that has expired; segments are too many for that."""
    table = Table("TIER", "AGE", "SIZE", "KEY")
    for prospect in found:
        for each in prospect.plan.points:
            age = (prospect.plan.at - each.point.timestamp.instant).total_seconds()
            table.add(each.tier, format_age(age), format_size(each.point.size), each.point.key)
    if any(each.plan.points for each in found):
        table.show(empty="")


def _format(prospect: Prospect, *, dry_run: bool) -> str:
    plan = prospect.plan
    if plan.distrust:
        return f"{plan.database}: nothing is deleted: {plan.distrust}"
    stay = f"{plan.kept} restore points stay" + (f", {plan.held} of them held" if plan.held else "")
    if not plan.points and not plan.kept:
        return f"{plan.database}: the store has no restore points of it; `sidecar list` shows which databases it has"
    if not plan.points and not prospect.segments:
        return f"{plan.database}: nothing has expired; {stay}"
    tiers = Counter(each.tier for each in plan.points)
    shown = ", ".join(f"{count} {tier}" for tier, count in tiers.items())
    points = f"{len(plan.points)} restore points ({shown})" if shown else "no restore points"
    verb = "would delete" if dry_run else "deletes"
    return f"{plan.database}: {verb} {points} and {prospect.segments} segments, {format_size(prospect.size)}; {stay}"


def _format_done(prospect: Prospect, pruned: Pruned, place: str) -> str:
    counts = f"{len(pruned.keys)} restore points and {pruned.segments} segments, {format_size(pruned.size)}"
    return f"{prospect.plan.database}: deleted {counts}, from {place}"
