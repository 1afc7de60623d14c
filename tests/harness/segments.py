"""Segments for tests: as their commits with whole images, and as a segment with differences."""

from collections.abc import Mapping, Sequence

from sidecar.model import Bytes, Commit
from sidecar.repository.format.increment import Segment, SegmentHeader, decode, encode_records
from sidecar.repository.format.records import compared


def commits_of(segment: Segment, before: Mapping[int, Bytes] | None = None) -> tuple[Commit, ...]:
    """The commits of a segment; `before` has the images that earlier segments left."""
    images, commits = dict(before or {}), list[Commit]()
    for record in segment.records:
        commits.append(record.commit(images.get))
        images.update(commits[-1].images)
    return tuple(commits)


def commits_in(data: bytes, before: Mapping[int, Bytes] | None = None) -> tuple[Commit, ...]:
    """The commits of an encoded segment."""
    return commits_of(decode(data, "s"), before)


def encoded_differences(header: SegmentHeader, commits: Sequence[Commit], before: Mapping[int, Bytes]) -> bytes:
    """A segment with differences for all pages that have a previous image, whether or not that is smaller."""
    images, records = dict(before), []
    for commit in commits:
        records.append(compared(commit, images.get))
        images.update(commit.images)
    return encode_records(header, records).data
