"""Every run uses the same examples and no time limit: a property must not fail because the machine is busy."""

from hypothesis import HealthCheck, settings

settings.register_profile(
    "sidecar", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("sidecar")
