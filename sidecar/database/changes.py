"""Since when a database has changes that no restore point holds: from what stat says of it, look by look.

A look every second dates a change to a second, and the file's own time of change dates it where nobody looked: before
the daemon started, or while it was busy. It may call a database unprotected that is not (a checkpoint by the app touches
the file), never the other way round; the next cycle compares contents and ends that.
"""

from datetime import datetime, timedelta

from sidecar.model import Signature, Snapshot
from sidecar.status.model import DatabaseStatus


class Protection:
    """What is known of one database; `status` gets `unprotected_since`. Instants are this machine's."""

    def __init__(self, status: DatabaseStatus) -> None:
        self._status = status
        self._held: Signature | None = None
        self._held_at: datetime | None = None
        self._looks: list[tuple[datetime, Signature]] | None = None
        self._copied: Signature | None = None
        self._copied_at: datetime | None = None
        self._changed: datetime | None = None

    def look(self, signature: Signature, now: datetime) -> None:
        """Take note of what stat says now."""
        if _same(signature, self._held):
            self._held_at = now
        elif self._status.unprotected_since is None and not self._is_our_checkpoint(signature):
            self._status.unprotected_since = _dated(signature, self._held_at, now)
        if self._looks is not None:
            self._looks.append((now, signature))
        if self._copied and self._changed is None and not _same(signature, self._copied):
            self._changed = _dated(signature, self._copied_at, now)

    def _is_our_checkpoint(self, signature: Signature) -> bool:
        """A cycle's own checkpoint writes the database's file, and leaves the WAL as it is."""
        cycling = self._looks is not None or self._copied is not None
        return cycling and self._held is not None and signature.wal is not None and signature.wal == self._held.wal

    def holds(self, signature: Signature | None, now: datetime) -> None:
        """A restore point holds all of this: the database was just restored from it."""
        self._held, self._held_at, self._status.unprotected_since = signature, now, None

    def held_at(self, instant: datetime) -> None:
        """There is a restore point of this instant, that the database may have gone on from."""
        self._held_at = self._held_at or instant

    def kept(self, signature: Signature) -> None:
        """What is there is kept, though not as a restore point: it stays unprotected, and need not be kept again."""
        self._held = signature

    def lost(self, since: datetime) -> None:
        """The restore point of this instant turned out damaged: what came with it is unprotected ever since."""
        self._held = None
        self._held_at = since
        self._status.unprotected_since = min(since, self._status.unprotected_since or since)

    def begin(self) -> None:
        """A copy is being made."""
        self._looks, self._changed = [], None

    def copied(self, snapshot: Snapshot, now: datetime) -> None:
        """The copy is made; looks at something newer than what it was made of saw changes that are not in it."""
        self._copied = snapshot.signature
        self._copied_at = now - timedelta(seconds=snapshot.seconds.get("snapshot", 0.0))
        looks, self._looks = self._looks or [], None
        for at, signature in looks:
            # Those from before the checkpoint are older; what is as old was written in the same tick of the clock.
            if _written(signature) >= _written(snapshot.signature) and not _same(signature, snapshot.signature):
                self._changed = _dated(signature, self._copied_at, at)
                return

    def settle(self) -> None:
        """A restore point holds what was copied."""
        self._held, self._held_at = self._copied, self._copied_at
        self._status.unprotected_since = self._changed

    def end(self) -> None:
        """The copy is gone."""
        self._copied = self._looks = None

    def changed_since(self, signature: Signature) -> bool:
        """Whether there may be something that is not held."""
        return not signature.proves_unchanged_since(self._held)


def _same(one: Signature, other: Signature | None) -> bool:
    return other is not None and (one.database, one.wal) == (other.database, other.wal)


def _written(signature: Signature) -> int:
    """When the files were last written, in nanoseconds, by the file system's clock."""
    return max(each.mtime_ns for each in (signature.database, signature.wal) if each)


def _dated(signature: Signature, after: datetime | None, now: datetime) -> datetime:
    """When a change was made that is seen now: not before `after`, when it was not there, and not in the future."""
    age = now.timestamp() - _written(signature) / 1e9
    written = now - timedelta(seconds=max(0.0, age))
    return max(written, min(after, now)) if after else written
