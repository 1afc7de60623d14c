"""Owner, group and mode of a restored database: those that were recorded, and never more than that for anybody.

Root sets them in directories that another user may write in. So every change is made on a descriptor that was checked, as
in `host.ownership`.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from sidecar.host.accounts import account_of
from sidecar.host.files import opened_alone
from sidecar.host.ownership import allows, opened_folder, require_sqlite
from sidecar.log import log
from sidecar.model import Account, Permissions
from sidecar.status.documentation import OWNER_AND_MODE

# Called with the database's path, what was recorded, and the restored file before it has that path.
Entrust = Callable[[Path, Permissions | None, Path], None]

# Bits of CapEff (capabilities(7), proc(5)).
_CHOWN = 0
_DAC_OVERRIDE = 1


def permissions_of(path: Path) -> Permissions | None:
    """Owner, group and mode of a file; None when there is none. The file is not opened."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return Permissions(status.st_uid, status.st_gid, status.st_mode & 0o777)


def narrowed(mode: int) -> int:
    """The mode for a file that could not get its group: the group it has instead may do what everybody may."""
    return mode & ~0o070 | mode & 0o070 & mode << 3


def obstacle(directory: Path, account: Account, *, given: bool = False) -> str | None:
    """What keeps a user from creating files in a directory, by mode bits alone; None when nothing does.

    A directory that is missing does not: it is made, and given to the user. With `given` that happens to an existing one.
    """
    for each in (*reversed(directory.parents), *(() if given else (directory,))):
        try:
            status = os.stat(each)
        except FileNotFoundError:
            return None
        if not allows(status, account, 0o3 if each == directory else 0o1):
            doing = "write in" if each == directory else "enter"
            rights = f"uid {status.st_uid}, gid {status.st_gid}, mode {status.st_mode & 0o7777:04o}"
            return f"uid {account.uid} may not {doing} {each} ({rights})"
    return None


def may_give_away() -> bool:
    """Whether this process may change the owner of its files."""
    return _is_capable_of(_CHOWN)


def _is_capable_of(capability: int) -> bool:
    with suppress(OSError, ValueError):
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> capability & 1)
    return os.geteuid() == 0


def unsaid_user(uid: int, directory: os.stat_result) -> str | None:
    """Why a database that belongs to root should go to the owner of its directory. None if it should not, or is not root's.

    Root may write anywhere, so that root owned the file says nothing about the app's user; whose the directory is does.
    Given to that user, the file can be written by both. Only root without its capability needs to own it.
    """
    if uid != 0 or directory.st_uid == 0 or not _is_capable_of(_DAC_OVERRIDE):
        return None
    return f"root may write anywhere, and the directory belongs to uid {directory.st_uid}, as whom the app may run"


def make_directory(directory: Path, recorded: Permissions | None = None) -> None:
    """Make the directory of a database, and those above it that are missing.

    They get the recorded owner of the database if that user can reach them, else the owner of the directory that they are
    made in; so they do if the recorded one is root. Raises OSError.
    """
    missing = [each for each in (directory, *directory.parents) if not os.path.lexists(each)]
    if not missing:
        return
    beside = os.stat(missing[-1].parent)
    uid, gid = beside.st_uid, beside.st_gid
    if recorded and (unsaid_user(recorded.uid, beside) or _obstacle_of(directory, recorded)) is None:
        uid, gid = recorded.uid, recorded.gid
    for each in reversed(missing):
        _make_one(each, uid, gid)


def _make_one(directory: Path, uid: int, gid: int) -> None:
    with opened_folder(directory.parent, os.O_PATH) as parent:
        with suppress(FileExistsError):
            os.mkdir(directory.name, dir_fd=parent)
        file = os.open(directory.name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=parent)
        try:
            # The owner of the parent could have put another one of our directories there.
            if os.fstat(file).st_uid == os.geteuid() and not os.listdir(file):
                _set_owner(file, uid, gid)
        finally:
            os.close(file)


def give_restored(database: Path, recorded: Permissions | None, restored: Path, app: Account | None = None) -> None:
    """Give a restored file its owner and mode, before it is renamed to the path of its database.

    The owner is the user of the app if that is known, else the recorded one if that user may write in the directory, else
    the owner of the directory, which also takes the place of root. The mode is the recorded one. What nobody recorded is
    taken from an empty file at the path, or stays. That the file did not get the recorded owner is logged. Raises OSError when the file is not ours any more.
    """
    known = recorded or permissions_of(database)
    wanted, reason = _choose(database.parent, known, app)
    with opened_folder(restored.parent, os.O_PATH) as folder, opened_alone(restored.name, folder) as file:
        require_sqlite(file, restored.name)
        refused = _set_owner(file, wanted.uid, wanted.gid)
        status = os.fstat(file)
        if known:
            os.fchmod(file, known.mode if status.st_gid == wanted.gid else narrowed(known.mode))
    should = known if known and not app else wanted
    asked_for = known or app or os.geteuid() == 0
    if asked_for and (should.uid, should.gid) != (status.st_uid, status.st_gid):
        reasons = "; ".join(each for each in (reason, refused) if each)
        _log_other_owner(database, should, status, reasons, _way_out(database, should, refused))


def _choose(directory: Path, known: Permissions | None, app: Account | None) -> tuple[Permissions, str | None]:
    """The owner to give the file, and the obstacle for the recorded one, if any. The mode does not matter."""
    if app:
        return Permissions(app.uid, app.gid, 0), None
    status = os.stat(directory)
    beside = Permissions(status.st_uid, status.st_gid, 0)
    if known is None:
        return beside, None
    reason = unsaid_user(known.uid, status) or _obstacle_of(directory, known)
    return (known, None) if reason is None else (beside, reason)


def _obstacle_of(directory: Path, owner: Permissions) -> str | None:
    return obstacle(directory, account_of(owner.uid, owner.gid))


def _way_out(database: Path, should: Permissions, refused: str | None) -> str:
    if refused:
        return f"run sidecar as uid {should.uid}, or as root with CAP_CHOWN"
    if should.uid == 0:
        return "if the app runs as root and nobody else may read its database, set app_user=root"
    return f"let the app's user write in {database.parent}"


def _set_owner(file: int, uid: int, gid: int) -> str | None:
    """Set the owner. Returns why that failed, if it did; the group is set even then, where that is allowed."""
    status = os.fstat(file)
    if (status.st_uid, status.st_gid) == (uid, gid):
        return None
    try:
        os.fchown(file, uid, gid)
    except OSError as error:
        with suppress(OSError):
            os.fchown(file, -1, gid)
        return f"chown to {uid}:{gid}: {error.strerror}"
    return None


def _log_other_owner(database: Path, should: Permissions, status: os.stat_result, reason: str, hint: str) -> None:
    log.warning(
        "restored database has another owner",
        path=str(database),
        owner=f"{status.st_uid}:{status.st_gid}",
        expected=f"{should.uid}:{should.gid}",
        reason=reason,
        hint=f"{hint}; see {OWNER_AND_MODE}",
    )
