"""What a follower has of one database: descriptors, two places among the readers of its log, connections when they are needed.

The places are locks in the shared memory (see `reader`), so that between two checkpoints we have the database no more open
than somebody who reads its files: whoever closes it is the last one, and does what SQLite's last one does.
"""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path

from sidecar.database.driver import Driver
from sidecar.database.errors import is_busy
from sidecar.database.wal.births import Births
from sidecar.database.wal.connections import Connections
from sidecar.database.wal.cuts import CutCause, StreamCut
from sidecar.database.wal.descriptors import Descriptors, Stamps
from sidecar.database.wal.header import SIZE, UnknownVersion, WalIndex, parse
from sidecar.database.wal.reader import NotNow, Reader

_LOOKS = 20


class Hands:
    """A database in WAL mode. `held` has a place among the readers whenever the follower is between two steps.

    `guard` is called before the database's file is written to, and raises what keeps us from it; `has_more` says whether the
    log has transactions that the wal-index does not know.
    """

    def __init__(self, path: Path, driver: Driver) -> None:
        """Open it. The connections stay open until `disconnect`.

        Raises `NotNow` while it is locked exclusively, and `StreamCut` if it is not in WAL mode, or other files take its place
        meanwhile.
        """
        self.path, self.driver = path, driver
        self.connections = Connections(path, driver)
        self.births = Births(Path(f"{path}-wal"))
        self.guard: Callable[[], object] = lambda: None
        self.has_more: Callable[[WalIndex], bool] = lambda _index: False
        self._files: Descriptors | None = None
        self._last: tuple[bytes, WalIndex | None] = (b"", None)
        self._inside = False  # whether a program was seen to have it open in this very process, where we cannot tell its locks from ours
        self._thread = threading.get_ident()
        self._looking = threading.Lock()  # another thread may read the header while this one closes the files
        try:
            inode = Stamps.of(path).inode
            self.connections.open(first=True)
            self._files = Descriptors.open(path)
            self.births.begin()
        except driver.error as error:
            self.close(tidy=False)
            if is_busy(error):
                raise NotNow from error
            raise StreamCut(CutCause.ERROR, f"{path} cannot be opened: {error}") from error
        except StreamCut:
            self.close(tidy=False)
            raise
        except OSError as error:
            self.close(tidy=False)
            raise StreamCut(CutCause.REPLACED, f"a file of {path} is gone: {error}") from error
        self.held, self.free = map(Reader, self._files.hands)
        if not self._files.in_place(path) or self._files.inodes[0] != inode:  # or a connection may have another file
            self.close(tidy=False)
            raise StreamCut(CutCause.REPLACED, f"the files of {path} were replaced while they were opened")

    @property
    def files(self) -> Descriptors:
        """Our own descriptors."""
        if self._files is None:
            raise StreamCut(CutCause.ERROR, f"{self.path} was closed")
        return self._files

    @property
    def pinned(self) -> bool:
        """Whether the log is kept from being reset without a transaction."""
        return self._files is not None and self._files.pin.held

    def is_alone(self, *, beside: bool) -> bool:
        """Whether nobody else has the database open; `beside`: other parts of sidecar may have in this process."""
        if self.connections.are_open:
            return not (self._inside or self.files.others())
        used = self.files.anybody()
        self._inside = self._inside or (used and not beside and not self.files.others())
        return not used

    def look(self) -> bytes:
        """The header of the wal-index as it is at this moment."""
        with self._looking:
            return os.pread(self.files.shm, SIZE, 0)

    def index(self) -> WalIndex:
        """The header of the wal-index. Raises `NotNow` while it is being written."""
        for attempt in range(_LOOKS):
            try:
                found = self._parsed(self.look())
            except UnknownVersion as error:
                raise StreamCut(CutCause.UNREADABLE, f"{self.path}: {error}") from error
            if found:
                return found
            if attempt:
                self._read_header()
        raise NotNow

    def begin(self) -> None:
        """Begin to read with the free hand. Raises `NotNow`."""
        self.free.begin()

    def change(self) -> None:
        """Hold the transaction that the free reader has just begun, and end the other one."""
        self.held, self.free = self.free, self.held
        self.free.end()

    def let_go(self) -> None:
        """End what the free hand has begun."""
        self.free.end()

    def end(self) -> None:
        """End all transactions."""
        self.held.end()
        self.free.end()

    @contextmanager
    def connected(self) -> Iterator[Connections]:
        """The connections are open, and the guard has let us in. Raises `NotNow` while the database is locked exclusively."""
        kept, done = self.connections.are_open, False
        try:
            if not kept:
                self._connect()
            self.guard()
            yield self.connections
            done = True
        except self.driver.error as error:
            if is_busy(error):
                raise NotNow from error
            raise
        finally:
            if not kept:
                self._leave(done=done)

    def disconnect(self) -> None:
        """Close the connections, and leave all files as they are."""
        self.connections.close(tidy=False)

    def backfill(self) -> bool:
        """A PASSIVE checkpoint, which waits for nobody; False when somebody else checkpoints at this moment.

        Where it goes no further than the snapshot that is held, the disk can have the log before it, and the database after
        it: before we release that snapshot nobody resets the log. So the connections are open only for the copying.
        """
        bounded = bool(self.held.place)
        if bounded:
            self.files.sync_log()
        with self.connected() as connections:
            done = connections.checkpoint("PASSIVE", synced=not bounded)
        if bounded:
            self.files.sync()
        return done

    def truncate(self) -> bool:
        """A TRUNCATE checkpoint that waits for nobody; whether the log is empty now."""
        with self.connected() as connections:
            return connections.checkpoint("TRUNCATE", synced=True) and not self.index().frame

    def close(self, *, tidy: bool) -> None:
        """Close everything; never raises SQLite's errors.

        With `tidy`, the log is copied into the database and deleted if nobody else has it open and the guard lets us;
        without it, the files are left as they are.
        """
        if self._files:
            tidy = tidy and self._may_tidy()
            self.end()
        self.connections.close(tidy=tidy)
        with self._looking:
            files, self._files = self._files, None
        if files:
            files.close()

    def _leave(self, *, done: bool) -> None:
        """Close the connections. If everybody else has closed the database meanwhile, do what their close has left to us.

        SQLite does so, unless another file has taken the database's name. Then the log is emptied: whoever opens that file would
        read it as that file's own. Raises `StreamCut`.
        """
        files = self.files
        if not done or self._inside or files.others() or not files.has_log(self.path):
            self.disconnect()
        elif files.in_place(self.path):
            files.sync()
            self.connections.close(tidy=True)
        else:
            self.end()
            copied = self.connections.checkpoint("PASSIVE", synced=True) and not self.index().behind
            self.disconnect()
            if copied:
                files.empty_log(self.path)
            raise StreamCut(CutCause.REPLACED, f"{self.path} was replaced while its log was copied into it")

    def _may_tidy(self) -> bool:
        try:
            if self.has_more(
                self.index()
            ):  # it would get into the database now, after all that was committed is captured
                return False
            if not self.connections.are_open:
                self._connect()
            self.guard()
        except Exception:  # noqa: BLE001 - whatever keeps us from it, the files stay as they are
            return False
        return True

    def _connect(self) -> None:
        """Without a recovery if nobody has it open: frames without checksums do not survive one (SQLite 3.40 writes such).

        But what the wal-index does not know must be recovered, or it would be lost with the log.
        """
        with nullcontext() if self.has_more(self.index()) else self.files.unbroken():
            self.connections.open()

    def _parsed(self, raw: bytes) -> WalIndex | None:
        last = self._last
        if raw != last[0]:
            last = self._last = (raw, parse(raw))
        return last[1]

    def _read_header(self) -> None:
        """Let SQLite read the header: if its writer died at it, SQLite recovers it then."""
        if threading.get_ident() != self._thread or self.connections.are_open:
            return
        with suppress(self.driver.error):
            self.connections.open()
        self.disconnect()
