"""Tracks, by stat alone, since when a database has changes that no restore point holds.

An observation every second dates a change to the second. Where nobody observed (before the daemon started, or while it
was busy), the file's own modification time dates it. The tracker may report changes where there are none, because a
checkpoint by the app touches the file, but never the other way round; the next cycle compares contents and corrects it.
"""

from datetime import datetime, timedelta

from sidecar.model import Signature, Snapshot
from sidecar.status import DatabaseStatus

CUT_AFTER = 2.0  # seconds; a stream looks for a replaced file once a second, and ends there
LONGEST_STREAM = timedelta(hours=24)  # without a restore point in between


class ChangeTracker:
    """Tracks the changes of one database and keeps `status.unprotected_since` current. Instants are this machine's."""

    def __init__(self, status: DatabaseStatus) -> None:
        self._status = status
        self._held: Signature | None = None  # the state that a restore point, or a copy under diverged/, holds
        self._held_at: datetime | None = None
        self._copied: Signature | None = None  # the state in the copy that is being published
        self._copied_at: datetime | None = None
        self._changed: datetime | None = None  # the first change after that copy
        self._observed: list[tuple[datetime, Signature]] | None = None  # while a copy is being made
        self._seen: Signature | None = None
        self._seen_since = 0.0  # monotonic seconds
        self._streamed_at: datetime | None = None  # everything that was committed by then is in the store
        self._streamed_look = 0.0  # the same instant in monotonic seconds

    def observe(self, signature: Signature, now: datetime, monotonic: float) -> None:
        """Take note of what stat reports now. `monotonic` is the same instant, in seconds."""
        self._follow_clock(now)
        if not _is_same(signature, self._seen):
            replaced = self._seen is not None and signature.database.inode != self._seen.database.inode
            self._seen, self._seen_since = signature, monotonic + (CUT_AFTER if replaced else 0.0)
        if _is_same(signature, self._held):
            self._held_at = now
        elif not self._is_our_checkpoint(signature):
            self._note_change(_date_of_change(signature, self._held_at, now))
        if self._observed is not None:
            self._observed.append((now, signature))
        if self._copied and self._changed is None and not _is_same(signature, self._copied):
            self._changed = _date_of_change(signature, self._copied_at, now)

    def has_changes(self, signature: Signature) -> bool:
        """Whether the database may contain changes that no restore point holds."""
        return not signature.proves_unchanged_since(self._held)

    def mark_held(self, signature: Signature | None, now: datetime) -> None:
        """A restore point holds exactly this state: the database was just restored from it."""
        self._held, self._held_at = signature, now
        self._status.changed_since = self._status.unprotected_since = None

    def mark_held_at(self, instant: datetime) -> None:
        """There is a restore point of this instant, which the database may have continued from."""
        self._held_at = self._held_at or instant

    def mark_kept(self, signature: Signature) -> None:
        """This state is kept, but not as a restore point: it stays unprotected, and need not be kept again."""
        self._held = signature

    def mark_streamed(self, at: datetime, monotonic: float) -> None:
        """A stream, which can be restored, has everything that was committed by this instant."""
        self._streamed_at, self._streamed_look = at, monotonic
        if self._status.unprotected_since:
            self._status.unprotected_since = self._beyond_stream(self._status.unprotected_since)
        self._distrust_long_stream(at)

    def mark_pending(self, since: datetime) -> None:
        """A commit that was captured at this instant is in no segment yet. The files may look as they did before it."""
        if self._streamed_at and self._status.unprotected_since is None and self._held_at and since > self._held_at:
            self._status.unprotected_since = since

    def mark_unstreamed(self) -> None:
        """No stream leads on from the restore point that now has the copy."""
        self._streamed_at = None

    def mark_lost(self, since: datetime) -> None:
        """The restore point of this instant is damaged: its content has been unprotected ever since."""
        self._held = self._streamed_at = None
        self._held_at = since
        self._status.changed_since = min(since, self._status.changed_since or since)
        self._status.unprotected_since = min(since, self._status.unprotected_since or since)

    def begin_copy(self) -> None:
        """A copy is about to be made."""
        self._observed, self._changed = [], None

    def end_copy(self, snapshot: Snapshot, now: datetime) -> None:
        """The copy is complete. Observations of a newer state than the copied one date changes that are not in it."""
        self._copied = snapshot.signature
        self._copied_at = now - timedelta(seconds=snapshot.seconds.get("snapshot", 0.0))
        observed, self._observed = self._observed or [], None
        for at, signature in observed:
            # Observations from before the checkpoint are older; an equal time means the same tick of the clock.
            if _written(signature) >= _written(snapshot.signature) and not _is_same(signature, snapshot.signature):
                self._changed = _date_of_change(signature, self._copied_at, at)
                return

    def mark_copy_held(self) -> None:
        """A restore point holds the copied state."""
        self._held, self._held_at = self._copied, self._copied_at
        self._status.changed_since = self._changed
        self._status.unprotected_since = self._beyond_stream(self._changed) if self._changed else None

    def discard_copy(self) -> None:
        """The copy was removed."""
        self._copied = self._observed = None

    def _note_change(self, at: datetime) -> None:
        """There is a change of this instant that no restore point holds."""
        status = self._status
        status.changed_since = status.changed_since or at
        if status.unprotected_since is None:
            status.unprotected_since = self._beyond_stream(at)
            self._distrust_long_stream(at)

    def _distrust_long_stream(self, now: datetime) -> None:
        """A day of changes that only a stream has counts as unprotected: its segments expire, and one damaged ends them all."""
        changed = self._status.changed_since
        if changed and now - changed > LONGEST_STREAM:
            self._status.unprotected_since = changed

    def _beyond_stream(self, since: datetime) -> datetime | None:
        """Since when there are changes that no stream has either; None when there are none.

        What was seen before the stream last looked at the log is in the store. The times of the files do not tell that:
        clocks are set, and a file may be given any time.
        """
        if self._streamed_at is None or self._seen is None:
            return since
        if self._seen_since <= self._streamed_look:
            return None
        return max(since, self._streamed_at)

    def _follow_clock(self, now: datetime) -> None:
        """The machine's clock may have been set back: what is known to be past is not in the future."""
        status = self._status
        if self._streamed_at:
            self._streamed_at = min(self._streamed_at, now)
        if status.changed_since:
            status.changed_since = min(status.changed_since, now)
        if status.unprotected_since:
            status.unprotected_since = min(status.unprotected_since, now)

    def _is_our_checkpoint(self, signature: Signature) -> bool:
        """Whether a cycle's own checkpoint explains the change: it writes the database file and leaves the WAL alone."""
        copying = self._observed is not None or self._copied is not None
        return copying and self._held is not None and signature.wal is not None and signature.wal == self._held.wal


def _is_same(one: Signature, other: Signature | None) -> bool:
    return other is not None and (one.database, one.wal) == (other.database, other.wal)


def _written(signature: Signature) -> int:
    """When the files were last written, in nanoseconds, by the file system's clock."""
    return max(each.mtime_ns for each in (signature.database, signature.wal) if each)


def _date_of_change(signature: Signature, after: datetime | None, now: datetime) -> datetime:
    """When a change that is seen now was made: not before `after`, when it was absent, and not in the future."""
    age = now.timestamp() - _written(signature) / 1e9
    written = now - timedelta(seconds=max(0.0, age))
    return max(written, min(after, now)) if after else written
