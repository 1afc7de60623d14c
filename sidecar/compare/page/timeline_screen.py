"""The first screen: what happened, and when. Restore points newest first, with what changed since the one before each."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from math import log1p

from sidecar.compare.counts import Counts, Stretch
from sidecar.compare.page.history import History
from sidecar.compare.page.jobs import Failure
from sidecar.compare.page.source import LIVE
from sidecar.repository import Entry

FEWEST_UNUSUAL = 20  # rows that are gone


@dataclass(slots=True)
class Row:
    """A state on the screen; `older` is the one before it. `height` is how much changed, from 0 to 100."""

    name: str
    older: str | None
    at: datetime
    entry: Entry | None
    counts: Counts | None
    failure: Failure | None
    waiting: bool
    unusual: bool = False
    height: int = 0

    @property
    def is_live(self) -> bool:
        """Whether it is the live database."""
        return self.name == LIVE

    @property
    def anchor(self) -> str:
        """Its place on the screen."""
        return "".join(each for each in self.name if each.isalnum())[-40:]


def rows_of(history: History, stretch: Stretch, *, live: bool) -> list[Row]:
    """The states of one screen, newest first; what is not known of them yet is to be counted."""
    entries = list(stretch.entries)
    names = [LIVE] * live + [each.point.key for each in entries]
    last = stretch.before.point.key if stretch.before else None
    pairs = list(zip([*names[1:], last], names, strict=True)) if names else []
    history.want([(older, newer) for older, newer in pairs if older is not None])
    by_key = {each.point.key: each for each in entries}
    rows = [_row(history, older, newer, by_key.get(newer)) for older, newer in pairs]
    _compare(rows)
    return rows


def _row(history: History, older: str | None, newer: str, entry: Entry | None) -> Row:
    known = history.counted(older, newer) if older is not None else None
    at = entry.point.timestamp.instant if entry else known.at if known else history.now()
    counts, failure = (known.counts, known.failure) if known else (None, None)
    return Row(newer, older, at, entry, counts, failure, older is not None and known is None)


def _compare(rows: Sequence[Row]) -> None:
    """Say which ones are large, and which are unusual: far more rows are gone than ever else on the screen."""
    most = max((each.counts.rows for each in rows if each.counts), default=0)
    removed = sorted((each.counts.removed for each in rows if each.counts), reverse=True)
    usual = removed[1] if len(removed) > 1 else 0
    for row in rows:
        if row.counts and most:
            row.height = round(100 * log1p(row.counts.rows) / log1p(most))
            row.unusual = row.counts.removed >= max(FEWEST_UNUSUAL, 5 * usual)
