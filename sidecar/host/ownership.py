"""Gives databases to the user that the app runs as.

This is done with root's rights, in directories that this user may write in. So every step works on a descriptor that was
checked, no link that another user made is followed, and no file that may be another one by name is given away.
"""

import errno
import os
import re
import stat
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from sidecar.errors import ConfigurationError
from sidecar.host.files import COMPANIONS, opened_alone, temporary
from sidecar.model import Account

LEFT_BY_MKFS = {"lost+found"}
_MOST_LINKS = 40  # the kernel follows no more in one path (path_resolution(7))
_STAGED = re.compile(r"sidecar-[0-9a-f]{16}-\d+\.snapshot(-journal)?")
_AFTER = r"(|-wal|-shm|-journal)"
# How the files of a database begin (sqlite.org/fileformat.html, walformat.html), unless with nothing but zeros.
_BEGINS = {
    "": (b"SQLite format 3\0",),
    "-wal": (b"\x37\x7f\x06\x82", b"\x37\x7f\x06\x83"),
    "-shm": (struct.pack("=I", 3007000),),
    "-journal": (b"\xd9\xd5\x05\xf9\x20\xa1\x63\xd7",),
}


def hand_over(databases: Sequence[Path], account: Account, configured: Sequence[Path] = ()) -> None:
    """Let the app own its databases, and write in their directories, where SQLite keeps its logs and locks.

    A directory is given to the app only if it contains nothing but these databases and their companions: a fresh volume,
    or a directory that sidecar made. The image must give the app access to any other directory. `databases` have no
    symbolic link in their paths; `configured` are the paths as they were given. Raises `ConfigurationError` when the app
    could not write there. To be called while this process has no database open.
    """
    names = [database.name for database in databases]
    for path in configured:
        _require_own_links(path.absolute())
    for database in databases:
        try:
            _hand_over(database, names, account)
        except OSError as error:
            what = f" ({error.filename})" if error.errno in {errno.EMLINK, errno.ELOOP, errno.EINVAL} else ""
            raise ConfigurationError(
                f"{database}{what} cannot be given to app_user {account.name}: {error.strerror}",
                "its directory must be writable and on a file system with owners; remove a link there yourself",
            ) from error


def _hand_over(database: Path, names: Sequence[str], account: Account) -> None:
    database.parent.mkdir(parents=True, exist_ok=True)
    with opened_folder(database.parent) as folder:
        if not may_write(os.fstat(folder), account):
            _require_ours(database.parent, os.listdir(folder), names, account)
            os.fchown(folder, account.uid, account.gid)
        with suppress(FileNotFoundError):  # a restore that was killed may have left the database a second name
            os.unlink(temporary(database).name, dir_fd=folder)
        for suffix in ("", *COMPANIONS):
            _give(folder, database.name, suffix, account)


@contextmanager
def opened_folder(directory: Path, how: int = os.O_RDONLY) -> Iterator[int]:
    """Open a directory step by step: a link that was put in its path in the meantime is an error.

    `os.O_PATH` is enough for work on its entries, and needs no right to read it.
    """
    steps = len(directory.parts) - 1
    folder = os.open("/", (os.O_PATH if steps else how) | os.O_DIRECTORY)
    try:
        for step, part in enumerate(directory.parts[1:], 1):
            flags = (os.O_PATH if step < steps else how) | os.O_DIRECTORY | os.O_NOFOLLOW
            inner = os.open(part, flags, dir_fd=folder)
            os.close(folder)
            folder = inner
        yield folder
    finally:
        os.close(folder)


def _give(folder: int, database: str, suffix: str, account: Account) -> None:
    """Give a file to the account, unless it has it already; never one whose first bytes are not SQLite's."""
    name = f"{database}{suffix}"
    try:
        status = os.stat(name, dir_fd=folder, follow_symlinks=False)
        if stat.S_ISREG(status.st_mode) and status.st_uid == account.uid and status.st_mode & 0o600 == 0o600:
            return
        with opened_alone(name, folder) as file:
            require_sqlite(file, name, suffix)
            mode = os.fstat(file).st_mode & 0o777 | 0o600
            os.fchown(file, account.uid, account.gid)
            os.fchmod(file, mode)
    except FileNotFoundError:
        return


def require_sqlite(file: int, name: str, suffix: str = "") -> None:
    """Raise OSError unless an open file begins like the database, or the companion with this suffix, or with zeros."""
    begin = os.pread(file, 16, 0)
    if begin.strip(b"\0") and not begin.startswith(_BEGINS[suffix]):
        raise OSError(errno.EINVAL, "it is not a file of SQLite", name)


def _require_own_links(path: Path, followed: int = 0) -> None:
    """Require that root or this user made every symbolic link in a path, and in the paths that these links lead to."""
    for each in (*reversed(path.parents), path):
        try:
            status = os.lstat(each)
        except OSError:
            return  # a missing part is created later, or refused then
        if not stat.S_ISLNK(status.st_mode):
            continue
        if status.st_uid not in {0, os.geteuid()}:
            raise ConfigurationError(
                f"{each} is a symbolic link of uid {status.st_uid}, who could redirect root's rights with it",
                f"put {each.resolve()} into `databases`, or make root the owner of the link",
            )
        if followed < _MOST_LINKS:
            _require_own_links(each.parent / os.readlink(each), followed + 1)


def require_to_be_given(database: Path, names: Sequence[str], account: Account) -> None:
    """Raise `ConfigurationError` when `hand_over` would refuse the directory of a database. Nothing is changed."""
    directory = database.parent
    if directory.is_dir() and not may_write(directory.stat(), account):
        _require_ours(directory, os.listdir(directory), names, account)


def _require_ours(directory: Path, present: Sequence[str], names: Sequence[str], account: Account) -> None:
    entries = set(present) - LEFT_BY_MKFS
    foreign = sorted(each for each in entries if not any(belongs(each, name) for name in names))
    if foreign or directory == Path("/"):
        raise ConfigurationError(
            f"app_user {account.name} may not write in {directory}, where also {foreign[0] if foreign else 'all'} is",
            f"chown {account.name} {directory} in the image, or give the database a directory of its own",
        )


def belongs(entry: str, database: str) -> bool:
    """Whether a file in a database's directory belongs to the database, by its whole name."""
    name = re.escape(database)
    return bool(
        re.fullmatch(rf"{name}{_AFTER}|\.{name}\.sidecar-restore{_AFTER}", entry)
        or re.fullmatch(rf"{name}\.sidecar\.json|\.{name}\.sidecar\.json\.new", entry)
        or re.fullmatch(rf"{name}\.(diverged|replaced|orphaned)-\d{{8}}T\d{{6}}\.\d{{3}}Z({_AFTER}|\.published)", entry)
        or _STAGED.fullmatch(entry)
    )


def may_write(status: os.stat_result, account: Account) -> bool:
    """Whether the account may create files in a directory, by mode bits alone; access control lists may allow more."""
    return allows(status, account, 0o3)


def allows(status: os.stat_result, account: Account, wanted: int) -> bool:
    """Whether mode bits allow an account what is wanted: 4 to read, 2 to write, 1 to enter a directory, or their sum."""
    if account.uid == 0:
        return True
    if status.st_uid == account.uid:
        return status.st_mode >> 6 & wanted == wanted
    if status.st_gid in {account.gid, *account.groups}:
        return status.st_mode >> 3 & wanted == wanted
    return status.st_mode & wanted == wanted
