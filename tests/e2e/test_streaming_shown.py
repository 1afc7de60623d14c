"""A stream as people see it: on the page, in `status` and `check`; and read without sidecar, as the documentation says."""

import io
import json
import sqlite3
import uuid
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
import zstandard

from tests.e2e.browser import Visitor, chromium, keep, visit
from tests.e2e.machine import CALM_APP, Machine, notes, python_app, write_note
from tests.e2e.streaming import HOLDING
from tests.harness.documented import documented_reader
from tests.harness.environment import clean_environment
from tests.harness.eventually import eventually
from tests.harness.sidecar_process import SidecarProcess

if TYPE_CHECKING:
    from playwright.sync_api import Browser

    from tests.harness.s3client import S3Client
    from tests.harness.seaweed import Seaweed


@pytest.fixture(scope="module")
def browser() -> Iterator["Browser"]:
    with chromium() as started:
        yield started


@dataclass(frozen=True)
class Shown:
    """A machine that streams, its daemon, and its bucket."""

    machine: Machine
    process: SidecarProcess
    s3: "S3Client"
    bucket: str


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory, seaweed: "Seaweed") -> Iterator[Shown]:
    """Its notes are streamed after its first restore point, and it never makes another by itself."""
    root = tmp_path_factory.mktemp("streaming")
    seaweed.ensure()
    bucket = f"shown-{uuid.uuid4().hex[:12]}"
    seaweed.s3.make_bucket(bucket)
    machine = Machine.make(root, f"s3://{bucket}", clean_environment(root) | seaweed.environment())
    write_note(machine.database, "in the restore point")
    with machine.run(*python_app(HOLDING, str(machine.database)), stream="on") as process:
        process.wait_ready()
        eventually(lambda: stream_of(process)["protects"], 20, "a restore point names the stream")
        for text in ("streamed", "streamed too"):
            write_note(machine.database, text)
        eventually(lambda: published(process), 20, "all commits are in segments")
        yield Shown(machine, process, seaweed.s3, bucket)
    seaweed.ensure()
    seaweed.s3.drop_bucket(bucket)


def stream_of(process: SidecarProcess) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(process.http("/status")[1])["databases"][0]["stream"]
    return found


def published(process: SidecarProcess) -> bool:
    stream = stream_of(process)
    return stream["commits"] >= 2 and stream["confirmed"] == stream["commits"] and not stream["lag_seconds"]


def test_status_and_metrics_say_what_is_streamed_and_what_it_costs(shown: Shown) -> None:
    process = shown.process
    line = json.loads(process.wait_for_log(r"\{.*stream cost.*\}")[0])
    assert (line["dollars_a_month_at_most"], line["with_5s"]) == (12.96, 2.59)
    stream = stream_of(process)
    assert (stream["active"], stream["reason"], stream["cuts"]) == (True, "", {})
    assert process.metric("sidecar_stream_active") == 1
    assert process.metric("sidecar_stream_commits_total") == stream["commits"]
    assert process.metric("sidecar_stream_segments_total") == stream["segments"] >= 1
    eventually(lambda: process.metric("sidecar_unprotected_seconds") == 0, 10, "what is streamed is protected")
    assert json.loads(process.http("/status")[1])["cost"]["stream"]["segments"] >= 720
    said = shown.machine.cli("status").stdout
    assert "streaming since" in said
    assert f"{stream['commits']} commits in {stream['segments']} segments" in said
    assert "of it the stream: " in said


def test_the_page_has_a_line_for_the_stream(shown: Shown, browser: "Browser", tmp_path: Path) -> None:
    """While it streams, with the last cut, and in a colour that can be read where a stream is missed; dark, and on a phone."""
    visitor = visit(browser, shown.process.port, height=740)
    visitor.wait_level("good")
    assert visitor.text(".stream").startswith("Streaming since ")
    assert "nothing waits" in visitor.text(".stream")
    _keep_all(visitor, tmp_path, "streaming")
    status = json.loads(shown.process.http("/status")[1])
    cut = {"active": False, "reason": "cut: <b>replaced</b>", "last_cut": "replaced: x", "last_cut_at": status["now"]}
    status["databases"][0]["stream"] |= cut
    visitor.page.route("**/status", lambda route: route.fulfill(json=status))
    visitor.page.get_by_text("Not streaming: cut: <b>replaced</b>.").wait_for()
    assert "Last cut " in visitor.text(".stream")
    _keep_all(visitor, tmp_path, "cut")
    visitor.close()


def _keep_all(visitor: Visitor, directory: Path, name: str) -> None:
    """Screenshots of each width and colour scheme."""
    for scheme in ("light", "dark"):
        visitor.page.emulate_media(color_scheme=scheme)
        for width in (1000, 360):
            visitor.page.set_viewport_size({"width": width, "height": 740})
            assert not visitor.is_too_wide()
            keep(visitor, directory, f"{name}-{scheme}-{width}")


def test_the_line_is_there_without_javascript(shown: Shown) -> None:
    with urlopen(f"http://127.0.0.1:{shown.process.port}/", timeout=5) as answer:
        page = answer.read().decode()
    assert '<p class="note stream ">Streaming since 2' in page


def test_a_stream_is_read_without_sidecar_as_the_page_says(shown: Shown, tmp_path: Path) -> None:
    """The reader of docs/streaming.md, executed as it stands, on what a daemon has published: `zstd -d` and these lines."""
    s3, bucket = shown.s3, shown.bucket
    (point,) = s3.restore_points(bucket, "app.db/")
    found = s3.head(bucket, point)
    assert found
    name, after = stream_of(shown.process)["name"], int(found["Metadata"]["commit"])
    assert found["Metadata"]["stream"] == name
    segments = [key for key in s3.keys(bucket, f"stream/app.db/{name}/") if int(key.rpartition("/")[2][:16]) > after]
    restored = tmp_path / "restored.db"
    with restored.open("wb") as target:
        zstandard.ZstdDecompressor().copy_stream(io.BytesIO(s3.get(bucket, point)), target, read_size=1 << 20)
    documented_reader()["apply"](restored, [s3.get(bucket, key) for key in segments], after)
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
        assert "\nok      stream app.db: a sidecar runs here; " in local.cli("check", stream="on").stdout
