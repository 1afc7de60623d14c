"""Everything here needs a real Prometheus, and says so where there is none."""

import pytest

from tests.e2e.conftest import local, machine, proxied
from tests.harness.prometheus import MISSING, WHY_SKIPPED

__all__ = ["local", "machine", "proxied"]


@pytest.fixture(autouse=True, scope="session")
def _prometheus() -> None:
    if MISSING:
        pytest.skip(WHY_SKIPPED)
