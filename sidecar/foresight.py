"""What the next boot would do with a database, for `sidecar check`: the boot table, and nothing of it carried out."""

from sidecar.boot import refused, said
from sidecar.compose import Parts
from sidecar.domain import Database, RestorePoint
from sidecar.locks import holder_of
from sidecar.restore import Decision, decide
from sidecar.trial import Finding


def foretell(parts: Parts, database: Database, newest: RestorePoint | None) -> Finding:
    """Raises what the boot would raise, with its exit code."""
    if holder := holder_of(database):
        return Finding(f"a sidecar (pid {holder.pid}) protects it now, and has decided")
    settings = parts.configuration.settings
    local = parts.snapshotter.signature(database.path) is not None
    decision = decide(
        newest.key if newest else None,
        local=local,
        marker=parts.lineage(database).read() if local else None,
        on_empty=settings.on_empty_store,
        on_conflict=settings.on_conflict,
    )
    key = newest.key if newest else ""
    if newest and not newest.size:
        text = f"the newest restore point {key} is gone from the store: an older good one is restored, if there is one"
        return Finding(f"{text}; a local file is kept if it descends from that one" if local else text, "warning")
    if refusal := refused(decision, database, parts.store.url, key):
        raise refusal
    return _finding(decision, f"{key} of {said(newest)}" if newest else "")


def _finding(decision: Decision, newest: str) -> Finding:
    unrelated = f"the local file does not descend from the newest restore point {newest}"
    match decision:
        case Decision.START_EMPTY:
            text = "there is neither a file nor a restore point: the app starts empty; are path and store right?"
            return Finding(text, "warning")
        case Decision.PUBLISH_LOCAL:
            return Finding("the local file is kept and published: the store has no restore point of it")
        case Decision.KEEP_LOCAL:
            return Finding(f"the local file is kept: it descends from the newest restore point {newest}")
        case Decision.CONFLICT_LOCAL:
            return Finding(f"{unrelated}: it is kept and published above it (on_conflict=local)", "warning")
        case Decision.CONFLICT_REMOTE:
            text = f"{unrelated}: it is moved aside and published under diverged/, and that one restored (on_conflict=remote)"
            return Finding(text, "warning")
    return Finding(f"{newest} is restored")
