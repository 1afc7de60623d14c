"""Locks that allow one sidecar per database on this machine; the lock file says how to reach the holder."""

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from sidecar.errors import ConfigurationError, DatabaseBusy
from sidecar.host.endpoints import OWN, canonical
from sidecar.model import Database

ATTEMPTS = 5


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that protects a database: its id, the path of its control socket, if any, and its store.

    `endpoint` is that of the store's server. It is empty where there is none, and where an older version has the lock.
    """

    pid: int
    control: str | None
    store: str = ""
    endpoint: str = ""

    @property
    def place(self) -> str:
        """The store, in a form that may be shown."""
        return f"{self.store} at {self.endpoint}" if self.endpoint else self.store

    def protects_with(self, store: str, endpoint: str) -> bool:
        """Whether the holder uses this store, as far as is known."""
        return self.store == store and (
            not self.endpoint or not endpoint or canonical(self.endpoint) == canonical(endpoint)
        )


@contextmanager
def local_locks(
    databases: Sequence[Database], control: Path | None, store: str, machine: str | None = None, endpoint: str = ""
) -> Iterator[None]:
    """Lock these databases, and this store in the name of `machine` if that is given, against other sidecars here.

    The store is a URL and the `endpoint` of its server, if it has one.

    Raises `DatabaseBusy` when another process has a lock. The locks end with the process, however it ends.
    """
    holder = Holder(os.getpid(), str(control) if control else None, store, endpoint)
    with ExitStack() as held:
        for database in databases:
            held.callback(os.close, _lock(_lock_path(database), holder, str(database.path)))
        if machine is not None:  # two would take the lease from each other under the same name
            held.callback(os.close, _lock(_store_lock(holder, machine), holder, holder.place))
        yield


def holder_of(database: Database) -> Holder | None:
    """The process that holds the lock of a database, if any."""
    try:
        file = os.open(_lock_path(database), os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _read(file)
    finally:
        os.close(file)
    return None


def control_path(setting: str, databases: Sequence[Database]) -> Path | None:
    """The path of the control socket, by default in a private directory under the system's temporary one."""
    if setting == "off":
        return None
    if setting != "auto":
        return Path(setting)
    paths = "\0".join(str(each.path) for each in databases)
    return Path(tempfile.gettempdir(), f"sidecar-{_digest(paths)[:10]}", "ctl")  # short: sun_path has 108 bytes


def _lock(path: Path, holder: Holder, what: str) -> int:
    try:
        file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
    except OSError as error:
        raise ConfigurationError(
            f"cannot open the lock {path}: {error.strerror}", "does it belong to another user?"
        ) from error
    if not _locked(file):
        other = _read(file)
        os.close(file)
        raise DatabaseBusy(
            f"another sidecar{f' (pid {other.pid})' if other else ''} protects {what} on this machine",
            "stop it first; `sidecar backup` asks it for a restore point, `sidecar restore --output` writes elsewhere",
        )
    os.ftruncate(file, 0)
    os.pwrite(file, json.dumps(asdict(holder)).encode(), 0)
    return file


def _locked(file: int) -> bool:
    """Try to take the lock. Another command may hold it for an instant to look at it (`holder_of`)."""
    for _ in range(ATTEMPTS):
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def _read(file: int) -> Holder | None:
    with suppress(ValueError, TypeError):
        values = json.loads(os.pread(file, 4096, 0))
        return Holder(**{each.name: values[each.name] for each in fields(Holder) if each.name in values})
    return None


def _lock_path(database: Database) -> Path:
    return _path_for(str(database.path))


def _store_lock(holder: Holder, machine: str) -> Path:
    """The store's lock. The SDK's own endpoint is left out, as older versions, which did not know of endpoints, do."""
    server = "" if holder.endpoint == OWN else holder.endpoint
    return _path_for("\0".join(filter(None, (holder.store, machine, server))))


def _path_for(text: str) -> Path:
    return Path(tempfile.gettempdir(), f"sidecar-{_digest(text)}.lock")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
