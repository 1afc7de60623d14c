"""Histograms of durations, as Prometheus counts them."""

from bisect import bisect_left
from dataclasses import dataclass, field

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)


@dataclass(slots=True)
class Histogram:
    """A histogram of durations: `counts[i]` observations are at most `SECONDS[i]`, and the last count is above all."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(SECONDS) + 1))
    total: float = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(SECONDS, seconds)] += 1
        self.total += seconds

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts in Prometheus' form: pairs of upper bound and count."""
        bounds = [*(str(bound) for bound in SECONDS), "+Inf"]
        running = 0
        pairs = []
        for bound, count in zip(bounds, self.counts, strict=True):
            running += count
            pairs.append((bound, float(running)))
        return pairs
