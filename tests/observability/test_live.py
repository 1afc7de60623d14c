"""A real Prometheus scrapes the running sidecar of the demo app: metrics, every query of the dashboard, every alert."""

import json
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.dashboard import DASHBOARD
from tests.e2e.guestbook import Load, port_of, serve
from tests.e2e.machine import Machine
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually
from tests.harness.prometheus import Prometheus, promtool
from tests.harness.sidecar_process import SidecarProcess
from tests.observability.platform import FLY, exporter

if TYPE_CHECKING:
    from tests.harness.seaweed import Seaweed

pytestmark = pytest.mark.s3

RULES = DASHBOARD.parent / "alerts.yml"

# Metrics that this daemon does not export here: the platform exports them, or they need a role.
ELSEWHERE = {
    "fly_instance_exit_code": "fly_instance_exit_code 0",
    "sidecar_credentials_expiry_timestamp_seconds": "sidecar_credentials_expiry_timestamp_seconds 4.0e9",
}
# The values that Grafana would insert.
VARIABLES = {
    "$__rate_interval": "30s",
    "$__range": "1m",
    "$app": "(shop)",
    "$region": ".*",
    "$instance": "(148e1234567890)",
    "$database": ".*",
}


@dataclass(frozen=True)
class Live:
    """A machine under load, and the Prometheus that scrapes it."""

    process: SidecarProcess
    prometheus: Prometheus


@pytest.fixture(scope="module")
def live(seaweed: "Seaweed", tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """The guestbook on its second boot, so that there was a restore, publishing every second and streaming."""
    root, bucket = tmp_path_factory.mktemp("live"), f"test-{uuid.uuid4().hex[:12]}"
    seaweed.ensure()
    seaweed.s3.make_bucket(bucket)
    environment = clean_environment(root) | seaweed.environment()
    machine = Machine.make(root, f"s3://{bucket}/shop", environment)
    settings = {"interval": "1s", "lease_ttl": "6s", "drill_interval": "2s", "stream": "on"}
    with serve(machine, settings) as first:
        port_of(first)
        assert first.terminate() == 0
    machine.lose_disk()
    text = "\n".join(ELSEWHERE.values()) + "\n"
    with exporter(text) as elsewhere, serve(machine, settings) as process:
        targets = [(process.port, FLY), (elsewhere.port, {**FLY, "job": "platform"})]
        with Prometheus(root, targets, RULES) as prometheus, Load(port_of(process), clients=1), waiting(process):
            process.wait_metric("sidecar_backups_total", 3, outcome="published")
            process.wait_metric("sidecar_lease_renewals_total", 2, outcome="ok")
            process.wait_metric("sidecar_drills_total", 1, outcome="good")
            process.wait_metric("sidecar_stream_segments_total", 1)
            yield Live(process, prometheus)
    machine.sweep_memory()
    seaweed.ensure()
    seaweed.s3.drop_bucket(bucket)


@contextmanager
def waiting(process: SidecarProcess) -> Iterator[None]:
    """Somebody who waits until what was committed is stored, again and again."""
    over = threading.Event()

    def wait() -> None:
        while not over.is_set():
            connection = HTTPConnection("127.0.0.1", process.port, timeout=30)
            connection.request("POST", "/wait")
            connection.getresponse().read()
            connection.close()
            over.wait(0.2)

    thread = threading.Thread(target=wait)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def queries() -> Iterator[tuple[str, str]]:
    """Title of the panel and expression of every query of the dashboard, as Grafana would send it."""
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        for target in panel.get("targets", ()):
            expression = target["expr"]
            for name, value in VARIABLES.items():
                expression = expression.replace(name, value)
            assert "$" not in expression
            yield f"{panel['title']}, {target['refId']}", expression


QUERIES = dict(queries())


def test_metrics_are_as_promtool_wants_them(live: Live, tmp_path: Path) -> None:
    """promtool accepts the names, units and help texts of everything that a running daemon exports."""
    status, output = promtool("check", "metrics", cwd=tmp_path, text=live.process.http("/metrics")[1])
    assert (status, output) == (0, "")


def test_prometheus_has_every_sample_that_the_daemon_shows(live: Live) -> None:
    families = text_string_to_metric_families(live.process.http("/metrics")[1])
    shown = {sample.name for family in families for sample in family.samples}
    stored: set[str] = set()

    def all_stored() -> bool:
        stored.update(live.prometheus.label_values("__name__", '{job="sidecar"}'))
        return shown <= stored

    eventually(all_stored, 20, "Prometheus has scraped every sample")
    assert not shown & set(ELSEWHERE), "exported by now: the stand-in in ELSEWHERE can go"


@pytest.mark.parametrize("title", QUERIES)
def test_every_query_of_the_dashboard_returns_data(title: str, live: Live) -> None:
    """There is at least one number that is not NaN: a panel that stays empty looks healthy."""
    eventually(lambda: live.prometheus.values(QUERIES[title]), 20, f"data for {title}: {QUERIES[title]}")


def test_every_variable_of_the_dashboard_offers_values(live: Live) -> None:
    for variable in json.loads(DASHBOARD.read_text())["templating"]["list"][1:]:
        found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"])
        assert found, variable["query"]
        match = re.sub(r'"\$\w+"', '".*"', found[1])
        assert live.prometheus.label_values(found[2], match), variable["name"]


def test_all_of_a_variable_fits_series_without_that_label(live: Live) -> None:
    """Outside fly.io no series has the labels `app` and `region`."""
    assert live.prometheus.query('sidecar_ready{nowhere=~".*"}')
    assert all(each.get("allValue") == ".*" for each in json.loads(DASHBOARD.read_text())["templating"]["list"][1:])


def test_every_alert_can_be_evaluated_and_none_fires_for_a_healthy_machine(live: Live) -> None:
    """The server itself evaluates them, on real samples with real labels."""
    eventually(lambda: all(rule["health"] != "unknown" for rule in live.prometheus.rules()), 20, "all were evaluated")
    rules = live.prometheus.rules()
    assert len(rules) == RULES.read_text().count("- alert: ")
    assert [rule for rule in rules if rule["health"] != "ok"] == []
    for rule in rules:
        live.prometheus.query(rule["query"])
    assert live.prometheus.firing() == {}
