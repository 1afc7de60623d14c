"""Streams are verified with what changed in their pages, as far as their segments are still there."""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest

from sidecar.model import Bytes, Commit, IfAbsent, Timestamp
from sidecar.repository.format.increment import ClockAnchor, SegmentHeader, decode, first_prev
from sidecar.repository.increments import Increments
from sidecar.repository.keys import segment_key_of
from sidecar.restore.stream_verification import VerifiedStream, verify_streams
from tests.fakes import MemoryStore
from tests.harness.segments import encoded_differences
from tests.harness.streams import stream_name

pytestmark = pytest.mark.anyio

SIZE, STREAM = 512, str(stream_name(Timestamp("20261120T145503.123Z")))


async def publish(store: MemoryStore, commits: Sequence[Commit], wrong: int = 0) -> list[str]:
    """A segment for each commit, with what changed since the last image; for `wrong`, since another one. Returns the keys."""
    keys, before, prev = list[str](), dict[int, Bytes](), first_prev(STREAM)
    for commit in commits:
        number = commit.number
        header = SegmentHeader("app.db", STREAM, number, number, SIZE, prev, "web", 1, "3.53.4", ClockAnchor(1, 1))
        other = {page: bytes(SIZE) for page in before} if number == wrong else before
        data = encoded_differences(header, [commit], other)
        prev, before = decode(data, "s").digest, before | dict(commit.images)
        keys.append(segment_key_of("app.db", STREAM, number, number, 1_795_000_000_000 + number))
        await store.put(keys[-1], data, condition=IfAbsent())
    return keys


def commits() -> list[Commit]:
    """Page 1 changes each time, one of the others by turns, so that what is known of them is older."""
    chance, pages, made = Random(1), dict[int, bytes](), list[Commit]()
    for number in range(1, 21):
        images = {page: chance.randbytes(SIZE) for page in (1, 2 + number % 3)}
        pages.update(images)
        made.append(Commit(number, number, 4, images))
    return made


async def verified(store: MemoryStore, directory: Path) -> VerifiedStream:
    (stream,) = await verify_streams(Increments(store), "app.db", directory)
    assert not list(directory.iterdir())
    return stream


async def test_a_whole_stream_is_good(tmp_path: Path) -> None:
    store = MemoryStore()
    await publish(store, commits())
    assert await verified(store, tmp_path) == VerifiedStream("app.db", STREAM, 20, ())


async def test_what_changed_since_another_page_is_told_once(tmp_path: Path) -> None:
    """Its digest and its place are right: only the pages show it."""
    store = MemoryStore()
    keys = await publish(store, commits(), wrong=12)
    (problem,) = (await verified(store, tmp_path)).problems
    assert problem == f"commit 12 of segment {keys[11]} does not fit what precedes it"


async def test_a_first_segment_must_not_refer_to_anything(tmp_path: Path) -> None:
    store = MemoryStore()
    before = dict(commits()[0].images)
    header = SegmentHeader("app.db", STREAM, 1, 1, SIZE, first_prev(STREAM), "web", 1, "3.53.4", ClockAnchor(1, 1))
    key = segment_key_of("app.db", STREAM, 1, 1, 1_795_000_000_000)
    await store.put(key, encoded_differences(header, [Commit(1, 1, 4, before)], before), condition=IfAbsent())
    (problem,) = (await verified(store, tmp_path)).problems
    assert "which nothing before it has" in problem


@pytest.mark.parametrize("expired", [1, 5, 19])
async def test_a_stream_whose_first_segments_have_expired_is_good(tmp_path: Path, expired: int) -> None:
    """What refers to them cannot be checked, and no restore begins there."""
    store = MemoryStore()
    for key in (await publish(store, commits()))[:expired]:
        del store.objects[key]
    assert await verified(store, tmp_path) == VerifiedStream("app.db", STREAM, 20 - expired, ())


async def test_a_gap_is_all_that_is_told_of_a_gap(tmp_path: Path) -> None:
    store = MemoryStore()
    del store.objects[(await publish(store, commits()))[7]]
    assert (await verified(store, tmp_path)).problems == (f"commits 8 to 8 of stream {STREAM} are missing",)
