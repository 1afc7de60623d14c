"""The endpoints of a machine: /livez, /readyz, /status and /metrics."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.machine import CALM_APP, Machine, complaint, write_note
from tests.harness.environment import clean_environment
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.proxy import FaultProxy, Stall
from tests.harness.sidecar_process import SidecarProcess

THEIRS = "# HELP hits_total Hits\n# TYPE hits_total counter\nhits_total 7.0\n"
FAMILIES = {
    "sidecar_build_info",
    "sidecar_ready",
    "sidecar_restore_duration_seconds",
    "sidecar_restore_bytes",
    "sidecar_restores",
    "sidecar_backups",
    "sidecar_backup_duration_seconds",
    "sidecar_last_backup_success_timestamp_seconds",
    "sidecar_unprotected_seconds",
    "sidecar_database_size_bytes",
    "sidecar_wal_size_bytes",
    "sidecar_restore_point_size_bytes",
    "sidecar_uploaded_bytes",
    "sidecar_reused_bytes",
    "sidecar_store_requests",
    "sidecar_store_request_duration_seconds",
    "sidecar_final_backup_estimate_seconds",
    "sidecar_suspicious_snapshots",
}


@contextmanager
def app_metrics() -> Iterator[tuple[str, dict[str, tuple[int, bytes]]]]:
    """A metrics endpoint of an app: its URL, and its answer under "reply"."""
    answer = {"reply": (200, THEIRS.encode())}

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = answer["reply"]
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Suppress the access log."""

    with http.server.ThreadingHTTPServer((LOOPBACK, 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://{LOOPBACK}:{server.server_port}/metrics", answer
        server.shutdown()
        thread.join()


Watched = tuple[SidecarProcess, dict[str, tuple[int, bytes]]]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    """A running machine that merges the metrics of an app, and the answer of that app."""
    root = tmp_path_factory.mktemp("watched")
    machine = Machine.make(root, f"file://{root}/store", clean_environment(root))
    with app_metrics() as (url, answer), machine.run(*CALM_APP, app_metrics_url=url) as process:
        process.wait_ready()
        yield process, answer


def test_alive_from_the_first_second_and_ready_only_after_the_restore(proxied: Machine, proxy: FaultProxy) -> None:
    """
    1. The store's answer to the very first request is held back: /livez 200, /readyz 503, /metrics and /status answer.
    2. It comes: the restore, then the app, then /readyz 200, and every family of metrics that applies.
    """
    write_note(proxied.database, "precious")
    assert proxied.cli("backup").returncode == 0
    proxied.lose_disk()
    stalled = proxy.rule(Stall(3), times=1)
    with proxied.run(*CALM_APP, interval="1s") as process:
        process.wait_metric("sidecar_build_info", 1, timeout=10)
        assert stalled.hits <= 1
        assert process.http("/livez")[0] == 200
        assert process.http("/readyz")[0] == 503
        assert process.metric("sidecar_ready") == 0
        before = json.loads(process.http("/status")[1])
        assert (before["phase"], before["ready"]) == ("restoring", False)
        assert "app started" not in process.stdout()
        process.wait_ready()
        process.wait_for_log("app started")
        write_note(proxied.database, "more")
        process.wait_metric("sidecar_backups_total", 1, outcome="published", database="app.db")
        families = {family.name for family in text_string_to_metric_families(process.http("/metrics")[1])}
        assert families >= FAMILIES
        after = json.loads(process.http("/status")[1])
        assert (after["phase"], after["ready"], after["store"]) == ("running", True, proxied.store)
        assert after["databases"][0]["restored_from"] < after["databases"][0]["restore_point"]
        assert proxied.env["AWS_SECRET_ACCESS_KEY"] not in json.dumps(after)
        assert process.http("/nonsense")[0] == 404
        assert process.terminate() == 0


@pytest.mark.parametrize(
    "broken",
    [
        (500, b"oops"),
        (200, b"<html>not metrics</html>"),
        (200, b"\xff\xfe"),
        (200, b"sidecar_ready 5\n"),
        (302, b""),
    ],
    ids=["error", "html", "no text", "our names", "redirect"],
)
def test_broken_app_metrics_cost_only_themselves(broken: tuple[int, bytes], watched: Watched) -> None:
    """Whatever the app answers, our own samples stay complete and parse; when it recovers, its own are back."""
    process, answer = watched
    answer["reply"] = (200, THEIRS.encode())
    assert process.metric("hits_total") == 7
    answer["reply"] = broken
    assert process.metric("sidecar_ready") == 1
    assert process.metric("hits_total") is None
    answer["reply"] = (200, THEIRS.encode().rstrip(b"\n"))
    assert process.metric("hits_total") == 7


def test_app_without_its_metrics_endpoint_does_not_break_ours(local: Machine) -> None:
    """The app's endpoint refuses connections, as it does while it starts."""
    with local.run(*CALM_APP, app_metrics_url=f"http://{LOOPBACK}:{free_port()}/metrics") as process:
        process.wait_ready()
        assert process.metric("sidecar_ready") == 1
        assert process.terminate() == 0


def test_port_that_is_taken_is_a_configuration_error(local: Machine) -> None:
    """It exits with 78 and one line; with `off` it starts and serves nothing."""
    with app_metrics() as (url, _):
        taken = url.removeprefix("http://").removesuffix("/metrics")
        done = local.cli("run", "--", "touch", str(local / "marker"), listen=taken)
    assert done.returncode == 78
    assert taken in complaint(done.stderr)
    assert not (local / "marker").exists()
    assert local.cli("run", "--", "touch", str(local / "marker"), listen="off").returncode == 0
    assert (local / "marker").exists()
