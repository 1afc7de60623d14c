"""In-memory stand-ins for the ports: a virtual clock, and a store whose failures are scripted."""

from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import TypeVar

import anyio.lowlevel

from sidecar.errors import (
    ConfigurationError,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    SidecarError,
    StoreUnavailable,
)
from sidecar.model import Blob, Bytes, Condition, IfAbsent, IfMatch, ObjectInfo, Page, Span
from sidecar.storage.base import Upload
from sidecar.storage.traits import PartCopy, Traits

T = TypeVar("T")

MEMORY = Traits("memory", minimum_part=1)
START = datetime(2026, 11, 20, 14, 55, 3, 123456, UTC)


class FakeClock:
    """Implements `ports.Clock` in virtual time: a sleep ends at once, having moved time on by its length.

    `sleeps` records them. `randomness` is what `random` answers, for ever.
    """

    def __init__(self, start: datetime = START, *, randomness: float = 0.5) -> None:
        self.wall = start
        self.elapsed = 0.0
        self.randomness = randomness
        self.sleeps: list[float] = []

    def now(self) -> datetime:
        """See `ports.Clock`."""
        return self.wall

    def monotonic(self) -> float:
        """See `ports.Clock`."""
        return self.elapsed

    async def sleep(self, seconds: float) -> None:
        """See `ports.Clock`."""
        assert seconds >= 0
        self.sleeps.append(seconds)
        self.advance(seconds)
        await anyio.lowlevel.checkpoint()

    def random(self) -> float:
        """See `ports.Clock`."""
        return self.randomness

    def advance(self, seconds: float) -> None:
        """Move both kinds of time on."""
        self.elapsed += seconds
        self.wall += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Stored:
    """An object of a `MemoryStore`."""

    data: bytes
    info: ObjectInfo


@dataclass(slots=True)
class _Failure:
    error: SidecarError
    after: bool


@dataclass(slots=True)
class MemoryUpload:
    """Implements `base.Upload`, and holds its callers to the rules: numbers without gaps, parts large enough."""

    store: "MemoryStore"
    key: str
    metadata: dict[str, str]
    parts: dict[int, tuple[int, bytes]] = field(default_factory=dict)
    state: str = "open"

    async def put_part(self, number: int, offset: int, data: Bytes) -> None:
        """See `base.Upload`."""
        await self.store.request("put_part", self.key, lambda: self._keep(number, offset, bytes(data)))

    async def copy_part(self, number: int, offset: int, source: ObjectInfo, span: Span) -> None:
        """See `base.Upload`."""

        assert self.store.traits.part_copy is not PartCopy.NO, "a copy of a part"

        def copy() -> None:
            found = self.store.stored(source.key, if_match=source.etag)
            self._keep(number, offset, cut(found.data, span))

        await self.store.request("copy_part", self.key, copy)

    async def complete(self) -> ObjectInfo:
        """See `base.Upload`."""
        return await self.store.request("complete_upload", self.key, self._complete)

    def _keep(self, number: int, offset: int, data: bytes) -> None:
        self._require_open()
        assert data, "a part of zero bytes"
        self.parts[number] = (offset, data)

    def _complete(self) -> ObjectInfo:
        self._require_open()
        numbers = sorted(self.parts)
        assert numbers == list(range(1, len(numbers) + 1)), f"gaps between part numbers: {numbers}"
        assert 0 < len(numbers) <= self.store.traits.maximum_parts, f"{len(numbers)} parts"
        whole = b""
        for number in numbers:
            offset, data = self.parts[number]
            assert offset == len(whole), f"part {number} claims offset {offset}, it is at {len(whole)}"
            assert number == numbers[-1] or len(data) >= self.store.traits.minimum_part, f"part {number} is too small"
            if self.store.traits.equal_parts:
                first = len(self.parts[1][1])
                assert len(data) == first or (number == numbers[-1] and len(data) < first), f"part {number} is unequal"
            whole += data
        info = self.store.write(self.key, whole, IfAbsent(), self.metadata)
        self.store.part_sizes[self.key] = [len(self.parts[number][1]) for number in numbers]
        self.state = "completed"
        return info

    def _require_open(self) -> None:
        if self.state != "open":
            raise NotFound(f"the upload of {self.key} is gone")


