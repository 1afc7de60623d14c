"""Whether the user of the app, if it is known, can write where the database is or will be."""

import os
from dataclasses import replace
from pathlib import Path

from sidecar.bootstrap import Services
from sidecar.cli.check.finding import Finding
from sidecar.errors import DamagedRestorePoint
from sidecar.host import (
    account_of,
    may_give_away,
    obstacle,
    permissions_of,
    require_to_be_given,
    to_become,
    unsaid_user,
)
from sidecar.model import Account, Database, Permissions, RestorePoint
from sidecar.status.documentation import OWNER_AND_MODE


async def owner(services: Services, database: Database, newest: RestorePoint | None) -> Finding:
    """Look at the directory and the rights of this process. Nothing is changed.

    Raises `ConfigurationError` when the app's user cannot be given what it needs, with which `run` would not start.
    """
    app = to_become(services.configuration.settings.app_user)
    if app:
        require_to_be_given(database.path, [each.path.name for each in services.databases], app)
        return _judge(database.path.parent, app, f"uid {app.uid}, gid {app.gid}", given=True)
    if local := _of_local_file(services, database):
        return _judge_local(database.path.parent, local)
    recorded = await _recorded(services, newest)
    if recorded is None:
        return Finding("not known: no restore point has recorded it", "skipped")
    return _judge_recorded(database.path.parent, recorded)


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


def _judge_local(directory: Path, local: Permissions) -> Finding:
    """A database that is here keeps its owner, even where a restore would give it to the owner of the directory."""
    status = os.stat(directory)
    shut_out = f"uid {status.st_uid}, to whom {directory} belongs, could not write to it"
    if unsaid_user(local.uid, status) and not _lets_write(local, status):
        return Finding(
            f"the database belongs to {_format(local)}, and an app that runs as {shut_out}: set app_user, or `chown "
            f"{status.st_uid}:{status.st_gid}` the file; see {OWNER_AND_MODE}",
            "warning",
        )
    return _judge(directory, account_of(local.uid, local.gid), _format(local))


def _judge_recorded(directory: Path, recorded: Permissions) -> Finding:
    above = next(each for each in (directory, *directory.parents) if each.exists())
    status = os.stat(above)
    if reason := unsaid_user(recorded.uid, status):
        found = _judge(directory, account_of(status.st_uid, status.st_gid), f"uid {status.st_uid}, gid {status.st_gid}")
        return replace(
            found, text=f"{found.text}; recorded was {_format(recorded)}, but {reason}; see {OWNER_AND_MODE}"
        )
    return _judge(directory, account_of(recorded.uid, recorded.gid), _format(recorded))


def _lets_write(local: Permissions, directory: os.stat_result) -> bool:
    """Whether the mode of root's file lets the owner of its directory write to it."""
    wanted = 0o6
    owner = account_of(directory.st_uid, directory.st_gid)
    shift = 3 if local.gid in {owner.gid, *owner.groups} else 0
    return local.mode >> shift & wanted == wanted


def _format(owner: Permissions) -> str:
    return f"uid {owner.uid}, gid {owner.gid}, mode {owner.mode:04o}"


def _judge(directory: Path, account: Account, who: str, *, given: bool = False) -> Finding:
    """`given` says that the directory itself is to be given to the account."""
    blocked = obstacle(directory, account, given=given) or _cannot_give(account)
    if blocked:
        return Finding(f"the database should belong to {who}, but {blocked}; see {OWNER_AND_MODE}", "warning")
    return Finding(f"{who}; may write in {directory}")


def _cannot_give(account: Account) -> str | None:
    if account.uid == os.geteuid() or may_give_away():
        return None
    way_out = f"run sidecar as uid {account.uid}, or as root with CAP_CHOWN"
    return f"this process (uid {os.geteuid()}) cannot give it files: {way_out}"
