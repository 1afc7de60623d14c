"""Where `stream=auto` streams: the decision as a table, and what one look after the other makes of it."""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import pytest

from sidecar.backup import Gate
from sidecar.backup.stream_gate import LEFT_WAL, LOCKED, NOT_WAL, Facts, why_not
from sidecar.database import WalOrigins, default_driver
from sidecar.database.wal import Glance, unsuitable
from sidecar.database.wal.descriptors import Stamps
from sidecar.host import Mount
from sidecar.model import WalBy
from tests.fakes import FakeClock

pytestmark = pytest.mark.anyio

INTERVAL = timedelta(minutes=5)
WAITS, SETTLES = "sidecar, not the app, chose WAL mode", "streaming begins once the app has opened the database"
APP, SIDECAR = WalBy.APP, WalBy.SIDECAR


@pytest.mark.parametrize(
    ("facts", "auto", "on"),
    [
        (Facts(is_wal=False), NOT_WAL, NOT_WAL),
        (Facts(is_wal=False, chosen=APP, used=9999), NOT_WAL, NOT_WAL),
        (Facts(locked=True, chosen=APP), LOCKED, LOCKED),
        (Facts(chosen=APP), SETTLES, ""),  # an app that sets another mode does so when it opens its database
        (Facts(chosen=APP, used=9), SETTLES, ""),
        (Facts(chosen=APP, used=10), "", ""),
        (Facts(), SETTLES, ""),
        (Facts(used=9), SETTLES, ""),
        (Facts(used=10), "", ""),  # it was the app that left it in WAL mode
        (Facts(chosen=SIDECAR), WAITS, ""),
        (Facts(chosen=SIDECAR, used=0), WAITS, ""),
        (Facts(chosen=SIDECAR, used=299), WAITS, ""),
        (Facts(chosen=SIDECAR, used=300), "", ""),
        (Facts(chosen=SIDECAR, used=9999, refused=LEFT_WAL), LEFT_WAL, ""),
        (Facts(chosen=APP, refused=LOCKED), LOCKED, ""),
        (Facts(is_wal=False, refused=LEFT_WAL), LEFT_WAL, NOT_WAL),
        (Facts(locked=True, refused=LEFT_WAL), LEFT_WAL, LOCKED),
    ],
)
def test_the_decision(facts: Facts, auto: str, on: str) -> None:
    for always, expected in ((False, auto), (True, on)):
        reason = why_not(facts, INTERVAL, always=always)
        assert reason.startswith(expected)
        assert bool(reason) == bool(expected)


@pytest.mark.parametrize("chosen", [None, APP, SIDECAR])
def test_a_short_interval_is_enough_for_every_app(chosen: WalBy | None) -> None:
    assert not why_not(Facts(chosen=chosen, used=3), timedelta(seconds=3), always=False)


@dataclass
class Seen:
    """A database that changes under the eyes of a gate."""

    path: Path
    clock: FakeClock
    origins: WalOrigins = field(default_factory=WalOrigins)
    glance: Glance | None = None
    written: int = 0

    async def look(self, _path: Path) -> Glance | None:
        return self.glance

    def gate(self, *, always: bool = False) -> Gate:
        return Gate(self.path, self.origins, INTERVAL, self.clock, always=always, look=self.look)

    def is_now(self, *, wal: bool = True, used: bool = False, exclusive: bool = False, written: bool = False) -> None:
        self.clock.advance(1.0)
        self.written += written
        self.glance = Glance(wal, used, exclusive, Stamps((1, 1), 4096, self.written, self.written))


@pytest.fixture
def seen(tmp_path: Path) -> Seen:
    found = Seen(tmp_path / "app.db", FakeClock())
    found.is_now()
    return found


async def test_an_app_that_creates_its_database_in_wal_mode_is_streamed_soon(seen: Seen) -> None:
    gate = seen.gate()
    seen.glance = None
    assert "there is no database" in await gate.why_not()  # else the follower might find one, a moment later
    assert not await seen.gate(always=True).why_not()
    seen.is_now(used=True)
    assert SETTLES in await gate.why_not()
    assert seen.origins.of(seen.path) is APP
    seen.clock.advance(10)
    assert not await gate.why_not()


async def test_an_app_that_chose_it_before_must_open_its_database_first(seen: Seen) -> None:
    """It may set another mode as it does so, and cannot while we have the database open."""
    seen.origins.found_wal(seen.path)
    gate = seen.gate()
    seen.clock.advance(INTERVAL.total_seconds())
    assert (await gate.why_not()).startswith(SETTLES)
    seen.is_now(written=True)  # it opens and closes it between two looks
    assert (await gate.why_not()).startswith(SETTLES)
    seen.clock.advance(10)
    assert not await gate.why_not()


