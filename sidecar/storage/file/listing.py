"""Lists the keys of a directory in order, lazily."""

import os
from bisect import bisect_left
from collections.abc import Iterator
from heapq import merge
from itertools import takewhile
from pathlib import Path

from sidecar.storage.file.layout import is_hour, is_segment, is_stream
from sidecar.storage.file.root import PRIVATE


def keys(root: Path, prefix: str, after: str = "") -> Iterator[str]:
    """The keys in a directory that start with `prefix` and sort after `after`, in order.

    Folders without such keys are not opened. Raises OSError for a folder that cannot be read, because it must not look empty.
    """
    folder = prefix[: prefix.rfind("/") + 1]
    return (key for key in _walk(root, folder, prefix, after) if key.startswith(prefix) and key > after)


def _walk(root: Path, folder: str, prefix: str, after: str) -> Iterator[str]:
    """The keys in `folder`, which is empty or ends with a slash; may include keys that do not match."""
    names = _names(root / folder)
    if not is_stream(folder):
        yield from _plain(root, folder, names, prefix, after)
        return
    hours = [name[:-1] for name in names if name.endswith("/") and is_hour(name[:-1])]
    others = [name for name in names if name[:-1] not in set(hours)]  # segments that were copied here from S3
    yield from merge(_plain(root, folder, others, prefix, after), _hourly(root, folder, hours, after))


def _plain(root: Path, folder: str, names: list[str], prefix: str, after: str) -> Iterator[str]:
    for name in names:
        key = folder + name
        if not name.endswith("/"):
            yield key
        elif (key.startswith(prefix) or prefix.startswith(key)) and (key > after or after.startswith(key)):
            yield from _walk(root, key, prefix, after)


def _hourly(root: Path, folder: str, hours: list[str], after: str) -> Iterator[str]:
    """The segments in the folders of these hours.

    Numbers ascend with time, with one exception: the parts of a giant transaction have earlier milliseconds in their keys, so
    they may be in the previous hour. So an hour's keys are only yielded once the next hour was read.
    """

    def inside(hour: str) -> list[str]:
        return sorted(key for name in _files(root / folder / hour) if is_segment(key := folder + name))

    def last(index: int) -> str:
        """The last key of the hour, or of the next hour that is not empty."""
        found = (_files(root / folder / hour) for hour in hours[index:])
        return next((folder + max(names) for names in found if names), "\U0010ffff")

    held: list[str] = []
    for hour in hours[bisect_left(range(len(hours)), True, key=lambda index: last(index) > after) :]:
        found = inside(hour)
        until = held[-1] if held else ""
        held = sorted([*held, *found])
        ready = list(takewhile(lambda key: key <= until, held))  # noqa: B023  consumed at once
        yield from ready
        held = held[len(ready) :]
    yield from held


def _files(folder: Path) -> list[str]:
    """The names in an hour's folder, in no particular order; none if it is gone."""
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def _names(folder: Path) -> list[str]:
    """The entries of a folder in the order of keys, directories with a slash; none if the folder is gone."""
    try:
        with os.scandir(folder) as entries:
            return sorted(filter(None, map(_name, entries)))
    except FileNotFoundError:
        return []


def _name(entry: os.DirEntry[str]) -> str:
    """The name, with a slash for a directory; empty for what is skipped: our private folder, and links to directories."""
    if not entry.is_dir():
        return entry.name
    return "" if entry.name == PRIVATE or entry.is_symlink() else f"{entry.name}/"
