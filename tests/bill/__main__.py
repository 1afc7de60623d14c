"""Prints the bill of a busy app after 90 days: `python -m tests.bill [--days 90] [--interval 300]`.

Of restore points alone, and with a stream. Litestream's rules are those of its defaults (0.5: https://github.com/benbjohnson/litestream/blob/main/store.go):
a snapshot a day, kept for a day, and files of changed pages for each second, half minute, five minutes and hour, of which the
first kind is deleted within minutes and the others with the snapshot that they follow. The load is the same: a twentieth of
the database changes each day, and is written every second.
"""

import argparse
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from sidecar.policies import RetentionDays
from sidecar.status.bill import Bill, Load, full_bill
from sidecar.status.cost import GB, MONTH, PRICES
from tests.bill.days import DAY, live

SIZES = {"100 MB": 100 * 10**6, "1 GiB": 1 << 30, "10 GiB": 10 << 30}
RATIO = 0.44  # compressed to plain
CHANGED = 0.05  # of the database in a day
START = datetime(2026, 9, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Line:
    """What a month costs, in US dollars, with this many bytes at rest."""

    name: str
    stored: float
    requests: float
    egress: float

    @property
    def storage(self) -> float:
        """The bytes at rest."""
        return self.stored / GB * PRICES.stored

    def show(self) -> str:
        """A row."""
        total = self.storage + self.requests + self.egress
        return f"  {self.name:<34}{self.stored / GB:>9.1f} GB {self.storage:>9.2f} {self.requests:>9.2f} {self.egress:>9.2f} {total:>9.2f}"


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m tests.bill", description=__doc__)
    parser.add_argument("--days", type=int, default=90)
    parser.add_argument("--interval", type=float, default=300.0, help="seconds between restore points")
    options = parser.parse_args()
    interval = timedelta(seconds=options.interval)
    kept = {keep: _kept(options.days, interval, keep) for keep in (RetentionDays(2, 14, 90, 35), RetentionDays())}
    print(f"restore points after {options.days} days, one every {options.interval:.0f} s:")
    for keep, (rules, tags, names) in kept.items():
        print(f"  {keep}: {rules} with rules, {tags} pruned by tags, {names} by names")
    for title, size in SIZES.items():
        print(f"\n{title:<36}{'at rest':>12} {'storage':>9} {'requests':>9} {'egress':>9} {'$ a month':>9}")
        for keep, (rules, _, _) in kept.items():
            print(
                _sidecar(
                    f"sidecar, {keep.recent}/{keep.hourly}/{keep.daily} days", size, options.interval, keep, rules
                ).show()
            )
        print(_streamed(size, options.interval, kept[RetentionDays()][0]).show())
        print(_litestream(size).show())


def _kept(days: int, interval: timedelta, keep: RetentionDays) -> tuple[int, int, int]:
    *_, (_, stores) = live(days, interval, keep, START)
    return len(stores.rules), len(stores.tags), len(stores.names)


def _sidecar(name: str, size: int, interval: float, keep: RetentionDays, objects: int) -> Line:
    uploaded = size * RATIO * CHANGED * interval / DAY.total_seconds()
    bill = full_bill(Load(round(size * RATIO), round(uploaded), interval), keep)
    return Line(name, objects * size * RATIO, bill.requests, bill.egress)


def _streamed(size: int, interval: float, objects: int) -> Line:
    """The same with a stream: the changed pages a second time, each second an object."""
    keep, daily = RetentionDays(), size * RATIO * CHANGED
    uploaded = round(daily * interval / DAY.total_seconds())
    bill: Bill = full_bill(Load(round(size * RATIO), uploaded, interval, 86_400, daily), keep)
    return Line(
        "sidecar, streaming every second", objects * size * RATIO + daily * keep.stream, bill.requests, bill.egress
    )


def _litestream(size: int) -> Line:
    daily, snapshots = size * RATIO * CHANGED, 2  # one is kept for a day, while the next one is made
    files = 86_400 + 2 * 1440 + 288 + 24 + 1
    sent = 4 * daily + size * RATIO  # each level is read and written anew, and the snapshot
    stored = snapshots * size * RATIO + 3 * daily * snapshots
    days = MONTH / DAY.total_seconds()
    return Line("Litestream 0.5, its defaults", stored, files * days * PRICES.write, sent * days / GB * PRICES.sent)


if __name__ == "__main__":
    main()
