"""docs/format.md is enough to read a restore point: this reader has nothing else, and none of the program's code."""

import hashlib
import json
import os
import re
import sqlite3
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest
import zstandard

import sidecar
from tests.docs import DOCS
from tests.docs.markdown import Page

PAGE = Page(DOCS / "format.md")
CHUNK = 1_048_576


def table_of(heading: str) -> list[str]:
    """The names in the first column of a section's table."""
    cells = re.findall(r"^\| ([^|]+) \|", PAGE.section(heading), re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def skippable(frame: bytes, magic: int) -> bytes:
    """The content of a skippable frame."""
    assert struct.unpack_from("<II", frame) == (magic, len(frame) - 8)
    return frame[8:]


def seek_table(data: bytes) -> list[tuple[int, int]]:
    """Compressed and decompressed size of each frame, as the zstd seekable format has them."""
    count, descriptor, magic = struct.unpack("<IBI", data[-9:])
    assert (descriptor, magic) == (0, 0x8F92EAB1), "no checksums"
    entries = skippable(data[-(8 + 8 * count + 9) :], 0x184D2A5E)[:-9]
    return list(struct.iter_unpack("<II", entries))


def read(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The index, and the database, by the steps of "Reading it"."""
    *frames, (index_size, nothing) = seek_table(data)
    table_size = 8 + 8 * (len(frames) + 1) + 9
    assert nothing == 0
    assert sum(size for size, _ in frames) + index_size + table_size == len(data)
    payload = skippable(data[len(data) - table_size - index_size : len(data) - table_size], 0x184D2A53)
    body, checksum = payload[:-32], payload[-32:]
    assert hashlib.sha256(body).digest() == checksum
    line, _, digests = body.partition(b"\n")
    index: dict[str, Any] = json.loads(line)
    assert len(digests) == 32 * len(frames)
    assert hashlib.sha256(digests).hexdigest() == index["root"]
    database, offset = b"", 0
    for number, (size, length) in enumerate(frames):
        chunk = zstandard.ZstdDecompressor().decompress(data[offset : offset + size])
        assert zstandard.get_frame_parameters(data[offset:]).has_checksum
        assert (len(chunk), hashlib.sha256(chunk).digest()) == (length, digests[32 * number : 32 * number + 32])
        database, offset = database + chunk, offset + size
    return index, database


@pytest.fixture(scope="module", params=["wal", "delete"])
def mode(request: pytest.FixtureRequest) -> str:
    """The journal mode of the database. sidecar leaves it as it is: it may switch one at the first copy, or later."""
    return str(request.param)


@pytest.fixture(scope="module")
def published(mode: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a restore point of a database of three chunks, the last one shorter."""
    root = tmp_path_factory.mktemp("format")
    with closing(sqlite3.connect(root / "app.db")) as connection, connection:
        connection.execute(f"PRAGMA journal_mode={mode}")
        connection.execute("CREATE TABLE notes (content BLOB)")
        connection.execute("INSERT INTO notes VALUES (randomblob(?))", (2_500_000,))
    (root / "app.db").chmod(0o640)

    async def publish() -> None:
        place = f"file://{root}/store"
        async with sidecar.open(databases=[str(root / "app.db")], store=place, journal_mode="keep") as session:
            await session.backup()

    anyio.run(publish)
    return root / "store"


def only_in(mode: str) -> set[str]:
    """What the page lists apart, because only a restore point of a database in WAL mode has it."""
    return {"wal_by"} if mode == "wal" else set()


def test_a_restore_point_is_read_as_the_page_says(published: Path, mode: str) -> None:
    (path,) = (published / "app.db").glob("*.sqlite3.zst")
    index, database = read(path.read_bytes())
    assert set(index) == set(table_of("Index")) | only_in(mode)
    assert (index["format"], index["chunk_size"], index["database"]) == (1, CHUNK, "app.db")
    assert (index["uid"], index["gid"], index["mode"]) == (os.geteuid(), os.getegid(), "0640")
    assert index["timestamp"] == path.name.removesuffix(".sqlite3.zst")
    assert index["database_size"] == len(database) > 2 * CHUNK
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(database[:18] + b"\1\1" + database[20:])  # in memory there is no WAL
        assert connection.execute("SELECT length(content) FROM notes").fetchall() == [(2_500_000,)]


def test_a_restore_point_has_the_metadata_that_the_page_lists(published: Path, mode: str) -> None:
    (path,) = (published / ".sidecar/meta/app.db").glob("*.json")
    assert set(json.loads(path.read_text())) == set(table_of("Object metadata")) | only_in(mode)
