"""The last images of pages in streams, with which the next ones are compared. In bounded memory for the whole daemon.

Only images are kept that every restore finds: later in their stream than each restore point that names it. So nothing is
compared from when a copy begins until its place in the stream is known, and then only with what comes after that place.
"""

import threading
from collections.abc import Mapping, Sequence
from typing import Self

from sidecar.model import Bytes, Commit, Followed

LIMIT, MEMORY_SHARE = 8 << 20, 32
OVERHEAD = 250  # bytes that Python needs for each image besides its content


class ImageCache:
    """The images that were stored last, of all streams. Thread-safe."""

    def __init__(self, limit: int = LIMIT) -> None:
        """At most `limit` bytes are kept; beyond that, what was stored longest ago goes."""
        self._limit = limit
        self._images: dict[tuple[object, int], Bytes] = {}
        self._size = 0
        self._lock = threading.Lock()

    @classmethod
    def within(cls, memory: int) -> Self:
        """One that takes at most a part of so many bytes of available memory."""
        return cls(min(LIMIT, memory // MEMORY_SHARE))

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return self._size

    def find(self, stream: object, page: int) -> Bytes | None:
        """The image of a page, if it is kept."""
        with self._lock:
            return self._images.get((stream, page))

    def keep(self, stream: object, images: Mapping[int, Bytes]) -> None:
        """Replace the images of these pages."""
        with self._lock:
            for page, image in images.items():
                self._drop((stream, page))
                self._images[stream, page] = image
                self._size += len(image) + OVERHEAD
            while self._size > self._limit:
                self._drop(next(iter(self._images)))

    def forget(self, stream: object) -> None:
        """Drop all images of a stream."""
        with self._lock:
            for key in [each for each in self._images if each[0] is stream]:
                self._drop(key)

    def _drop(self, key: tuple[object, int]) -> None:
        if (image := self._images.pop(key, None)) is not None:
            self._size -= len(image) + OVERHEAD


class PreviousImages:
    """The previous images of the pages of one stream, as far as its next segment may refer to them.

    `begin_copy` and `end_copy` may be called while a segment is encoded in another thread.
    """

    def __init__(self, cache: ImageCache) -> None:
        self._cache = cache
        self._stream = object()
        self._copying = False
        self._copies = 0  # that have begun
        self._after = 0  # the last commit that a restore point has, or may have
        self._lock = threading.Lock()

    def begin_copy(self) -> None:
        """Note that a restore point will begin at a commit that is not in a segment yet, or at one of the last ones."""
        with self._lock:
            self._copying = True
            self._copies += 1
            self._cache.forget(self._stream)

    def end_copy(self, commit: int | None) -> None:
        """Note at which commit a restore point begins; None if it begins at none."""
        with self._lock:
            self._copying = False
            self._after = max(self._after, commit or 0)

    def start(self, first: int, commits: Sequence[Commit]) -> int:
        """How many of the next commits, beginning with number `first`, are to be stored whole."""
        with self._lock:
            if self._copying:
                return len(commits)
            for place, commit in enumerate(commits):
                if (first if commit.folded else commit.number) > self._after:
                    return place
                first = commit.number + 1
            return len(commits)

    def find(self, page: int) -> Bytes | None:
        """The previous image of a page, if it is known."""
        return self._cache.find(self._stream, page)

    @property
    def copies(self) -> int:
        """How many copies have begun; for `keep`."""
        return self._copies

    def keep(self, commits: Sequence[Commit], copies: int) -> None:
        """Keep the images of commits that were stored, unless a copy has begun since there were so many `copies`."""
        with self._lock:
            if copies == self._copies:
                for commit in commits:
                    self._cache.keep(self._stream, commit.images)

    def close(self) -> None:
        """Free the memory."""
        with self._lock:
            self._copying = True
            self._copies += 1
            self._cache.forget(self._stream)


class Copies:
    """The copies of one database for restore points, each of which may begin before a stream does, or end after it."""

    def __init__(self) -> None:
        self._copying = False
        self._images: PreviousImages | None = None
        self._run = 0

    def follow(self, run: int, images: PreviousImages) -> None:
        """Note the images of a stream that begins, and the run of its feed."""
        self._run, self._images = run, images
        if self._copying:
            images.begin_copy()

    def leave(self) -> None:
        """Note that the stream has ended."""
        if self._images:
            self._images.close()
            self._images = None

    def begin(self) -> None:
        """Note that a copy begins. Until its place is known, segments have whole pages, and nothing refers to them."""
        self._copying = True
        if self._images:
            self._images.begin_copy()

    def place(self, place: Followed | None) -> None:
        """Note at which commit the copy begins; None if it has no place in a stream, or failed."""
        self._copying = False
        if self._images:
            self._images.end_copy(place.commit if place and place.run == self._run else None)
