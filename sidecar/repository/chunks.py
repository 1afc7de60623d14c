"""Single chunks of a restore point, in few requests: neighbours are read in one range, several ranges at once."""

from collections.abc import Callable, Iterable
from functools import partial

from anyio import to_thread

from sidecar.concurrency import gathered, hedged
from sidecar.errors import DamagedRestorePoint, NotFound, PreconditionFailed
from sidecar.model import Blob, ObjectInfo, RestorePoint, Span
from sidecar.repository.format.chunks import Decoder
from sidecar.repository.format.tail import Contents
from sidecar.storage import ObjectStore

AT_ONCE = 8  # ranges
LARGEST_RANGE = 4 << 20  # bytes
GAP = 64 << 10  # bytes: what lies between two chunks is read as well, rather than asking twice
HEDGE_AFTER = 5.0

Keep = Callable[[int, bytes], None]


class Chunks:
    """The chunks of one restore point, whose index was read. `requests` and `received` (bytes) count what they cost."""

    def __init__(self, store: ObjectStore, point: RestorePoint, contents: Contents, tail: Blob) -> None:
        """`tail` are the last bytes of the object: all of it, if it is small."""
        self.point = point
        self.contents = contents
        self.requests, self.received = 1, len(tail.data)
        self._store = store
        self._tail = tail

    @property
    def info(self) -> ObjectInfo:
        """The object."""
        return self._tail.info

    async def fetch(self, chunks: Iterable[int], keep: Keep) -> None:
        """Call `keep` with the number and the bytes of each of these chunks, in threads, and perhaps of some beside them.

        Raises `DamagedRestorePoint`, and what the store raises.
        """
        runs = joined(sorted(set(chunks)), self.contents.offsets)
        await gathered(runs, partial(self._fetch, keep=keep), at_once=min(AT_ONCE, len(runs)))

    async def _fetch(self, run: range, keep: Keep) -> None:
        offsets = self.contents.offsets
        start, end = offsets[run.start], offsets[run.stop]
        in_tail = start - (self.contents.size - len(self._tail.data))
        if in_tail >= 0:
            data = bytes(self._tail.data[in_tail : in_tail + end - start])
        else:
            data = bytes((await hedged(partial(self._get, Span(start, end)), HEDGE_AFTER)).data)
        await to_thread.run_sync(self._decode, run, data, keep)

    async def _get(self, span: Span) -> Blob:
        self.requests += 1
        try:
            blob = await self._store.get(self.point.key, span=span, if_match=self._tail.info.etag)
        except (NotFound, PreconditionFailed) as error:
            raise DamagedRestorePoint(
                f"restore point {self.point.key} disappeared or changed while it was read"
            ) from error
        self.received += len(blob.data)
        return blob

    def _decode(self, run: range, data: bytes, keep: Keep) -> None:
        decoder, offsets, view = Decoder(self.contents.index), self.contents.offsets, memoryview(data)
        for number in run:
            start = offsets[number] - offsets[run.start]
            keep(number, decoder.chunk(number, view[start : start + offsets[number + 1] - offsets[number]]))


def joined(chunks: Iterable[int], offsets: tuple[int, ...]) -> list[range]:
    """Sorted chunks as runs, each to be read in one range; frame n spans `offsets[n]` to `offsets[n + 1]`."""
    runs: list[range] = []
    for chunk in chunks:
        last = runs[-1] if runs else None
        near = last is not None and offsets[chunk] - offsets[last.stop] <= GAP
        if last is not None and near and offsets[chunk + 1] - offsets[last.start] <= LARGEST_RANGE:
            runs[-1] = range(last.start, chunk + 1)
        else:
            runs.append(range(chunk, chunk + 1))
    return runs
