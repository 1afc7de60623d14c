"""Where file systems are mounted."""

import re
from pathlib import Path

_ESCAPED = re.compile(r"\\([0-7]{3})")


def mount_of(path: Path) -> str | None:
    """The mount point that a path lies below, or would if it existed; None where the system does not tell (proc(5), mountinfo)."""
    try:
        lines = Path("/proc/self/mountinfo").read_text(errors="surrogateescape").splitlines()
    except OSError:
        return None
    points = {_ESCAPED.sub(lambda found: chr(int(found[1], 8)), line.split()[4]) for line in lines}
    return max((point for point in points if path.is_relative_to(point)), key=len, default=None)
