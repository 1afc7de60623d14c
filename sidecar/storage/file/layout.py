"""The path of a key's file in the directory: the key itself, except that segments of streams are in a folder for each hour.

    stream/<database>/<stream>/<last>-<first>-<ms>.zst  ->  stream/<database>/<stream>/20261120T14/<last>-<first>-<ms>.zst

A stream may have 3 million segments, and a folder with all of them would be slow to list on any file system. Segments have
no metadata and no tags, which would be two more files for each second. Pure.
"""

import re
from datetime import UTC, datetime

_NAME = r"\d{16}-\d{16}-(\d{13})\.zst"
_SEGMENT = re.compile(rf"(stream/[^/]+/[^/]+/)({_NAME})", re.ASCII)
_STREAM = re.compile(r"stream/[^/]+/[^/]+/")
_HOUR = re.compile(r"\d{8}T\d{2}", re.ASCII)


def path_of(key: str) -> str:
    """The path of a key's file, relative to the directory."""
    match = _SEGMENT.fullmatch(key)
    return f"{match[1]}{_hour(int(match[3]))}/{match[2]}" if match else key


def is_segment(key: str) -> bool:
    """Whether this is the key of a segment."""
    return bool(_SEGMENT.fullmatch(key))


def is_stream(folder: str) -> bool:
    """Whether a folder, given with its slash, is the folder of a stream."""
    return bool(_STREAM.fullmatch(folder))


def is_hour(name: str) -> bool:
    """Whether a folder with this name in a stream's folder has the segments of an hour."""
    return bool(_HOUR.fullmatch(name))


def _hour(ms: int) -> str:
    return f"{datetime.fromtimestamp(ms // 1000, UTC):%Y%m%dT%H}"
