"""A stream as people see it: on the page, in `status` and `check`; and read without sidecar, as the documentation says."""

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
import zstandard

from tests.docs import DOCS
from tests.docs.markdown import Page
from tests.e2e.browser import chromium, keep, visit
from tests.e2e.machine import CALM_APP, Machine, notes, python_app, write_note
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually
from tests.harness.sidecar_process import SidecarProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser

# Keeps the database open in WAL mode, as apps do: it is followed for as long.
HOLDING = """
import signal, sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("PRAGMA journal_mode=WAL")
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
signal.pause()
"""


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def machine_streaming(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Machine, SidecarProcess]]:
    """A machine whose notes are streamed after its first restore point, and that never makes another by itself."""
    root = tmp_path_factory.mktemp("streaming")
    machine = Machine.make(root, f"file://{root}/store", clean_environment(root))
    write_note(machine.database, "in the restore point")
    with closing(sqlite3.connect(machine.database)) as connection:
        connection.execute("PRAGMA journal_mode=WAL")
    with machine.run(*python_app(HOLDING, str(machine.database)), stream="on") as process:
        process.wait_ready()
        eventually(lambda: stream_of(process)["protects"], 20, "a restore point names the stream")
        for text in ("streamed", "streamed too"):
            write_note(machine.database, text)
        eventually(lambda: published(process), 20, "all commits are in segments")
        yield machine, process


def stream_of(process: SidecarProcess) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(process.http("/status")[1])["databases"][0]["stream"]
    return found


def published(process: SidecarProcess) -> bool:
    stream = stream_of(process)
    return stream["commits"] >= 2 and stream["confirmed"] == stream["commits"] and not stream["lag_seconds"]


def test_status_and_metrics_say_what_is_streamed(machine_streaming: tuple[Machine, SidecarProcess]) -> None:
    machine, process = machine_streaming
    eventually(lambda: published(process), 10, "all commits are in segments")
    stream = stream_of(process)
    assert (stream["active"], stream["reason"], stream["cuts"]) == (True, "", {})
    assert process.metric("sidecar_stream_active") == 1
    assert process.metric("sidecar_stream_commits_total") == stream["commits"]
    assert process.metric("sidecar_stream_segments_total") == stream["segments"] >= 1
    eventually(lambda: process.metric("sidecar_unprotected_seconds") == 0, 10, "what is streamed is protected")
    shown = machine.cli("status").stdout
    assert "streaming since" in shown
    assert f"{stream['commits']} commits in {stream['segments']} segments" in shown


@pytest.mark.parametrize(("width", "dark"), [(1000, False), (1000, True), (360, False), (360, True)])
def test_the_page_has_a_line_for_the_stream(
    machine_streaming: tuple[Machine, SidecarProcess], browser: "Browser", tmp_path: Path, width: int, dark: bool
) -> None:
    """While it streams, with the last cut, and in a colour that can be read where a stream is missed."""
    process = machine_streaming[1]
    visitor = visit(browser, process.port, width=width, height=740, dark=dark)
    visitor.wait_level("good")
    assert visitor.text(".stream").startswith("Streaming since ")
    assert "nothing waits" in visitor.text(".stream")
    keep(visitor, tmp_path, "streaming")
    status = json.loads(process.http("/status")[1])
    cut = {"active": False, "reason": "cut: <b>replaced</b>", "last_cut": "replaced: x", "last_cut_at": status["now"]}
    status["databases"][0]["stream"] |= cut
    visitor.page.route("**/status", lambda route: route.fulfill(json=status))
    visitor.page.get_by_text("Not streaming: cut: <b>replaced</b>.").wait_for()
    assert "Last cut " in visitor.text(".stream")
    keep(visitor, tmp_path, "cut")
    assert not visitor.is_too_wide()
    visitor.close()


def test_the_line_is_there_without_javascript(machine_streaming: tuple[Machine, SidecarProcess]) -> None:
    with urlopen(f"http://127.0.0.1:{machine_streaming[1].port}/", timeout=5) as answer:
        page = answer.read().decode()
    assert '<p class="note stream ">Streaming since 2' in page


