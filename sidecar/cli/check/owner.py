"""Whether the user of the app, if it is known, can write where the database is or will be."""

import os
from pathlib import Path

from sidecar.bootstrap import Services
from sidecar.cli.check.finding import Finding
from sidecar.documentation import OWNER_AND_MODE
from sidecar.errors import DamagedRestorePoint
from sidecar.host import account_of, may_give_away, obstacle, permissions_of, require_to_be_given, to_become
from sidecar.model import Account, Database, Permissions, RestorePoint


async def owner(services: Services, database: Database, newest: RestorePoint | None) -> Finding:
    """Look at the directory and the rights of this process. Nothing is changed.

    Raises `ConfigurationError` when the app's user cannot be given what it needs, with which `run` would not start.
    """
    app = to_become(services.configuration.settings.app_user)
    if app:
        require_to_be_given(database.path, [each.path.name for each in services.databases], app)
        return _judge(database.path.parent, app, f"uid {app.uid}, gid {app.gid}", given=True)
    known = _of_local_file(services, database) or await _recorded(services, newest)
    if known is None:
        return Finding("not known: no restore point has recorded it", "skipped")
    who = f"uid {known.uid}, gid {known.gid}, mode {known.mode:04o}"
    return _judge(database.path.parent, account_of(known.uid, known.gid), who)


def _of_local_file(services: Services, database: Database) -> Permissions | None:
    return permissions_of(database.path) if services.snapshotter.signature(database.path) else None


async def _recorded(services: Services, newest: RestorePoint | None) -> Permissions | None:
    if newest is None or newest.gone:
        return None
    try:
        _, contents = await services.reader(services.catalog()).contents(newest)
    except DamagedRestorePoint:
        return None  # another step says so
    return contents.index.permissions


def _judge(directory: Path, account: Account, who: str, *, given: bool = False) -> Finding:
    """`given` says that the directory itself is to be given to the account."""
    blocked = obstacle(directory, account, given=given) or _cannot_give(account)
    if blocked:
        return Finding(f"the database is to belong to {who}, but {blocked}; see {OWNER_AND_MODE}", "warning")
    return Finding(f"{who}; may write in {directory}")


def _cannot_give(account: Account) -> str | None:
    if account.uid == os.geteuid() or may_give_away():
        return None
    way_out = f"run sidecar as uid {account.uid}, or as root with CAP_CHOWN"
    return f"this process (uid {os.geteuid()}) cannot give it files: {way_out}"
