"""What the lifecycle rules of a bucket do to restore points and segments. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from sidecar.lease import KEY as LEASE_KEY
from sidecar.policies import RetentionDays
from sidecar.repository.keys import STREAM, folder_of, stream_folder_of
from sidecar.repository.places import Place
from sidecar.repository.retention import TIER_TAG, Tier
from sidecar.storage import LifecycleRule


@dataclass(frozen=True, slots=True)
class RulesReport:
    """What a bucket's rules mean for one database.

    `fatal` would delete its newest restore point, or the lease; `held` would delete held ones. `days` after which each tier
    expires; those without a rule are `missing`, those with other days than `retention_days` `different`.
    """

    fatal: tuple[LifecycleRule, ...]
    held: tuple[LifecycleRule, ...]
    days: Mapping[str, int]
    missing: tuple[str, ...]
    different: tuple[str, ...]


def judge_rules(
    rules: Sequence[LifecycleRule], database: str, keep: RetentionDays, *, placing: bool = False
) -> RulesReport:
    """What these rules do to a database.

    A rule without a tag deletes the newest restore point of an app that sleeps for longer than its days: it goes by the age
    of an object. A rule for another tag is nobody's business here. With `placing` the tiers are prefixes (see `places`); of
    the newest restore point, its slots must be out of reach.
    """
    folder, stream = folder_of(database), stream_folder_of(database)
    fatal = [each for each in rules if not each.tags and (_reach(each, folder) or LEASE_KEY.startswith(each.prefix))]
    held = [each for each in rules if _selects(each, Tier.HELD) and _reach(each, folder)]
    if placing:
        held += [each for each in rules if not each.tags and _reach(each, f"{Place.HELD}{folder}")]
    days: dict[str, int] = {}
    for tier in asdict(keep):
        where = stream if tier == Tier.STREAM else folder
        found = [each.days for each in rules if _selects(each, tier) and where.startswith(each.prefix)]
        if tier == Tier.STREAM or placing:
            where = stream if tier == Tier.STREAM else f"{prefix_of(tier)}{folder}"
            found += [
                each.days for each in rules if not each.tags and each not in fatal and where.startswith(each.prefix)
            ]
        if found:
            days[tier] = min(found)
    wanted = asdict(keep)
    missing = tuple(tier for tier in wanted if tier not in days)
    different = tuple(tier for tier in days if days[tier] != wanted[tier])
    return RulesReport(tuple(fatal), tuple(held), days, missing, different)


def prefix_of(tier: str) -> str:
    """The prefix by which a rule selects a tier, where restore points are placed."""
    return f"{STREAM}/" if tier == Tier.STREAM else Place[tier.upper()]


def _selects(rule: LifecycleRule, tier: str) -> bool:
    return rule.tags == {TIER_TAG: str(tier)}


def _reach(rule: LifecycleRule, folder: str) -> bool:
    """Whether a rule selects keys in a folder, or some of them."""
    return folder.startswith(rule.prefix) or rule.prefix.startswith(folder)
