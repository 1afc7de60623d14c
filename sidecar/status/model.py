"""The one mutable read-model: services write it, the page and metrics read it. No I/O, no clock of its own.

One idea: `Status` is what is known of this daemon; its parts that stand alone are in modules of their own.
"""

from collections import Counter, deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from sidecar.errors import Reason
from sidecar.model import Database
from sidecar.policies import Expires, RetentionDays
from sidecar.status.cost import Cost, Measured, StreamCost, Streamed, estimate, estimate_stream
from sidecar.status.final import FinalEstimate
from sidecar.status.histogram import Histogram
from sidecar.status.listing import Listing
from sidecar.status.problems import Kind, Problem, Problems
from sidecar.status.stream import StreamStatus

PHASES = ("checkpoint", "snapshot", "upload")
COSTS = ("requests", "storage", "egress")
DRILLS = ("good", "damaged", "failed")
CHUNKS = ("read", "taken_over", "compared")  # how a restore point got what it has, or what it took over was proved
HISTORY = 50


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened, for the listener. `database` is empty when it concerns none in particular."""

    kind: Kind
    at: datetime
    database: str = ""
    message: str = ""
    hint: str = ""
    reason: Reason | None = None


@dataclass(frozen=True, slots=True)
class Publication:
    """A restore point that this process published. Sizes in bytes, durations in seconds; `at` is this machine's clock."""

    at: datetime
    key: str
    size: int
    uploaded: int
    reused: int
    database_size: int
    seconds: dict[str, float]


@dataclass(slots=True)
class DatabaseStatus:
    """The state of one database. Sizes in bytes, durations in seconds, instants in UTC."""

    name: str
    path: str
    restore_outcome: str | None = None
    restore_seconds: float | None = None
    restore_bytes: int | None = None
    restored_from: str | None = None
    size: int = 0
    wal_size: int = 0
    restore_point: str | None = None
    restore_point_size: int = 0
    others: tuple[str, ...] = ()  # databases in the store when it had no restore point of this one
    last_success: datetime | None = None
    protected_since: datetime | None = None
    last_outcome: str | None = None
    next_backup: datetime | None = None
    failing_since: datetime | None = None
    failing_reason: Reason | None = None
    last_error: str | None = None
    unprotected_since: datetime | None = None
    changed_since: datetime | None = None  # the oldest change that no restore point holds; a stream may have it
    uploaded: int = 0
    reused: int = 0
    chunks: Counter[str] = field(default_factory=Counter)  # of restore points: read, or taken_over unread; and compared
    written_past: int = 0  # chunks that differed although no commit had written there
    suspicious: int = 0
    findings: tuple[str, ...] = ()  # of SQLite's last checks
    quick_findings: tuple[str, ...] = ()  # those among them that every check looks for
    checked: str = ""  # the most thorough check of this process: none yet, quick or full
    untagged: int = 0
    final: FinalEstimate = field(default_factory=FinalEstimate)
    takes_over: bool = (
        False  # whether the newest restore point is one from which the next may take over, while it is streamed
    )
    last_drill: datetime | None = None
    proven: str | None = None  # the restore point that a drill of any machine last found good, at `last_drill`
    next_drill: datetime | None = None
    drill_outcome: str | None = None
    drill_seconds: float | None = None
    drill_error: str | None = None
    drills: Counter[str] = field(default_factory=Counter)
    backups: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    phases: dict[str, Histogram] = field(default_factory=lambda: {phase: Histogram() for phase in PHASES})
    stream: StreamStatus = field(default_factory=StreamStatus)
    history: deque[Publication] = field(default_factory=lambda: deque(maxlen=HISTORY))

    @property
    def final_in_place(self) -> bool:
        """Whether a final backup would read in place what has changed, and compare the rest, instead of copying everything."""
        return self.takes_over and self.stream.active and self.stream.protects

    @property
    def final_estimate(self) -> float | None:
        """Seconds that a final backup would take now, or None before the first publish."""
        return self.final.seconds(self.size, in_place=self.final_in_place)

    def unprotected_seconds(self, now: datetime) -> float:
        """The age of the oldest change that neither a restore point nor a stream holds."""
        return max(0.0, (now - self.unprotected_since).total_seconds()) if self.unprotected_since else 0.0


@dataclass(slots=True)
class LeaseStatus:
    """The state of the lease. `held` means that our term has not ended; `waiting_for` is another holder.

    `streamed` tells that a holder before us has streamed to this store. `unsuitable` is what the store does that it must not
    do for a lease, as was found since the term began.
    """

    enabled: bool = False
    holder: str = ""
    held: bool = False
    epoch: int = 0
    waiting_for: str | None = None
    streamed: bool = False
    unsuitable: str = ""
    renewals: Counter[str] = field(default_factory=Counter)


