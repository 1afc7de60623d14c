"""The harness does what the other tests rely on: a real S3 server, children that end, writers that notice."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    ReadTimeoutError,
)

from tests.harness.environment import ROOT, clean_environment
from tests.harness.eventually import eventually
from tests.harness.processes import Child
from tests.harness.s3client import S3Client
from tests.harness.seaweed import ADMIN, READER, Seaweed
from tests.harness.sidecar_process import SidecarProcess, run_cli
from tests.harness.writer_process import WriterProcess, last_ack, writer_command
from tests.harness.writers import check_ledger, create_ledger, fill, open_database, transfer

# Stands in for the program: says what it was given, serves its endpoints, and ends on SIGTERM with status 7.
STAND_IN = """
import http.server, os, signal, sys
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'ok' if self.path == '/readyz' else b'up 1\\nhits_total{a="1"} 2\\nhits_total{a="2"} 3\\n'
        self.send_response(200); self.send_header('Content-Length', str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *args): pass
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
print('arguments', *sys.argv[1:], flush=True)
http.server.HTTPServer(('127.0.0.1', int(os.environ['SIDECAR_LISTEN'].split(':')[1])), Handler).serve_forever()
"""


def error_code(call: Callable[[], object]) -> str:
    """The S3 error code that `call` ends in."""
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


# --- the S3 server ---


def test_store_keeps_objects_and_honours_conditions(seaweed: Seaweed, bucket: str) -> None:
    etag = seaweed.s3.put(bucket, "a/b", b"one", IfNoneMatch="*")
    assert error_code(lambda: seaweed.s3.put(bucket, "a/b", b"two", IfNoneMatch="*")) == "PreconditionFailed"
    assert error_code(lambda: seaweed.s3.put(bucket, "a/b", b"two", IfMatch='"0"')) == "PreconditionFailed"
    seaweed.s3.put(bucket, "a/b", b"three", IfMatch=etag)
    assert seaweed.s3.get(bucket, "a/b") == b"three"
    assert seaweed.s3.keys(bucket) == seaweed.s3.keys(bucket, "a/") == ["a/b"]
    head = seaweed.s3.head(bucket, "a/b")
    assert head is not None
    assert head["ContentLength"] == 5
    seaweed.s3.delete(bucket, "a/b")
    assert seaweed.s3.head(bucket, "a/b") is None


def test_open_uploads_are_seen(seaweed: Seaweed, bucket: str) -> None:
    upload = seaweed.s3.raw.create_multipart_upload(Bucket=bucket, Key="big")
    assert seaweed.s3.open_uploads(bucket) == ["big"]
    seaweed.s3.raw.abort_multipart_upload(Bucket=bucket, Key="big", UploadId=upload["UploadId"])
    assert seaweed.s3.open_uploads(bucket) == []


def test_missing_bucket_is_not_created_by_a_write(seaweed: Seaweed) -> None:
    assert error_code(lambda: seaweed.s3.put("never-made", "key", b"")) == "NoSuchBucket"


def test_reader_may_read_and_nothing_else(seaweed: Seaweed, bucket: str) -> None:
    seaweed.s3.put(bucket, "key", b"value")
    with S3Client(seaweed.endpoint, *READER) as reader:
        assert reader.get(bucket, "key") == b"value"
        assert reader.keys(bucket) == ["key"]
        assert error_code(lambda: reader.put(bucket, "key", b"")) == "AccessDenied"
        assert error_code(lambda: reader.delete(bucket, "key")) == "AccessDenied"


def test_server_pauses_and_restarts_with_its_data(tmp_path: Path) -> None:
    """Own server: the session's one is not to be disturbed."""
    with Seaweed(tmp_path / "seaweed") as server:
        server.s3.make_bucket("bucket")
        server.s3.put("bucket", "key", b"value")
        server.pause()
        with S3Client(server.endpoint, *ADMIN, timeout=0.2) as client, pytest.raises(ReadTimeoutError):
            client.get("bucket", "key")
        server.resume()
        assert server.s3.get("bucket", "key") == b"value"
        endpoint = server.endpoint
        server.stop()
        with S3Client(endpoint, *ADMIN) as client, pytest.raises(EndpointConnectionError):
            client.get("bucket", "key")
        server.restart()
        assert server.endpoint == endpoint
        assert server.s3.get("bucket", "key") == b"value"


# --- writers ---


def test_writers_commit_side_by_side_and_survive_a_kill(tmp_path: Path) -> None:
    database, environment = tmp_path / "ledger.db", clean_environment(tmp_path)
    with (
        WriterProcess(database, env=environment, directory=tmp_path) as first,
        WriterProcess(database, "--exit-status", "3", env=environment, directory=tmp_path) as second,
    ):
        first.wait_acked(20)
        second.wait_acked(20)
        check_ledger(database)
        first.kill()
        assert second.stop() == 3
        assert check_ledger(database) >= max(first.acked(), second.acked())


def test_torn_acknowledgement_does_not_count(tmp_path: Path) -> None:
    (tmp_path / "acks").write_bytes(b"1\n2\n34")
    assert last_ack(tmp_path / "acks") == 2
    assert last_ack(tmp_path / "none") == 0


