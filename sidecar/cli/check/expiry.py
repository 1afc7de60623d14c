"""What deletes expired restore points from the store, what the bucket's rules do, and the bill once the history is full."""

from sidecar.bootstrap import Services
from sidecar.cli.check.finding import Finding
from sidecar.errors import AccessDenied, ConfigurationError, StoreMissing
from sidecar.model import Database, RestorePoint
from sidecar.policies import Expires
from sidecar.repository.bucket_rules import RulesReport, judge_rules, prefix_of
from sidecar.repository.expiry import what_expires
from sidecar.settings import Settings
from sidecar.status import busiest, documentation
from sidecar.status.bill import Load, full_bill, monthly_growth, noncurrent_day
from sidecar.units import format_duration, format_size

PRUNE = f"run `sidecar prune` every day with a key of its own, or set prune=on: {documentation.PRUNE}"
RATIO = 0.45  # of a restore point's size to its database's, where there is none yet; measured on mixed data


async def expiry(services: Services, database: Database) -> Finding:
    """What deletes expired restore points. Raises `ConfigurationError` if a rule of the bucket would delete the newest one."""
    prunes, keep = services.status.expires is Expires.PRUNE, services.configuration.settings.retention_days
    expires = services.status.expires = what_expires(services.store.traits, prunes=prunes)
    report = await _read_rules(services, database)
    if isinstance(report, RulesReport):
        _require_safe(report, database)
    match expires:
        case Expires.PRUNE:
            return Finding(f"sidecar itself deletes what has expired: {keep}")
        case Expires.NOTHING:
            return Finding(
                f"nothing deletes old restore points: {services.store.traits.store} has no rules that select by tag; {PRUNE}",
                "warning",
            )
    if report is None:
        services.status.expires = Expires.NOTHING  # for the bill
        return Finding(
            f"nothing is known to delete old restore points: the store has no lifecycle rules; {PRUNE}", "warning"
        )
    if isinstance(report, str):
        return Finding(f"by the bucket's rules, {report}; `retention_days` says {keep}", "skipped")
    return _judge(report, str(keep), placing=expires is Expires.PREFIXES)


async def _read_rules(services: Services, database: Database) -> RulesReport | str | None:
    """What the rules mean, or why they could not be read; None if the server does not know such rules."""
    if services.lifecycle is None:
        return "which it does not have"
    try:
        rules = await services.lifecycle.rules()
    except AccessDenied:
        return "which may not be read: allow s3:GetLifecycleConfiguration to have them checked"
    except (ConfigurationError, StoreMissing) as error:
        return f"which cannot be read: {error.message}"
    if rules is None:
        return None
    placing = services.status.expires is Expires.PREFIXES
    return judge_rules(rules, database.name, services.configuration.settings.retention_days, placing=placing)


def _require_safe(report: RulesReport, database: Database) -> None:
    if report.fatal:
        rule = report.fatal[0]
        when = f"after {_days(rule.days)}" if rule.days else "at a fixed date"
        what = f"what is below {rule.prefix!r} in the store" if rule.prefix else "all objects of the store"
        raise ConfigurationError(
            f"the bucket's rule {rule.name!r} deletes {what} {when}, whatever their tags: the newest "
            f"restore point of {database.name}, too, when the app writes nothing for so long",
            f"give it a filter for the tag sidecar-tier, or another prefix: {documentation.RULES}",
        )


def _judge(report: RulesReport, keep: str, *, placing: bool) -> Finding:
    shown = ", ".join(f"{tier} after {_days(days)}" for tier, days in report.days.items())
    names = [prefix_of(tier) for tier in report.missing] if placing else report.missing
    which, verb = ("what is below ", "it is") if placing else ("", "they are")
    missing = f"no rule deletes {which}{', '.join(names)}: {verb} kept for ever: {documentation.RULES}"
    problems = [
        *([missing] if report.missing else []),
        *([f"`retention_days` says {keep}: give both the same days"] if report.different else []),
        *([f"the rule {report.held[0].name!r} deletes held restore points"] if report.held else []),
    ]
    text = f"by the bucket's rules: {shown}" if shown else "by the bucket's rules"
    return Finding("; ".join([text, *problems]), "warning" if problems else "ok")


def _days(count: int) -> str:
    return f"{count} day" if count == 1 else f"{count} days"


async def bill(services: Services, database: Database, newest: RestorePoint | None) -> Finding:
    """What a month costs once the history is full, if the app writes all the time."""
    settings = services.configuration.settings
    signature = services.snapshotter.signature(database.path)
    if newest and newest.size:
        size, how = newest.size, f"restore points of {format_size(newest.size)}"
    elif signature:
        size = round(RATIO * signature.database.size)
        how = f"restore points of about {format_size(size)}"
    else:
        return Finding("there is neither a restore point nor a database to estimate it from", "skipped")
    interval = settings.interval.total_seconds()
    placed = services.status.expires is Expires.PREFIXES
    load = Load(size, size, interval, part_size=settings.part_size)
    most = full_bill(load, settings.retention_days, placed=placed)
    day = noncurrent_day(load)
    growth = f"${monthly_growth(load):.2f} every month"
    if services.status.expires is Expires.NOTHING:
        kept, storage = how, f"storage that grows by {growth} unless `sidecar prune` runs"
    else:
        kept = f"at most {most.objects} {how}, {format_size(most.stored)}"
        storage = f"${most.storage:.2f} of storage (where nothing deletes them, it grows by {growth})"
    return Finding(
        f"{kept} if the app writes all the time and every {format_duration(settings.interval)} is published: "
        f"{storage}, ${most.requests:.2f} of requests and up to ${most.egress:.2f} of egress a month{_segments(settings)}; a "
        f"versioned bucket adds ${day:.2f} for each day that it keeps noncurrent versions; prices are AWS's and fly.io's"
    )


def _segments(settings: Settings) -> str:
    if settings.why_not_streamed:
        return ""
    every = format_duration(settings.stream_interval)
    dollars = busiest(settings.stream_interval.total_seconds())
    return f", and ${dollars:.2f} of requests for segments if there is a commit every {every}"
