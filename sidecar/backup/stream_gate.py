"""Decides whether a database can be streamed now without affecting the app.

An app that sets a journal mode other than WAL, or `locking_mode=EXCLUSIVE`, ends its stream, and gets "database is locked" if we
copy or checkpoint the database at that moment. Apps do that when they open their database. So nothing is streamed until the
app has used it for a while and left it in WAL mode, which takes longer if sidecar and not the app chose that mode.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

from sidecar.concurrency import Together
from sidecar.database import WalOrigins
from sidecar.database.wal import Glance, glance
from sidecar.host import Clock
from sidecar.model import WalBy
from sidecar.units import format_duration

NOT_WAL = "the database is not in WAL mode"
LOCKED = "a program has locked the database exclusively (PRAGMA locking_mode=EXCLUSIVE)"
SWITCHED = "sidecar, not the app, chose WAL mode: "
LEFT_WAL = "the database was in another journal mode after it had been in WAL mode"
SETTLING = timedelta(seconds=10)
Look = Callable[[Path], Awaitable[Glance | None]]
_PERSISTENT = 3  # checks in a row, because closing a database also locks it exclusively for a moment


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about a database. `chosen` is who chose WAL according to the records of earlier starts, if any.

    `used` is the number of seconds since the app was first seen using it in WAL mode; `refused` is what the app did that
    rules out streaming.
    """

    is_wal: bool = True
    locked: bool = False
    refused: str = ""
    chosen: WalBy | None = None
    used: float | None = None


def why_not(facts: Facts, interval: timedelta, *, always: bool) -> str:
    """Why nothing may be streamed now, or empty. `always` is the setting `stream=on`, with which the app may be affected."""
    if facts.refused and not always:
        return f"{facts.refused}: stream=auto does not stream again before the next start, stream=on does"
    if facts.locked:
        return LOCKED
    if not facts.is_wal:
        return NOT_WAL
    if always:
        return ""
    needed = settling(facts.chosen, interval)
    if facts.used is not None and facts.used >= needed.total_seconds():
        return ""
    begins = (
        f"streaming begins once the app has opened the database and left it in WAL mode for {format_duration(needed)}"
    )
    return f"{SWITCHED if facts.chosen is WalBy.SIDECAR else ''}{begins}; stream=on does not wait"


def settling(chosen: WalBy | None, interval: timedelta) -> timedelta:
    """How long the app must have used its database in WAL mode."""
    return interval if chosen is WalBy.SIDECAR else min(SETTLING, interval)


def looks() -> Look:
    """Looks at databases; those of one directory that are due at the same moment are looked at together."""
    return Together(glance, lambda path: path.parent)


class Gate:
    """Examines one database, and decides."""

    def __init__(
        self,
        path: Path,
        origins: WalOrigins,
        interval: timedelta,
        clock: Clock,
        *,
        always: bool,
        never: Callable[[Path], str] = lambda _path: "",
        look: Look | None = None,
    ) -> None:
        """`never` returns the reason why a database at a path can never be followed by this process, or an empty string."""
        self._never = never(path)
        self._path = path
        self._origins = origins
        self._interval = interval
        self._clock = clock
        self._always = always
        self._look = look or looks()
        self._last: Glance | None = None
        self._began = False
        self._chosen: WalBy | None = None
        self._used: float | None = None  # since when, in monotonic seconds
        self._was_wal = False
        self._locked = 0
        self._refused = ""

    async def why_not(self) -> str:
        """Why nothing may be streamed now; empty if it may, or if opening the database will show why not."""
        if self._never:
            return self._never
        try:
            seen = await self._look(self._path)
        except OSError as error:
            return f"{self._path} cannot be read: {error.strerror}"
        if seen is None:
            self._last = self._used = None
            # Opened now, it would be streamed at once if the app creates it at this moment, whatever mode it wants to set next.
            return "" if self._always else f"there is no database at {self._path} yet, or only an empty file"
        if not self._began:
            self._began, self._chosen = True, self._origins.of(self._path)
        self._note(seen)
        used = None if self._used is None else self._clock.monotonic() - self._used
        facts = Facts(seen.is_wal, _is_locked(seen), self._refused, self._effective(), used)
        return why_not(facts, self._interval, always=self._always)

    def refuse(self, reason: str) -> None:
        """Record that the app does what fails while we have its database open: no streaming in this run, and caution in the next."""
        self._refused = self._refused or reason
        self._origins.not_chosen(self._path)

    def _effective(self) -> WalBy | None:
        """Who chose WAL according to earlier starts, unless sidecar has switched the database since."""
        now = self._origins.of(self._path)
        if now is WalBy.SIDECAR:
            return now
        return self._chosen

    def _note(self, seen: Glance) -> None:
        last, self._last = self._last, seen
        self._locked = self._locked + 1 if _is_locked(seen) else 0
        if self._locked == _PERSISTENT:
            self.refuse(LOCKED)
        if not seen.is_wal:
            self._used = None
            if self._was_wal:
                self.refuse(LEFT_WAL)
            return
        self._was_wal = True
        written = last is not None and last.is_wal and last.stamps != seen.stamps
        if self._used is None and (seen.used or written):
            self._used = self._clock.monotonic()
            self._origins.found_wal(self._path)


def _is_locked(seen: Glance) -> bool:
    """Whether a process has it locked exclusively, other than for a commit, as in other journal modes."""
    return seen.exclusive and seen.is_wal
