"""The mount table of this process: proc(5), mountinfo."""

import re
from pathlib import Path
from typing import NamedTuple

_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mount point, and the type of the file system there."""

    point: str
    kind: str


def mounts() -> list[Mount]:
    """All mounts, in the order in which they cover each other; none if the system does not list them."""
    try:
        text = Path("/proc/self/mountinfo").read_bytes().decode(errors="surrogateescape")
    except OSError:
        return []
    found = []
    for line in filter(
        None, text.split("\n")
    ):  # by no other character: the kernel escapes none but space, tab and newline
        fields, _, rest = line.partition(" - ")
        point = _ESCAPED.sub(lambda escape: chr(int(escape[1], 8)), fields.split(" ")[4])
        found.append(Mount(point, rest.split(" ")[0]))
    return found


def mount_of(path: Path) -> Mount | None:
    """The mount below which a path without links is, or would be if it existed; None if that is unknown.

    Only names are compared, so a file system that hangs cannot block this.
    """
    resolved = str(path)
    best: Mount | None = None
    for mount in mounts():
        inside = resolved == mount.point or resolved.startswith(mount.point.rstrip("/") + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best
