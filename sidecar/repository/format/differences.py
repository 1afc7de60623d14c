"""Encodes a segment with what changed in its pages, where that is smaller than the pages themselves. Pure.

It is decided for each transaction, by what it compresses to on its own; and for the segment, because equal pages compress
together. What is returned was decoded again, and is what was to be stored.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import zstandard

from sidecar.errors import DamagedSegment
from sidecar.model import Bytes, Commit
from sidecar.repository.format.increment import EncodedSegment, SegmentHeader, decode, encode, encode_records
from sidecar.repository.format.records import Previous, Record, compared, whole

_TRIAL_LEVEL = 1


@dataclass(frozen=True, slots=True)
class Smaller:
    """A segment, and how many bytes it has with whole images.

    `mistake` says that what changed could not be decoded to the same pages, so that they are stored whole; else it is empty.
    """

    encoded: EncodedSegment
    whole: int
    mistake: str = ""


def encode_smaller(header: SegmentHeader, commits: Sequence[Commit], start: int, previous: Previous) -> Smaller:
    """The bytes of a segment. Raises what `encode` raises.

    The first `start` commits are stored whole, and are no previous images of others. `previous` has those before the segment.
    """
    plain = encode(header, commits)
    size = len(plain.data)
    known = _known(commits[start:], previous)
    records = (*map(whole, commits[:start]), *_records(commits[start:], known))
    if not any(record.differences for record in records):
        return Smaller(plain, size)
    encoded = encode_records(header, records)
    if len(encoded.data) >= size:
        return Smaller(plain, size)
    mistake = _mistake(encoded, commits, start, known)
    return Smaller(plain if mistake else encoded, size, mistake)


def _known(commits: Sequence[Commit], previous: Previous) -> Mapping[int, Bytes]:
    """The previous images of all pages, asked for once: others may drop some meanwhile."""
    found = {page: previous(page) for commit in commits for page in commit.images}
    return {page: image for page, image in found.items() if image is not None}


def _records(commits: Sequence[Commit], known: Mapping[int, Bytes]) -> Iterator[Record]:
    latest = dict(known)
    trial = zstandard.ZstdCompressor(level=_TRIAL_LEVEL)
    for commit in commits:
        record = compared(commit, latest.get)
        yield record if len(commits) == 1 or _is_smaller(record, commit, trial) else whole(commit)
        latest.update(commit.images)


def _is_smaller(record: Record, commit: Commit, trial: zstandard.ZstdCompressor) -> bool:
    if not record.differences:
        return False
    stored = b"".join((*record.differences.values(), *record.images.values()))
    return len(trial.compress(stored)) < len(trial.compress(b"".join(commit.images.values())))


def _mistake(encoded: EncodedSegment, commits: Sequence[Commit], start: int, known: Mapping[int, Bytes]) -> str:
    """What is wrong with an encoded segment, or an empty string."""
    latest = dict(known)
    try:
        records = decode(encoded.data, "to be published").records
        for place, (record, commit) in enumerate(zip(records, commits, strict=True)):
            if record.commit(latest.get) != commit:
                return f"commit {commit.number} was not decoded to what it is"
            latest.update(commit.images if place >= start else {})
    except DamagedSegment as damage:
        return damage.message
    return ""
