"""The tests of this package need a real Prometheus; without one they are skipped, with the reason."""

import pytest

from tests.e2e.conftest import local, machine, proxied
from tests.harness.prometheus import MISSING, WHY_SKIPPED

__all__ = ["local", "machine", "proxied"]


@pytest.fixture(autouse=True, scope="session")
def _prometheus() -> None:
    if MISSING:
        pytest.skip(WHY_SKIPPED)
