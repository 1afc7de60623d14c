"""Starts `sidecar` as a copy of a process that has imported it: a real process, without the half second of imports.

The suite starts it about a thousand times, and most of what a start costs is Python's. So each worker of the tests has a
template, which imports the program and waits. For each start it forks, and the copy does what `python -m sidecar` does in a
new interpreter: with its own session, directory, environment, arguments, standard streams and exit. Linux gives the copy to
the process of the tests as its child. What the interpreter itself would do otherwise because of the environment, or what is
started through another program, is a start of its own.

Run as a script, this file is the template.
"""

import array
import atexit
import ctypes
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from typing import Any

from tests.harness.environment import ROOT, SYSTEM_PATH

# Variables that Python, the C library or the loader reads at a start, before the program runs.
_READ_AT_START = ("PYTHON", "LD_", "MALLOC_", "GLIBC_", "LC_", "OPENSSL_", "FAKETIME")
_HARMLESS = {"PYTHONUNBUFFERED"}
_SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER, prctl(2)


class Copied(subprocess.Popen[bytes]):
    """A `Popen` of a sidecar that is forked from the template."""

    def _execute_child(self, args: Sequence[str], *others: Any) -> None:
        names = subprocess.Popen._execute_child.__code__.co_varnames[2:]  # type: ignore[attr-defined]
        given = dict(zip(names, others, strict=False))
        wanted = {
            "arguments": args[3:],
            "environment": dict(given["env"]),
            "directory": os.fspath(given["cwd"] or os.getcwd()),
        }
        streams = [given["p2cread"], given["c2pwrite"], given["errwrite"]]
        with _lock:
            self.pid = _template().start(wanted, [own if own != -1 else number for number, own in enumerate(streams)])
        self._child_created = True
        pipes = (given[name] for name in ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite"))
        self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def start_of(argv: Sequence[str], env: Mapping[str, str]) -> type[subprocess.Popen[bytes]]:
    """How to start this: as a copy, if that is the same as a start."""
    ours = sys.platform == "linux" and tuple(argv[:3]) == (sys.executable, "-m", "sidecar")
    usual = env.get("LANG") == "C.UTF-8" and not any(name.startswith(_READ_AT_START) for name in env.keys() - _HARMLESS)
    return Copied if ours and usual else subprocess.Popen


class _Template:
    """Our end of a template."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            environment = {"PATH": SYSTEM_PATH, "LANG": "C.UTF-8", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
            command = [sys.executable, "-m", __name__, str(theirs.fileno())]
            self._process = subprocess.Popen(
                command, env=environment, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, start_new_session=True
            )

        atexit.register(self._stop)

    def _stop(self) -> None:
        self._socket.close()
        self._process.wait()

    @property
    def usable(self) -> bool:
        """Whether it still runs, and is ours: a process that was forked from that of the tests has none."""
        return self._process.poll() is None

    def start(self, wanted: Mapping[str, object], streams: Sequence[int]) -> int:
        """The id of a new copy, which becomes our child because the process between us has ended by then."""
        _adopt(orphans=True)
        try:
            message = json.dumps(wanted).encode()
            rights = array.array("i", streams)
            self._socket.sendmsg([len(message).to_bytes(4, "big")], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            self._socket.sendall(message)
            answer = self._socket.recv(16)
        finally:
            _adopt(orphans=False)
        assert answer, "the template of sidecar has ended"
        return int(answer)


_lock = threading.Lock()
_current: _Template | None = None


def _template() -> _Template:
    global _current
    if _current is None or not _current.usable:
        _current = _Template()
    return _current


def _adopt(*, orphans: bool) -> None:
    ctypes.CDLL(None, use_errno=True).prctl(_SUBREAPER, int(orphans), 0, 0, 0)


def _import_program() -> None:
    import gc
    import importlib
    import pkgutil

    import sidecar

    for module in pkgutil.walk_packages(sidecar.__path__, "sidecar."):
        if not module.name.startswith(("sidecar.__main__", "sidecar.demo")):
            importlib.import_module(module.name)
    gc.collect()
    gc.freeze()


def _until_copied(connection: socket.socket) -> dict[str, Any]:
    """Fork whenever it is asked for. Returns what is wanted in each copy, with the streams in place, and nowhere else."""
    while True:
        length, streams, *_ = socket.recv_fds(connection, 4, 3)
        if not length:
            os._exit(0)
        message = b""
        while len(message) < int.from_bytes(length, "big"):
            message += connection.recv(1 << 20)
        reading, writing = os.pipe()
        between = os.fork()
        if not between:
            copy = os.fork()
            if copy:
                os.write(writing, str(copy).encode())
                os._exit(0)
            for number, stream in enumerate(streams):
                os.dup2(stream, number)
            os.closerange(3, max(connection.fileno(), *streams, reading, writing) + 1)
            wanted: dict[str, Any] = json.loads(message)
            return wanted
        os.waitpid(between, 0)
        connection.sendall(os.read(reading, 16))
        for each in (reading, writing, *streams):
            os.close(each)


def _become(wanted: Mapping[str, Any]) -> None:
    """What an interpreter does before the program runs."""
    import time

    os.setsid()
    os.environ.clear()
    os.environ.update(wanted["environment"])
    time.tzset()
    os.chdir(wanted["directory"])
    sys.path[0] = wanted["directory"]
    sys.argv[1:] = wanted["arguments"]
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - the standard streams stay open
    sys.stdout, sys.stderr = _output(1, "strict"), _output(2, "backslashreplace")


def _output(number: int, errors: str) -> Any:
    import io

    unbuffered = "PYTHONUNBUFFERED" in os.environ
    raw = io.FileIO(number, "wb", closefd=False)
    binary: Any = raw if unbuffered else io.BufferedWriter(raw)
    lines = number == 2 or raw.isatty()
    return io.TextIOWrapper(binary, encoding="utf-8", errors=errors, line_buffering=lines, write_through=unbuffered)


def _end(status: SystemExit) -> None:
    """End as an interpreter does, but without freeing all objects one by one: each page of them would be copied first."""
    if not isinstance(status.code, int):
        raise status
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status.code)


if __name__ == "__main__":
    import runpy

    with socket.socket(fileno=int(sys.argv[1])) as _connection:
        _import_program()
        _wanted = _until_copied(_connection)
        _connection.detach()
    _become(_wanted)
    try:
        runpy.run_module("sidecar", run_name="__main__", alter_sys=True)
    except SystemExit as _exit:
        _end(_exit)
