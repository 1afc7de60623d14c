"""Which parts of a database commits have written: what differs elsewhere was written past the log."""

from array import array
from collections.abc import Iterable

PART = 1 << 20  # bytes: what a restore point has a digest of


class Changed:
    """The number of the last commit that wrote each part of the file: eight bytes for each MiB, whatever is written.

    A commit also writes what it cuts off: that may belong to the database again later without being written.
    """

    def __init__(self, part: int = PART) -> None:
        """`part` is the size of a part in bytes."""
        self._part = part
        self._last = array("Q")
        self._size = 0
        self._anything = 0
        # The first commit, and the part where the database ended after it: it may have cut off what was beyond.
        self._first = self._end = 0

    def add(self, number: int, count: int, pages: Iterable[int], page_size: int) -> None:
        """Commit `number` wrote these pages, and left a database of `count` pages."""
        parts, size = {(page - 1) * page_size // self._part for page in pages}, count * page_size
        if not self._size:
            self._first, self._end = number, size // self._part
        if size < self._size:
            parts.update(range(size // self._part, -(-self._size // self._part)))
        self._size = size
        missing = max(parts, default=-1) + 1 - len(self._last)
        if missing > 0:
            self._last.extend(bytes(missing))
        for part in parts:
            self._last[part] = number

    def anything(self, number: int) -> None:
        """Commits up to `number` may have written anything: the sizes in between are not known."""
        self._anything = number

    def wrote(self, part: int, after: int) -> bool:
        """Whether a commit after `after` wrote this part. From any thread."""
        if self._anything > after or (part >= self._end and self._first > after):
            return True
        return part < len(self._last) and self._last[part] > after
