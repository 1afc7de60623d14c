"""Publishing over a parent, against a store that enforces the rules of parts: what is published is the next database."""

import tempfile
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sidecar.model import FileStamp, Signature, Snapshot
from sidecar.repository import encoding as publishing
from sidecar.repository.format import index as restore_point_format
from sidecar.repository.format.tail import decode_tail
from sidecar.repository.writer import Published, Publisher, PublisherIdentity
from sidecar.storage.traits import PartCopy
from tests.fakes import MEMORY, MemoryStore
from tests.properties.restore_points import SMALL_CHUNK, decode

MINIMUM = 300
letters = st.lists(st.integers(0, 255), min_size=1, max_size=40)
edits = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=6)


def database_of(chunks: list[int], cut: int) -> bytes:
    """Chunks that compress to very different sizes: even ones to almost nothing, odd ones hardly at all."""
    whole = bytearray()
    for letter in chunks:
        if letter % 2:
            whole += bytes((letter * 31 + place * place * 17 + place // 7) % 256 for place in range(SMALL_CHUNK))
        else:
            whole += bytes([letter]) * SMALL_CHUNK
    return bytes(whole[: max(1, len(whole) - cut)])


@st.composite
def histories(draw: st.DrawFn) -> tuple[bytes, bytes]:
    old = draw(letters)
    new = list(old)
    for place, letter in draw(edits):
        new[place % len(new)] = letter
    new += draw(st.lists(st.integers(0, 255), max_size=10))
    new = new[draw(st.integers(0, 3)) : draw(st.integers(1, len(new) + 1))] or new
    cuts = st.integers(0, SMALL_CHUNK - 1)
    return database_of(old, draw(cuts)), database_of(new, draw(cuts))


async def publish(store: MemoryStore, database: bytes, key: str, parent: Published | None) -> Published:
    publisher = Publisher(store, PublisherIdentity("holder", "0"), part_size=2 * MINIMUM, concurrency=3)
    with tempfile.NamedTemporaryFile() as file:
        file.write(database)
        file.flush()
        stamp = Signature(FileStamp(1, len(database), 1), None, racy=False)
        snapshot = Snapshot(Path(file.name), len(database), len(database), 512, 1, stamp, "3", on_tmpfs=True)
        index = replace(await publisher.index(snapshot, "app.db"), timestamp="20261120T145503.123Z")
        return await publisher.publish(snapshot, index, key, parent.as_parent if parent else None)


TRAITS = {
    "any part": replace(MEMORY, minimum_part=MINIMUM),
    "equal parts": replace(MEMORY, minimum_part=MINIMUM // 4, equal_parts=True),
    "few parts": replace(MEMORY, minimum_part=MINIMUM // 4, maximum_parts=16),
    "few equal parts": replace(MEMORY, minimum_part=MINIMUM // 4, maximum_parts=16, equal_parts=True),
    "no copies": replace(MEMORY, minimum_part=MINIMUM, part_copy=PartCopy.NO),
}


@given(histories(), st.sampled_from(sorted(TRAITS)))
@settings(max_examples=60, deadline=None)
def test_whatever_became_of_a_database_its_restore_point_is_the_next_one(
    history: tuple[bytes, bytes], traits: str
) -> None:
    """The store refuses parts that it would not take; the bytes decode to the second database; the contents are true."""
    old, new = history

    async def both() -> None:
        store = MemoryStore(traits=TRAITS[traits])
        first = await publish(store, old, "1", None)
        second = await publish(store, new, "2", first)
        third = await publish(store, old, "3", second)
        for key, database, published in (("1", old, first), ("2", new, second), ("3", old, third)):
            data = store.objects[key].data
            assert decode(data) == database
            assert published.uploaded + published.reused == len(data) == published.info.size
            told = int(store.objects[key].info.metadata["reused"])  # written before it was known
            assert told <= published.reused if store.traits.equal_parts else told == published.reused
            assert decode_tail(data, len(data), key).offsets == published.contents.offsets
        assert store.open_uploads == []

    with (
        patch.object(restore_point_format, "CHUNK_SIZE", SMALL_CHUNK),
        patch.object(publishing, "CHUNK_SIZE", SMALL_CHUNK),
    ):
        anyio.run(both)


@pytest.mark.parametrize(("traits", "least"), [("equal parts", 0.5), ("any part", 0.9), ("no copies", 0.0)])
def test_what_is_unchanged_is_copied_where_the_store_can(traits: str, least: float) -> None:
    """With equal parts copies begin anywhere in the source, and what does not fill a part is uploaded."""
    chunks = [number | 1 for number in range(120)]
    old, new = database_of(chunks, 0), database_of([*chunks[:60], 255, 254, *chunks[62:]], 0)

    async def both() -> tuple[Published, list[int]]:
        store = MemoryStore(traits=TRAITS[traits])
        second = await publish(store, new, "2", await publish(store, old, "1", None))
        assert decode(store.objects["2"].data) == new
        return second, store.part_sizes["2"]

    with (
        patch.object(restore_point_format, "CHUNK_SIZE", SMALL_CHUNK),
        patch.object(publishing, "CHUNK_SIZE", SMALL_CHUNK),
    ):
        second, sizes = anyio.run(both)
    assert least <= second.reused / second.info.size <= (1 if least else 0)
    assert (len({*sizes[:-1]}) == 1) == (traits != "any part")