def test_a_stream_is_read_without_sidecar_as_the_page_says(
    machine_streaming: tuple[Machine, SidecarProcess], tmp_path: Path
) -> None:
    """The reader of docs/streaming.md, executed as it stands, on what a daemon has published: `zstd -d` and these lines."""
    machine, process = machine_streaming
    store = Path(machine.store.removeprefix("file://"))
    (point,) = (store / "app.db").glob("*.zst")
    metadata = json.loads((store / ".sidecar/meta/app.db" / f"{point.name}.json").read_text())
    name = stream_of(process)["name"]
    assert metadata["stream"] == name
    after = int(metadata["commit"])
    segments = sorted((store / "stream/app.db" / name).rglob("*.zst"), key=lambda path: path.name)
    segments = [path for path in segments if int(path.name[:16]) > after]
    (fence,) = [each for each in Page(DOCS / "streaming.md").fences if each.language == "python"]
    reader: dict[str, Any] = {}
    exec(fence.text, reader)  # noqa: S102 - our own documentation
    restored = tmp_path / "restored.db"
    with point.open("rb") as source, restored.open("wb") as target:
        zstandard.ZstdDecompressor().copy_stream(source, target, read_size=1 << 20)
    reader["apply"](restored, [path.read_bytes() for path in segments], after)
    assert notes(restored) == ["in the restore point", "streamed", "streamed too"]


def test_a_database_that_is_not_in_wal_mode_is_not_streamed_and_says_so(local: Machine) -> None:
    write_note(local.database, "one")
    with closing(sqlite3.connect(local.database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    with local.run(*CALM_APP, stream="on", journal_mode="keep") as process:
        process.wait_ready()
        eventually(lambda: "not in WAL mode" in stream_of(process)["reason"], 10, "the reason is known")
        assert stream_of(process)["active"] is False
        assert process.metric("sidecar_stream_active") == 0
        assert "Not streaming: " in process.http("/")[1]
        assert "not streaming" in local.cli("status").stdout


def test_check_says_whether_a_database_would_be_streamed(local: Machine) -> None:
    """And changes nothing: not the mode of the journal either."""

    def said(**settings: str) -> str:
        done = local.cli("check", env={f"SIDECAR_{name.upper()}": value for name, value in settings.items()})
        assert done.returncode == 0, done.stdout
        return next(line for line in done.stdout.splitlines() if " stream app.db: " in line)

    assert said() == "ok      stream app.db: not streamed: stream=off"
    assert said(stream="auto", lease="off").startswith("ok      stream app.db: not streamed: lease=off: ")
    assert said(stream="on").startswith("warning stream app.db: not streamed: there is no database at ")
    write_note(local.database, "one")
    assert said(stream="auto") == "ok      stream app.db: would be streamed, a segment every 1s at most"
    with closing(sqlite3.connect(local.database)) as connection:
        connection.execute("PRAGMA journal_mode=DELETE")
    assert said(stream="on").endswith("once the first backup has switched it from journal mode delete to WAL")
    kept = said(stream="on", journal_mode="keep")
    assert kept.startswith("warning stream app.db: not streamed: it is in journal mode delete, and journal_mode=keep")
    with local.run(*CALM_APP, stream="on") as process:
        process.wait_ready()
        assert said(stream="on").startswith("ok      stream app.db: a sidecar runs here; ")


@pytest.mark.s3
def test_what_streaming_costs_is_logged_and_shown_where_requests_are_paid(machine: Machine) -> None:
    write_note(machine.database, "one")
    with machine.run(*python_app(HOLDING, str(machine.database)), stream="on") as process:
        process.wait_ready()
        line = json.loads(process.wait_for_log(r"\{.*stream cost.*\}")[0])
        assert (line["dollars_a_month_at_most"], line["with_5s"]) == (12.96, 2.59)
        eventually(lambda: stream_of(process)["protects"], 20, "a restore point names the stream")
        write_note(machine.database, "two")
        eventually(lambda: stream_of(process)["segments"], 20, "a segment is published")
        cost = json.loads(process.http("/status")[1])["cost"]["stream"]
        assert cost["segments"] >= 720
        assert "of it the stream: " in machine.cli("status").stdout