class Status:
    """The state of this daemon. `now` is injected so that reading it needs no clock."""

    def __init__(
        self,
        databases: tuple[Database, ...],
        store: str,
        version: str,
        now: Callable[[], datetime],
        *,
        billable: bool = True,
    ) -> None:
        """`store` as it may be shown; `billable` means that its requests and bytes are paid for."""
        self._now = now
        self.billable = billable
        self.store = store
        self.version = version
        self.started = now()
        self.phase = "starting"
        self.ready = False
        self.sqlite_version = ""
        self.interval: timedelta | None = None
        self.by_need = False  # whether restore points may be up to an hour apart while a stream is healthy
        self.stream_interval: timedelta | None = None  # None where nothing is to be streamed
        self.final_backup_timeout: timedelta | None = None
        self.final_began: float | None = None  # when the final backups began, in the event loop's seconds
        self.drill_interval: timedelta | None = None
        self.keep = RetentionDays()
        self.expires: Expires | None = None  # what deletes expired restore points; None: not known
        self.listener: Callable[[Event], None] = _nobody
        self.notifications: Counter[str] = Counter()
        self.databases = {each.name: DatabaseStatus(each.name, str(each.path)) for each in databases}
        self.restores: Counter[str] = Counter()
        self.requests: Counter[tuple[str, str]] = Counter()
        self.in_flight = self.sent = self.received = 0
        self.unfinished: str | None = None  # the previous machine, if its last writes are missing here
        self.trouble: str | None = None  # why the last request to the store failed
        self.request_seconds: dict[str, Histogram] = {}
        self.credentials_expiry: datetime | None = None
        self.lease = LeaseStatus()
        self.publishing: dict[str, tuple[int, int]] = {}
        self.boot: Measured | None = None  # what was spent before the app started
        self.stored: dict[str, dict[str, int]] = {}
        self.listings: dict[str, Listing] = {}  # by database, once the store was listed
        self.problems = Problems(len(databases))
        self.has_command = True  # False: nothing is started, and others write the databases
        self.remarks: dict[str, tuple[str, str]] = {}  # the same by database, for as long as it is so
        self.remark: tuple[str, str] | None = None  # what needs attention for as long as this process runs, and a hint

    def enter(self, phase: str, *, ready: bool = False) -> None:
        """Enter a phase: starting, restoring, running, fenced, stopping, handed over or stopped."""
        self.phase, self.ready = phase, ready
        if phase in {"stopping", "stopped", "handed over"}:
            for database in self.databases.values():
                database.next_backup = database.next_drill = None
        if ready and self.boot is None:
            self.boot = self._measured()

    def count_request(self, operation: str, outcome: str, seconds: float) -> None:
        """Count one request to the store."""
        self.requests[operation, outcome] += 1
        self.request_seconds.setdefault(operation, Histogram()).observe(seconds)

    def restored(self, name: str, outcome: str, seconds: float, size: int, source: str | None) -> None:
        """Record how a database got its content at boot."""
        database = self.databases[name]
        self.restores[outcome] += 1
        database.restore_outcome, database.restored_from = outcome, source
        database.restore_seconds, database.restore_bytes = seconds, size
        if source:
            database.protected_since = self._now()

    def published(
        self,
        name: str,
        key: str,
        size: int,
        uploaded: int,
        reused: int,
        database_size: int = 0,
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Record a restore point that now exists."""
        database = self.databases[name]
        made = Publication(self._now(), key, size, uploaded, reused, database_size, dict(seconds or {}))
        database.history.append(made)
        database.restore_point, database.restore_point_size = key, size
        database.uploaded += uploaded
        database.reused += reused
        self.tell(Kind.PUBLISHED, name)

    def succeeded(self, name: str, outcome: str) -> None:
        """Record a cycle that left the database protected: `published`, `unchanged` or `streamed`."""
        database = self.databases[name]
        database.backups[outcome] += 1
        database.last_outcome, database.last_success = outcome, self._now()
        failing_since, database.failing_since = database.failing_since, None
        database.failing_reason = database.last_error = None
        database.protected_since = database.protected_since or self._now()
        if failing_since:
            minutes = (self._now() - failing_since) / timedelta(minutes=1)
            self.tell(Kind.RECOVERY, name, f"backups work again, after {minutes:.0f} minutes")
        self.tell(Kind.PROTECTED, name)

    def failed(
        self, name: str, message: str, hint: str, reason: Reason = Reason.BUG, kind: Kind = Kind.FAILURE
    ) -> None:
        """Record a cycle that failed; `kind` is `NOTICE` when people were already notified of the cause."""
        database = self.databases[name]
        database.backups["failed"] += 1
        database.failures[reason] += 1
        database.last_outcome, database.last_error = "failed", message
        database.failing_since, database.failing_reason = database.failing_since or self._now(), reason
        database.protected_since = None
        self.report(name, message, hint, kind, reason)

    def suspected(self, name: str, message: str, hint: str) -> None:
        """Record a snapshot that looks as if the database had been lost."""
        self.databases[name].suspicious += 1
        self.report(name, message, hint, Kind.SUSPICION)

    def drilled(self, name: str, outcome: str, key: str | None, seconds: float) -> None:
        """Record a drill: `good`, `damaged` or `failed`."""
        database = self.databases[name]
        database.drills[outcome] += 1
        database.drill_outcome, database.drill_seconds, database.drill_error = outcome, seconds, None
        if outcome == "good":
            database.proven, database.last_drill = key, self._now()

    def damaged(self, name: str, message: str, hint: str) -> None:
        """Record that a good restore point is gone from the store, like a drill that found it damaged."""
        database = self.databases[name]
        database.drills["damaged"] += 1
        database.drill_outcome, database.drill_error = "damaged", message
        self.report(name, message, hint, Kind.DRILL)

    def report(
        self, name: str, message: str, hint: str, kind: Kind = Kind.NOTICE, reason: Reason | None = None
    ) -> None:
        """Keep a problem for people to see, and pass it to the listener."""
        self.report_problem(Problem(self._now(), name, message, hint, kind), reason)

    def report_problem(self, problem: Problem, reason: Reason | None = None) -> None:
        """Like `report`, for one that may be `lasting`."""
        self.problems.add(problem)
        self.tell(problem.kind, problem.database, problem.message, problem.hint, reason)

    def acknowledged(self, problem: Problem, note: str, *, told: bool = False) -> None:
        """Take a problem off the page that somebody acknowledged, and tell receivers unless they were `told` before."""
        self.problems.forget(problem)
        if self.unfinished and problem.message.startswith(f"{self.unfinished} did not shut down cleanly"):
            self.unfinished = None
        if not told and problem.kind is not Kind.FIRST_START:
            self.tell(Kind.ACKNOWLEDGED, problem.database, f"acknowledged: {problem.message}", note)

    def tell(self, kind: Kind, name: str, message: str = "", hint: str = "", reason: Reason | None = None) -> None:
        """Pass an event to the listener only."""
        self.listener(Event(kind, self._now(), name, message, hint, reason))

    def final_estimate(self) -> float | None:
        """Seconds that the final backups of all databases would take now, or None before the first publish."""
        known = [each.final_estimate for each in self.databases.values() if each.final_estimate is not None]
        return sum(known) if known else None

    def now(self) -> datetime:
        """The current time, which dates everything here."""
        return self._now()

    def unprotected(self, name: str) -> float:
        """Seconds for which a database has had changes that no restore point holds."""
        return self.databases[name].unprotected_seconds(self._now())

    def cost(self) -> Cost | None:
        """The cost of a month like the time since the boot; None for a store that costs nothing."""
        if not self.billable:
            return None
        now = self._measured()
        boot = self.boot or now
        since = Measured(
            now.seconds - boot.seconds,
            Counter(now.requests) - Counter(boot.requests),
            now.sent - boot.sent,
            now.received - boot.received,
            sum(sum(tiers.values()) for tiers in self.stored.values()),
            self.drill_interval.total_seconds() if self.drill_interval else 0.0,
        )
        cost, stream = estimate(since, boot), self.stream_cost()
        return replace(cost, storage=cost.storage + stream.storage) if stream else cost

    def stream_cost(self) -> StreamCost | None:
        """The part of `cost` that is the streams'; None where nothing is to be streamed or paid."""
        if not self.billable or self.stream_interval is None:
            return None
        streams = [each.stream for each in self.databases.values()]
        seconds = self._measured().seconds - (self.boot.seconds if self.boot else 0.0)
        segments, sent = sum(each.segments for each in streams), sum(each.uploaded for each in streams)
        return estimate_stream(
            Streamed(seconds, self.stream_interval.total_seconds(), segments, sent, self.keep.stream)
        )

    def _measured(self) -> Measured:
        """Everything since the start."""
        requests: Counter[str] = Counter()
        for (operation, _), count in self.requests.items():
            requests[operation] += count
        return Measured((self._now() - self.started).total_seconds(), requests, self.sent, self.received)


def _nobody(_event: Event) -> None:
    """The listener until one is set."""
