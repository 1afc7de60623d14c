"""Whether something deletes expired restore points from the store, and what it means if nothing does. Pure."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from sidecar.policies import Expires
from sidecar.status import documentation
from sidecar.status.cost import GB, PRICES
from sidecar.status.listing import Listing
from sidecar.units import format_size

MANY = 20  # restore points that should be gone: fewer may be held, or the first ones of streams
SHOWS = timedelta(days=3)  # once the history is older, it shows whether anything deletes

_HINTS = {
    Expires.TAGS: f"the bucket lacks lifecycle rules for the tag sidecar-tier, or they do not match `retention_days`: {documentation.RULES}",
    Expires.PREFIXES: f"the bucket lacks lifecycle rules for these prefixes: {documentation.RULES}",
    Expires.PRUNE: "pruning does not succeed: the log says why (`pruning failed`, `tagging and pruning postponed`)",
    Expires.NOTHING: f"run `sidecar prune` every day with a key of its own, or set prune=on: {documentation.PRUNE}",
}


def untagged_attention(expires: Expires | None, count: int) -> tuple[str, str] | None:
    """What it means that superseded restore points could not be given their tier; None for a few, which are tried again."""
    why = "the log says why (`tagging and pruning postponed`); the writer may lack"
    if count <= MANY or expires not in {Expires.TAGS, Expires.PREFIXES}:
        return None
    told = f"{count} superseded restore points could not be given their tier"
    if expires is Expires.TAGS:
        return f"{told}, so no rule deletes them", f"{why} s3:PutObjectTagging"
    return f"{told}, so they expire within days, and the history is that short", f"{why} s3:PutObject below `expiring/`"


def attention(
    expires: Expires | None, listing: Listing | None, stored: Mapping[str, int], now: datetime, *, billable: bool
) -> tuple[str, str] | None:
    """What is wrong with the expiry of a database's restore points, and what to do; None if nothing is, or it is not known.

    `stored` are the bytes in the store, by tier. Where no rules can do it, somebody may run `sidecar prune`: a history that is
    older than some days shows it.
    """
    if expires is None or listing is None:
        return None
    bill = f"; all of them have {format_size(sum(stored.values()))}"
    bill += f", ${sum(stored.values()) / GB * PRICES.stored:.2f} a month" if billable else ""
    if listing.overdue > MANY:
        return (f"{listing.overdue} restore points have expired and are still in the store{bill}", _HINTS[expires])
    begun = listing.oldest is None or now - listing.oldest.time < SHOWS
    if expires is Expires.NOTHING and begun:
        return (f"nothing is known to delete old restore points from this store{bill}", _HINTS[expires])
    return None
