"""A restore point names the place in a stream at which its snapshot was taken: in its index, and for a HEAD."""

import hashlib
import json
from dataclasses import replace

import pytest

from sidecar.errors import DamagedRestorePoint
from sidecar.model import Position
from sidecar.repository.format.index import Index, decode_index, encode_index, position_metadata, position_of

INDEX = Index("app.db", "20261120T145503.123Z", 4096, 4096, bytes(32))
STREAM = "20261120T145500.000Z-0000000007-machine%2F1"


@pytest.mark.parametrize("commit", [0, 1, 2**53 + 1])
def test_the_index_and_the_metadata_name_the_position(commit: int) -> None:
    position = Position(STREAM, commit)
    assert decode_index(encode_index(replace(INDEX, position=position)), "key").position == position
    assert position_of(position_metadata(position)) == position


def test_older_restore_points_name_none() -> None:
    """The payload is the one that older versions wrote and read."""
    payload = encode_index(INDEX)
    assert b"stream" not in payload
    assert decode_index(payload, "key").position is None
    assert position_of({"root": "", "epoch": "1"}) is position_of(position_metadata(None)) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"stream": STREAM},
        {"commit": 1},
        {"stream": STREAM, "commit": -1},
        {"stream": "", "commit": 1},
        {"stream": STREAM, "commit": "1"},
        {"stream": STREAM, "commit": True},
        {"stream": 1, "commit": 1},
    ],
)
def test_half_a_position_is_damage(wrong: dict[str, object]) -> None:
    """A stream must never be entered at a commit that somebody guessed."""
    line, _, digests = encode_index(INDEX)[:-32].partition(b"\n")
    body = json.dumps({**json.loads(line), **wrong}).encode() + b"\n" + digests
    with pytest.raises(DamagedRestorePoint, match="stream"):
        decode_index(body + hashlib.sha256(body).digest(), "key")


@pytest.mark.parametrize("metadata", [{"stream": STREAM}, {"commit": "1"}, {"stream": STREAM, "commit": "-1"}])
def test_half_a_position_in_metadata_is_none(metadata: dict[str, str]) -> None:
    assert position_of(metadata) is None
