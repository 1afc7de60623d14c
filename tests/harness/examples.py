"""Hypothesis: every run uses the same examples and no time limit. A property must not fail because the machine is busy."""

from hypothesis import HealthCheck, settings


def use_same_examples() -> None:
    """For all tests of this session that say nothing else."""
    settings.register_profile(
        "sidecar", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("sidecar")
