"""The same examples at every run, and no clock in the verdict: a busy machine must not fail a property."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "sidecar", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sidecar")