def make_ledger(path: Path, transfers: int) -> None:
    """A ledger of ten accounts."""
    with contextlib.closing(open_database(path)) as connection:
        create_ledger(connection, accounts=10)
        for number in range(transfers):
            assert transfer(connection, account=number % 10, amount=number) == number + 1


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        ("UPDATE checking SET balance = balance + 1 WHERE account = 3", "sum to zero"),
        ("DELETE FROM sequence WHERE number = 7", "do not match"),
        (
            "UPDATE savings SET balance = balance + CASE account WHEN 1 THEN 5 WHEN 2 THEN -5 ELSE 0 END",
            "do not match",
        ),
        ("UPDATE sequence SET number = 90 WHERE number = 19", "numbers 1 to 90"),
        ("DROP TABLE savings", "no such table"),
    ],
)
def test_broken_ledger_is_noticed(tmp_path: Path, damage: str, complaint: str) -> None:
    database = tmp_path / "ledger.db"
    make_ledger(database, transfers=20)
    assert check_ledger(database) == 20
    with contextlib.closing(open_database(database)) as connection:
        connection.execute(damage)
    with pytest.raises(AssertionError, match=complaint):
        check_ledger(database)


def test_damaged_file_is_noticed(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    make_ledger(database, transfers=500)
    content = bytearray(database.read_bytes())
    content[4096:-4096] = bytes(len(content) - 8192)
    database.write_bytes(content)
    with pytest.raises(AssertionError):
        check_ledger(database)
    with pytest.raises(AssertionError, match="does not exist"):
        check_ledger(tmp_path / "none")


def test_fill_makes_the_same_database_of_the_size_asked_for(tmp_path: Path) -> None:
    fill(tmp_path / "one", 3, seed=1)
    fill(tmp_path / "two", 3, seed=1)
    fill(tmp_path / "other", 3, seed=2, page_size=8192)
    assert 3 * 2**20 <= (tmp_path / "one").stat().st_size < 3.5 * 2**20
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()
    assert (tmp_path / "one").read_bytes() != (tmp_path / "other").read_bytes()


# --- processes and their environment ---


def test_environment_of_children_and_of_tests_is_clean(tmp_path: Path, seaweed: Seaweed) -> None:
    child = clean_environment(tmp_path, EXTRA=tmp_path)
    assert {name for name in child if name.startswith(("AWS", "SSL", "SIDECAR", "FLY"))} == set()
    assert child["EXTRA"] == str(tmp_path)
    assert not {"AWS_CA_BUNDLE", "SSL_CERT_FILE", "HTTPS_PROXY", "AWS_PROFILE"} & set(os.environ)


def test_stand_in_process_is_driven(tmp_path: Path) -> None:
    program = (sys.executable, "-c", STAND_IN)
    environment = clean_environment(tmp_path)
    with SidecarProcess("run", "--", "app", env=environment, directory=tmp_path, program=program) as process:
        process.wait_ready()
        assert process.wait_for_log(r"arguments (\w+)")[1] == "run"
        assert process.http("/readyz") == (200, "ok")
        assert process.metric("hits_total") == 5
        assert process.metric("hits_total", a="2") == 3
        assert process.metric("hits_total", a="3") is None
        assert process.terminate() == 7
        assert process.family() == []


def test_process_that_ends_early_is_reported_with_its_output(tmp_path: Path) -> None:
    program = (sys.executable, "-c", "raise SystemExit('the reason')")
    process = SidecarProcess(env=clean_environment(tmp_path), directory=tmp_path, program=program)
    with process, pytest.raises(AssertionError, match="the reason"):
        process.wait_ready()


def test_one_shot_command_gives_status_and_output(tmp_path: Path) -> None:
    program = (sys.executable, "-c", "import os, sys; print(sys.stdin.read()); os.kill(os.getpid(), 9)")
    done = run_cli(env=clean_environment(tmp_path), program=program, stdin=b"hello")
    assert (done.returncode, done.stdout) == (137, "hello\n")


def test_kill_reaches_what_left_the_group(tmp_path: Path) -> None:
    """An app in a session of its own, orphaned, is found by its mark."""
    argv = ["sh", "-c", "setsid sleep 60 & setsid sleep 61 & wait"]
    with SidecarProcess(env=clean_environment(tmp_path), directory=tmp_path, program=argv) as process:
        eventually(lambda: len(process.family()) == 3, what="the shell has two children")
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == 137
        assert len(process.family()) == 2
        process.kill()
        assert process.family() == []


def test_children_die_with_a_test_run_that_is_killed(tmp_path: Path) -> None:
    """SIGKILL to the test run itself: the guardian ends its children."""
    code = """
import subprocess, time
from tests.harness.processes import Child
print(Child(["sleep", "60"], {"PATH": "/usr/bin:/bin"}).pid, flush=True)
time.sleep(60)
"""
    environment = clean_environment(tmp_path, PYTHONPATH=ROOT)
    run = Child([sys.executable, "-c", code], environment, stdout=subprocess.PIPE)
    assert run.popen.stdout is not None
    orphan = int(run.popen.stdout.readline())
    assert Path(f"/proc/{orphan}").exists()
    os.kill(run.pid, signal.SIGKILL)
    run.popen.wait()
    eventually(lambda: not is_alive(orphan), what="the orphan is killed")
    run.kill()


def is_alive(pid: int) -> bool:
    """False for a process that has ended, even if nobody has asked for its status yet."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_writer_runs_as_somebodys_app(tmp_path: Path) -> None:
    done = run_cli(
        *writer_command(tmp_path / "ledger.db", "--transfers", "5"), env=clean_environment(tmp_path), program=()
    )
    assert done.stdout.split() == ["1", "2", "3", "4", "5"]
    assert check_ledger(tmp_path / "ledger.db") == 5
