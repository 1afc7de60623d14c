"""Hands a restored database over to the user that the app runs as."""

import os
from collections.abc import Sequence
from pathlib import Path

from sidecar.domain import Account
from sidecar.errors import ConfigurationError
from sidecar.files import COMPANIONS

LEFT_BY_MKFS = {"lost+found"}


def hand_over(databases: Sequence[Path], account: Account) -> None:
    """Let the app own its databases, and write beside it, where SQLite keeps its log and locks.

    The directory changes hands only when there is nothing in it but databases that are handed over, and what belongs to
    them: a fresh volume, or what we made. Any other directory the image must open to the app. Raises
    `ConfigurationError` when the app could not write there. To be called while nobody has the database open.
    """
    names = [database.name for database in databases]
    for database in databases:
        try:
            _hand_over(database, names, account)
        except OSError as error:
            raise ConfigurationError(
                f"{database} cannot be given to app_user {account.name}: {error.strerror}",
                "its directory must be on a file system with owners, and writable",
            ) from error


def _hand_over(database: Path, names: Sequence[str], account: Account) -> None:
    directory = database.parent
    directory.mkdir(parents=True, exist_ok=True)
    if not _may_write(directory, account):
        _require_ours(directory, names, account)
        os.chown(directory, account.uid, account.gid)
    for suffix in ("", *COMPANIONS):
        _give(f"{database}{suffix}", account)


def _give(path: str, account: Account) -> None:
    if os.path.lexists(path):
        os.chown(path, account.uid, account.gid, follow_symlinks=False)
        if not os.path.islink(path):
            os.chmod(path, os.stat(path).st_mode | 0o600)


def _require_ours(directory: Path, names: Sequence[str], account: Account) -> None:
    present = {entry.name for entry in directory.iterdir()} - LEFT_BY_MKFS
    foreign = sorted(each for each in present if not any(_belongs(each, name) for name in names))
    if foreign or directory == Path("/"):
        raise ConfigurationError(
            f"app_user {account.name} may not write in {directory}, where also {foreign[0] if foreign else 'all'} is",
            f"chown {account.name} {directory} in the image, or give the database a directory of its own",
        )


def _belongs(entry: str, database: str) -> bool:
    """Whether a file in a database's directory is the database's, by its name."""
    return entry.removeprefix(".") == database or entry.removeprefix(".").startswith((f"{database}-", f"{database}."))


def _may_write(directory: Path, account: Account) -> bool:
    """By mode bits alone; access control lists may say more."""
    status = directory.stat()
    if account.uid == 0:
        return True
    if status.st_uid == account.uid:
        return status.st_mode & 0o300 == 0o300
    if status.st_gid in {account.gid, *account.groups}:
        return status.st_mode & 0o030 == 0o030
    return status.st_mode & 0o003 == 0o003