class MemoryStore:
    """Implements `base.ObjectStore` with everything a test wants to know and to break.

    `time` is the store's own clock. `requests` lists (operation, key or prefix) of every request; operations are named
    as in `sidecar.store`. `hook`, when set, is called with both before each request does anything.
    """

    def __init__(self, *, traits: Traits = MEMORY, time: datetime = START) -> None:
        self.url = "memory://test"
        self.traits = traits
        self.time = time
        self.objects: dict[str, Stored] = {}
        self.requests: list[tuple[str, str]] = []
        self.uploads: list[MemoryUpload] = []
        self.part_sizes: dict[str, list[int]] = {}
        self.marks: dict[str, dict[str, str]] = {}
        self.hook: Callable[[str, str], object] | None = None
        self._failures: dict[str, deque[_Failure]] = defaultdict(deque)
        self._versions = 0
        self._cut_off = False

    def fail(self, operation: str, error: SidecarError | None = None, *, times: int = 1) -> None:
        """The next requests of this kind raise `error`, having done nothing."""
        self._failures[operation] += [
            _Failure(error or StoreUnavailable("scripted: the store is down"), after=False)
        ] * times

    def lose_reply(self, operation: str, error: SidecarError | None = None, *, times: int = 1) -> None:
        """The next requests of this kind are carried out, and raise `error` all the same."""
        self._failures[operation] += [_Failure(error or OutcomeUnknown("scripted: no reply"), after=True)] * times

    def cut_off(self) -> None:
        """The next PUT leaves an empty object with its metadata, and fails: SeaweedFS 4.48, sender gone."""
        self._cut_off = True
        self.lose_reply("put")

    @contextmanager
    def sound(self) -> Iterator[None]:
        """Nothing fails meanwhile: what is scripted befalls later requests."""
        scripted, self._failures = self._failures, defaultdict(deque)
        try:
            yield
        finally:
            self._failures = scripted

    @property
    def open_uploads(self) -> list[str]:
        """Keys of the uploads that were neither completed nor aborted."""
        return [upload.key for upload in self.uploads if upload.state == "open"]

    def count(self, *operations: str) -> int:
        """How many requests there were, of these kinds or of all."""
        return sum(not operations or operation in operations for operation, _ in self.requests)

    def add(self, key: str, data: bytes = b"x", metadata: Mapping[str, str] | None = None) -> ObjectInfo:
        """Put an object there without a request."""
        return self.write(key, data, None, dict(metadata or {}))

    async def now(self) -> datetime:
        """See `base.ObjectStore`."""
        return await self.request("now", "", lambda: self.time)

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """See `base.ObjectStore`."""

        def read() -> Blob:
            found = self.stored(key, if_match=if_match)
            data = cut(found.data, span)
            if into is None or len(data) > len(into):
                return Blob(data, found.info)
            into[: len(data)] = data
            return Blob(into[: len(data)], found.info)

        return await self.request("get", key, read)

    async def head(self, key: str) -> ObjectInfo:
        """See `base.ObjectStore`."""
        return await self.request("head", key, lambda: self.stored(key).info)

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """See `base.ObjectStore`."""

        def page() -> Page:
            after = start_after.encode()
            inside = [key for key in self.objects if key.startswith(prefix) and key.encode() > after]
            found = sorted(inside, key=str.encode)
            listed = (replace(self.objects[key].info, metadata={}) for key in found[:limit])
            return Page(tuple(listed), len(found) > limit)

        return await self.request("list", prefix, page)

    async def put(
        self,
        key: str,
        data: Bytes,
        *,
        condition: Condition = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """See `base.ObjectStore`."""

        def write() -> ObjectInfo:
            kept, self._cut_off = b"" if self._cut_off else data, False
            info = self.write(key, kept, condition, dict(metadata or {}))
            if tags:
                self.marks[key] = dict(tags)
            return info

        return await self.request("put", key, write)

    @asynccontextmanager
    async def upload(self, key: str, *, metadata: Mapping[str, str]) -> AsyncIterator[Upload]:
        """See `base.ObjectStore`."""
        upload = await self.request("create_upload", key, lambda: self._begin(key, dict(metadata)))
        try:
            yield upload
        finally:
            if upload.state == "open":
                upload.state = "aborted"

    async def copy(self, source: ObjectInfo, key: str, *, metadata: Mapping[str, str]) -> ObjectInfo:
        """See `base.ObjectStore`; recorded under the key that is written."""

        def duplicate() -> ObjectInfo:
            found = self.stored(source.key, if_match=source.etag)
            return self.write(key, found.data, None, dict(metadata))

        return await self.request("copy", key, duplicate)

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """See `base.ObjectStore`."""

        def replace_tags() -> None:
            self.stored(key)
            self.marks[key] = dict(tags)

        await self.request("tag", key, replace_tags)

    async def tags(self, key: str) -> dict[str, str]:
        """See `base.ObjectStore`."""

        def read() -> dict[str, str]:
            self.stored(key)
            if not self.traits.tags:
                raise ConfigurationError("scripted: no tags")
            return dict(self.marks.get(key, {}))

        return await self.request("tags", key, read)

    async def request(self, operation: str, key: str, work: Callable[[], T]) -> T:
        """One request: recorded, interruptible, failing as scripted."""
        self.requests.append((operation, key))
        if self.hook:
            self.hook(operation, key)
        await anyio.lowlevel.checkpoint()
        failure = self._failures[operation].popleft() if self._failures[operation] else None
        if failure and not failure.after:
            raise failure.error
        result = work()
        await anyio.lowlevel.checkpoint()  # a request that is cancelled here was carried out all the same
        if failure:
            raise failure.error
        return result

    def stored(self, key: str, *, if_match: str | None = None) -> Stored:
        """The object under a key. Raises what `get` does."""
        if key not in self.objects:
            raise NotFound(f"{key} does not exist")
        found = self.objects[key]
        if if_match not in {None, found.info.etag}:
            raise PreconditionFailed(f"{key} has changed")
        return found

    def write(self, key: str, data: Bytes, condition: Condition, metadata: dict[str, str]) -> ObjectInfo:
        """Write an object if the condition holds."""
        assert all(name.isascii() and name == name.lower() and value.isascii() for name, value in metadata.items())
        there = self.objects.get(key)
        if isinstance(condition, IfAbsent) and there:
            raise PreconditionFailed(f"{key} exists")
        if isinstance(condition, IfMatch) and (there is None or there.info.etag != condition.etag):
            raise PreconditionFailed(f"{key} is another version")
        self._versions += 1
        info = ObjectInfo(key, len(data), f'"{self._versions}"', self.time, metadata)
        self.objects[key] = Stored(bytes(data), info)
        self.marks.pop(key, None)
        return info

    def _begin(self, key: str, metadata: dict[str, str]) -> MemoryUpload:
        self.uploads.append(MemoryUpload(self, key, metadata))
        return self.uploads[-1]


def cut(data: bytes, span: Span | None) -> bytes:
    """The bytes of a span; what reaches beyond the end is cut."""
    if span is None:
        return data
    return data[max(0, len(data) + span.start) :] if span.start < 0 else data[span.start : span.end]
