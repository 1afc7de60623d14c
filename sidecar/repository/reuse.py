"""Which bytes of the next restore point are uploaded, and which the store copies from the previous one. Pure.

The rules are those of multipart uploads (https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html): at most
10,000 parts, each of 5 MiB to 5 GiB except that the last may be smaller; and ranges can be copied only from objects larger
than 5 MiB (https://docs.aws.amazon.com/AmazonS3/latest/API/API_UploadPartCopy.html).

The compressed size of a changed chunk is not known in advance. To be certain that an upload between two copies reaches
5 MiB, it takes unchanged chunks from its neighbours, whose compressed sizes are in the previous one's seek table.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.model import ObjectInfo, Span
from sidecar.repository.format.index import Index
from sidecar.repository.format.tail import Contents

SAFETY = 1.02  # another zstd version may compress the same chunk slightly differently


@dataclass(frozen=True, slots=True)
class Parent:
    """A restore point whose chunks may be reused: the object, its index and the place of each frame."""

    info: ObjectInfo
    contents: Contents


@dataclass(frozen=True, slots=True)
class PartLimits:
    """The smallest part that the store allows, and the largest copy that we make, in bytes.

    `any_upload`: what is uploaded between two copies can have any size, because whoever cuts it into parts fills them up.
    """

    minimum_part: int
    copy_limit: int = 256 << 20
    any_upload: bool = False


NO_COPIES = PartLimits(sys.maxsize)
"""Of a store that copies no parts: no restore point is large enough."""


@dataclass(frozen=True, slots=True)
class NewChunks:
    """Chunks to be compressed and uploaded."""

    chunks: range


@dataclass(frozen=True, slots=True)
class CopiedChunks:
    """Chunks whose frames the store copies: the bytes `span` of the previous restore point, in one part."""

    chunks: range
    first_in_parent: int
    span: Span


ChunkRun = NewChunks | CopiedChunks


def plan_reuse(index: Index, parent: Contents | None, limits: PartLimits) -> list[ChunkRun]:
    """Consecutive runs that cover all chunks of `index`. The last run has new chunks or is empty: the tail follows it.

    Every run of new chunks except the last is followed by a copy and compresses, as far as is known, to at least
    `minimum_part` bytes; every copy has `minimum_part` to `copy_limit` bytes.
    """
    if parent is None or parent.size <= limits.minimum_part:
        return [NewChunks(range(index.chunks))]
    return list(_limited(_enlarged(_runs(index, parent), parent, limits), parent, limits, index.chunks))


@dataclass(slots=True)
class _Run:
    """Chunks `start` to `stop`; `source` is the parent's chunk that equals the first one, None for changed chunks.

    `known` counts those compressed bytes of an upload whose size is known in advance.
    """

    start: int
    stop: int
    source: int | None
    known: int = 0


def _runs(index: Index, parent: Contents) -> list[_Run]:
    """Maximal runs of changed chunks, and of unchanged ones that are consecutive in the parent."""
    known = {parent.index.digest(number): number for number in reversed(range(parent.index.chunks))}
    runs: list[_Run] = []
    for number in range(index.chunks):
        source = _source(index, parent, number, known, runs)
        last = runs[-1] if runs else None
        if last and _continues(last, source):
            last.stop = number + 1
        else:
            runs.append(_Run(number, number + 1, source))
    return runs


def _source(index: Index, parent: Contents, number: int, known: dict[bytes, int], runs: list[_Run]) -> int | None:
    """The number of an equal chunk in the parent: the same number if possible, else the next consecutive one, else any."""
    digest = index.digest(number)
    if number < parent.index.chunks and parent.index.digest(number) == digest:
        return number
    if runs and (before := runs[-1].source) is not None:
        following = before + runs[-1].stop - runs[-1].start
        if following < parent.index.chunks and parent.index.digest(following) == digest:
            return following
    return known.get(digest)


def _continues(run: _Run, source: int | None) -> bool:
    if run.source is None or source is None:
        return run.source is source
    return source == run.source + run.stop - run.start


def _enlarged(runs: list[_Run], parent: Contents, limits: PartLimits) -> list[_Run]:
    """Make every upload and every copy large enough for a part: uploads take chunks from the copies that follow them."""
    enlarged: list[_Run] = []
    for run in runs:
        last = enlarged[-1] if enlarged else None
        if last and last.source is None:
            _feed(last, run, parent, 0 if limits.any_upload else int(limits.minimum_part * SAFETY))
        if run.start == run.stop:
            continue
        if _copied_bytes(run, parent) < limits.minimum_part:
            run.known, run.source = (0 if run.source is None else _copied_bytes(run, parent)), None
        if last and last.source is None and run.source is None:
            last.stop, last.known = run.stop, last.known + run.known
        else:
            enlarged.append(run)
    return enlarged


def _feed(upload: _Run, run: _Run, parent: Contents, wanted: int) -> None:
    """Move chunks from the front of a copy to the upload before it, until that is large enough or the copy is empty."""
    while run.source is not None and run.start < run.stop and upload.known < wanted:
        upload.known += parent.offsets[run.source + 1] - parent.offsets[run.source]
        upload.stop += 1
        run.start += 1
        run.source += 1


def _copied_bytes(run: _Run, parent: Contents) -> int:
    if run.source is None:
        return 0
    return parent.offsets[run.source + run.stop - run.start] - parent.offsets[run.source]


def _limited(runs: list[_Run], parent: Contents, limits: PartLimits, chunks: int) -> Iterator[ChunkRun]:
    """The runs, with long copies split into several parts and a run of new chunks at the end."""
    for run in runs:
        if run.source is None:
            yield NewChunks(range(run.start, run.stop))
        else:
            yield from _copies(run, run.source, parent, limits)
    if not runs or runs[-1].source is not None:
        yield NewChunks(range(chunks, chunks))


def _copies(run: _Run, source: int, parent: Contents, limits: PartLimits) -> Iterator[CopiedChunks]:
    """The copy in parts of at most `copy_limit` and at least `minimum_part` bytes."""
    start, end = source, source + run.stop - run.start
    while start < end:
        stop = start + 1
        while stop < end and parent.offsets[stop + 1] - parent.offsets[start] <= limits.copy_limit:
            stop += 1
        if stop < end and parent.offsets[end] - parent.offsets[stop] < limits.minimum_part:
            stop = _halved(start, end, parent)
        first = run.start + start - source
        yield CopiedChunks(range(first, first + stop - start), start, Span(parent.offsets[start], parent.offsets[stop]))
        start = stop


def _halved(start: int, end: int, parent: Contents) -> int:
    """The chunk boundary nearest to the middle of the bytes."""
    middle = (parent.offsets[start] + parent.offsets[end]) // 2
    return min(range(start + 1, end), key=lambda stop: abs(parent.offsets[stop] - middle))
