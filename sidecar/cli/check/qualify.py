"""`sidecar check --qualify`: everything that differs between stores, tried below `.sidecar/probe/`, and what a month costs."""

from sidecar.bootstrap import Services
from sidecar.cli.check.expiry import RATIO
from sidecar.cli.check.store import StoreTrial
from sidecar.cli.output import Table, say
from sidecar.policies import Expires
from sidecar.status import Load, forecast
from sidecar.status.bill import Load as History
from sidecar.status.bill import full_bill, monthly_growth
from sidecar.storage import PartCopy, Traits, abilities
from sidecar.units import format_duration, format_size


async def qualify(services: Services, trial: StoreTrial) -> None:
    """Try all of it, and print what works and what is done instead. Raises `SidecarError`."""
    traits = services.store.traits
    if learner := services.learner:
        traits = await learner.qualify()
        if not learner.known:
            await learner.remember()
    table = Table("ABILITY", "WORKS", "DONE INSTEAD")
    for each in abilities(traits):
        table.add(each.name, "yes" if each.works else "no", each.instead or "-")
    say("")
    table.show(empty="")
    if services.location.billable:
        _show_month(services, trial, traits)


def _show_month(services: Services, trial: StoreTrial, traits: Traits) -> None:
    settings = services.configuration.settings
    size = sum(point.size for point in trial.newest.values()) or round(
        RATIO * sum(each.path.stat().st_size for each in services.databases if each.path.exists())
    )
    if not size:
        say("\nwhat a month costs is not known: there is neither a restore point nor a database to estimate it from")
        return
    load = Load(
        size=size,
        interval=settings.interval.total_seconds(),
        part=max(settings.part_size, traits.minimum_part),
        stream_interval=None if settings.why_not_streamed else settings.stream_interval.total_seconds(),
        lease_ttl=settings.lease_ttl.total_seconds() if settings.lease == "on" else None,
        whole=traits.part_copy is PartCopy.NO,
        equal_parts=traits.equal_parts,
        looked_up=not traits.conditional_put,
        placed=services.status.expires is Expires.PREFIXES,
    )
    busy, idle = forecast(load), forecast(load, idle=True)
    history = History(size, 0, load.interval)
    full = full_bill(history, settings.retention_days, placed=load.placed)
    deleted = services.status.expires is not Expires.NOTHING
    stored = f"${full.storage:.2f} of storage once it has all {full.objects} restore points"
    say("")
    say(
        f"a month of an app that writes all the time, with restore points of {'' if trial.newest else 'about '}{format_size(size)} every "
        f"{format_duration(settings.interval)}: ${busy.requests:.2f} of requests, ${busy.egress:.2f} of traffic, "
        f"{stored if deleted else f'and storage that grows by ${monthly_growth(history):.2f} every month'}; of an idle one: ${idle.requests:.2f} of requests"
    )
    say(
        "at AWS's and fly.io's list prices; a tenth of the database changes between restore points, and there is always something to "
        "stream; storage is that of restore points"
    )
