"""Logs and wal-index headers made by hand."""

import os
import struct
from pathlib import Path

from sidecar.database.wal.header import WalIndex, checksum

SALTS = b"\1\2\3\4\5\6\7\x08"
PAGE = 512


def index(
    frame: int, *, change: int = 0, salts: bytes = SALTS, sums: tuple[int, int] = (7, 8), pages: int = 9, done: int = 0
) -> WalIndex:
    return WalIndex(salts, frame, sums, change, pages, PAGE, done)


def raw_header(
    *, version: int = 3007000, page_size: int = PAGE, frame: int = 5, backfilled: int = 3, change: int = 11
) -> bytes:
    """136 bytes of a wal-index whose salts are `SALTS`, with 9 pages and the checksum (7, 8)."""
    size = 1 if page_size == 65536 else page_size
    head = struct.pack("=I4xIBBHIIII8s", version, change, 1, 0, size, frame, 9, 7, 8, SALTS)
    head += struct.pack("=II", *checksum(head))
    return head + head + struct.pack("=I36x", backfilled)


def frame(page: int, pages: int = 0, *, salts: bytes = SALTS, sums: tuple[int, int] = (7, 8), fill: int = 0) -> bytes:
    """A frame; one with a size in `pages` is a commit."""
    return struct.pack(">II8sII", page, pages, salts, *sums) + bytes([fill]) * PAGE


def unsummed(page: int, pages: int = 0, fill: int = 0) -> bytes:
    return frame(page, pages, salts=bytes(8), sums=(0, 0), fill=fill)


def log_of(folder: Path, *frames: bytes) -> int:
    """The descriptor of a log with these frames."""
    path = folder / "log"
    path.write_bytes(bytes(32) + b"".join(frames))
    return os.open(path, os.O_RDONLY)
