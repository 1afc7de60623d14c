"""Where file systems are mounted: proc(5), mountinfo."""

import re
from pathlib import Path
from typing import NamedTuple

_ESCAPED = re.compile(r"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mount point, and the type of the file system there."""

    point: str
    kind: str


def mounts() -> list[Mount]:
    """All of this process, later ones over earlier ones; none where the system does not tell."""
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
    """The mount that a path without links lies below, or would if it existed; None where that is not known.

    Looks at nothing but names: a file system that hangs does not hold it up.
    """
    resolved = str(path)
    best: Mount | None = None
    for mount in mounts():
        inside = resolved == mount.point or resolved.startswith(mount.point.rstrip("/") + "/")
        if inside and (best is None or len(mount.point) >= len(best.point)):
            best = mount
    return best