async def test_a_copy_of_ours_is_not_a_use_by_the_app(seen: Seen) -> None:
    gate = seen.gate()
    assert SETTLES in await gate.why_not()
    seen.origins.found_wal(seen.path)
    seen.clock.advance(INTERVAL.total_seconds())
    assert SETTLES in await gate.why_not()


async def test_a_switched_database_waits_for_one_interval_after_the_app_has_opened_it(seen: Seen) -> None:
    seen.origins.not_chosen(seen.path)
    gate = seen.gate()
    for _ in range(3):
        seen.clock.advance(INTERVAL.total_seconds())
        assert WAITS in await gate.why_not()
    seen.is_now(used=True)
    assert WAITS in await gate.why_not()
    seen.clock.advance(INTERVAL.total_seconds() - 1)
    assert WAITS in await gate.why_not()
    seen.clock.advance(1)
    assert not await gate.why_not()
    assert WAITS in await seen.gate().why_not()  # again after each boot


async def test_our_own_switch_is_not_a_use_by_the_app(seen: Seen) -> None:
    gate = seen.gate()
    seen.is_now(wal=False)
    assert await gate.why_not() == NOT_WAL
    seen.origins.not_chosen(seen.path)
    seen.is_now(written=True)
    seen.clock.advance(INTERVAL.total_seconds())
    assert WAITS in await gate.why_not()
    seen.clock.advance(INTERVAL.total_seconds())
    assert WAITS in await gate.why_not()


@pytest.mark.parametrize("chosen", [None, APP, SIDECAR])
async def test_an_app_that_leaves_wal_mode_is_never_streamed_in_this_run(chosen: WalBy | None, seen: Seen) -> None:
    """Not even when it is in WAL mode again; and the next start is careful, too."""
    if chosen:
        (seen.origins.found_wal if chosen is APP else seen.origins.not_chosen)(seen.path)
    gate, asked_for = seen.gate(), seen.gate(always=True)
    for each in (gate, asked_for):
        await each.why_not()
    seen.is_now(wal=False, used=True)
    assert LEFT_WAL in await gate.why_not()
    assert await asked_for.why_not() == NOT_WAL
    seen.is_now(used=True)
    seen.clock.advance(10 * INTERVAL.total_seconds())
    assert LEFT_WAL in await gate.why_not()
    assert not await asked_for.why_not()
    assert seen.origins.of(seen.path) is SIDECAR


async def test_a_lock_for_one_program_alone_counts_when_it_lasts(seen: Seen) -> None:
    """Whoever closes a database has it for itself for a moment."""
    seen.origins.found_wal(seen.path)
    gate = seen.gate()
    for _ in range(2):
        seen.is_now(exclusive=True, used=True)
        assert await gate.why_not() == LOCKED
    seen.is_now(used=True)
    seen.clock.advance(10)
    assert not await gate.why_not()
    for _ in range(3):
        seen.is_now(exclusive=True, used=True)
        assert LOCKED in await gate.why_not()
    seen.is_now(used=True)
    assert LOCKED in await gate.why_not()


async def test_commits_in_other_modes_are_not_such_locks(seen: Seen) -> None:
    gate = seen.gate()
    for _ in range(9):
        seen.is_now(wal=False, exclusive=True, used=True)
        assert await gate.why_not() == NOT_WAL


async def test_what_can_never_be_followed_is_told_without_a_look(seen: Seen) -> None:
    def never(path: Path) -> str:
        return unsuitable(path, default_driver(), lambda _path: Mount("/data", "nfs4"))

    gate = Gate(seen.path, seen.origins, INTERVAL, seen.clock, always=True, never=never, look=_must_not_look)
    assert "network file system (nfs4)" in await gate.why_not()


@pytest.mark.parametrize(
    ("kind", "streams"),
    [("ext4", True), ("tmpfs", True), ("overlay", True), ("fuse.mergerfs", True)]
    + [(kind, False) for kind in ("nfs", "nfs4", "cifs", "9p", "ceph", "fuse.sshfs", "fuse.s3fs")],
)
def test_where_shared_memory_works(kind: str, streams: bool, tmp_path: Path) -> None:
    reason = unsuitable(tmp_path / "app.db", default_driver(), lambda _path: Mount("/data", kind))
    assert bool(reason) != streams


def test_an_old_sqlite_does_not_stream(tmp_path: Path) -> None:
    driver = default_driver()
    driver.version, driver.version_info = "3.46.1", (3, 46, 1)
    assert "too old" in unsuitable(tmp_path / "app.db", driver)


async def test_a_database_that_is_replaced_by_none_begins_anew(seen: Seen) -> None:
    seen.origins.not_chosen(seen.path)
    gate = seen.gate()
    seen.is_now(used=True)
    await gate.why_not()
    seen.glance = None
    assert await gate.why_not()
    seen.clock.advance(INTERVAL.total_seconds())
    seen.is_now()
    assert WAITS in await gate.why_not()


async def _must_not_look(path: Path) -> Glance | None:
    raise AssertionError(path)
