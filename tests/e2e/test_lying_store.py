"""A store that takes conditional writes for ordinary ones: no two machines can be kept apart there, so nothing starts."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.machine import Machine, complaint
from tests.harness.environment import clean_environment
from tests.harness.proxy import FaultProxy, Strip
from tests.harness.seaweed import Seaweed

pytestmark = pytest.mark.s3

BUCKET = "liar"


@pytest.fixture(scope="module")
def credulous(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A server that takes unsigned requests, so that the proxy may leave out headers that were signed."""
    with Seaweed(tmp_path_factory.mktemp("credulous"), open_to_all=True) as server:
        server.s3.make_bucket(BUCKET)
        yield server


@pytest.fixture
def liar(credulous: Seaweed) -> Iterator[FaultProxy]:
    """The way to that server."""
    with FaultProxy(credulous.port) as proxy:
        yield proxy


@pytest.mark.parametrize("ignored", ["if-none-match", "if-match"])
def test_store_that_ignores_conditions_is_refused_before_the_app_starts(
    ignored: str, credulous: Seaweed, liar: FaultProxy, tmp_path: Path
) -> None:
    """Exit 78 and one line that says what to do. With lease=off, by the user's word, the app runs."""
    liar.rule(Strip((ignored, "authorization")), method="PUT")
    env = clean_environment(tmp_path) | credulous.environment(endpoint=liar.endpoint)
    machine = Machine.make(tmp_path, f"s3://{BUCKET}/{ignored}", env)
    marker = machine / "marker"
    with machine.run("touch", str(marker)) as process:
        assert process.wait() == 78
        assert "conditional writes" in complaint(process.stderr())
    assert not marker.exists()
    assert machine.files() == []
    with machine.run("touch", str(marker), lease="off") as process:
        assert process.wait() == 0
    assert marker.exists()
