"""`sidecar status` where no daemon runs and the store does not answer: it says what the machine knows, and soon."""

import json
import time

import pytest

from tests.e2e.machine import Machine, complaint, write_note
from tests.harness.proxy import FaultProxy, Stall


@pytest.mark.parametrize("how", ["frozen", "refused"])
def test_status_does_not_wait_for_a_store_that_does_not_answer(proxied: Machine, proxy: FaultProxy, how: str) -> None:
    """The restore point that the database descends from is known; exit code 75. Once, it took half a minute and more."""
    write_note(proxied.database, "kept")
    published = proxied.cli("backup")
    assert published.returncode == 0, published.stderr
    key = published.stdout.split("published: ")[1].split()[0]
    if how == "frozen":
        proxy.rule(Stall(100.0))
    else:
        proxy.down()
    started = time.monotonic()
    shown = proxied.cli("status")
    took = time.monotonic() - started
    assert took < 15, "5 s, and the load of the machine"
    assert shown.returncode == 75
    assert key in shown.stdout
    assert "Unknown: the store does not answer" in shown.stdout
    assert complaint(shown.stderr)
    values = json.loads(proxied.cli("status", "--json").stdout)
    assert (values["source"], values["databases"][0]["restore_point"]) == ("machine", key)
