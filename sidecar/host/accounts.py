"""Resolves the user that the app runs as: `user`, `user:group`, `uid` or `uid:gid`."""

import grp
import os
import pwd

from sidecar.errors import ConfigurationError
from sidecar.model import Account


def account(setting: str) -> Account:
    """The account that `app_user` names.

    A bare number needs no entry in /etc/passwd, and is then its own group. A named group is the only one, as in a
    Dockerfile's USER; otherwise the account keeps its own groups. Raises `ConfigurationError`.
    """
    user, separator, group = setting.partition(":")
    entry = _entry(user)
    if entry is None and not _is_number(user):
        raise ConfigurationError(f"app_user: there is no user {user!r} here", "create it in the image, or give its uid")
    name, uid = (entry.pw_name, entry.pw_uid) if entry else (user, int(user))
    home = entry.pw_dir if entry else None
    if separator:
        gid = _group(group)
        return Account(name, uid, gid, (gid,), home)
    if entry is None:
        return Account(name, uid, uid, (uid,), home)
    return Account(name, uid, entry.pw_gid, tuple(os.getgrouplist(entry.pw_name, entry.pw_gid)), home)


def account_of(uid: int, gid: int) -> Account:
    """The account with these ids, with the groups that it has here if there is an entry for it."""
    entry = _entry(str(uid))
    if entry is None:
        return Account(str(uid), uid, gid, (gid,))
    return Account(entry.pw_name, uid, gid, (gid, *os.getgrouplist(entry.pw_name, entry.pw_gid)), entry.pw_dir)


def to_become(setting: str | None) -> Account | None:
    """The account that the app is to run as; None when it is ours already. Raises `ConfigurationError`."""
    if setting is None:
        return None
    wanted = account(setting)
    if os.geteuid() == 0:
        return wanted
    if wanted.uid == os.geteuid():
        return None
    raise ConfigurationError(
        f"app_user: only root may run the app as {setting!r}, and sidecar runs as uid {os.geteuid()}",
        "start sidecar as root (no USER in the image), or leave app_user out",
    )


def _entry(user: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwuid(int(user)) if _is_number(user) else pwd.getpwnam(user)
    except (KeyError, ValueError):  # unknown; or with a NUL in it
        return None


def _group(group: str) -> int:
    if _is_number(group):
        return int(group)
    try:
        return grp.getgrnam(group).gr_gid
    except (KeyError, ValueError):
        raise ConfigurationError(
            f"app_user: there is no group {group!r} here", "create it in the image, or give its gid"
        ) from None


def _is_number(text: str) -> bool:
    """Whether a text is an id that the kernel accepts: 2**32 - 1 means "leave unchanged" (chown(2), setresuid(2))."""
    return text.isascii() and text.isdigit() and int(text) < 2**32 - 1
