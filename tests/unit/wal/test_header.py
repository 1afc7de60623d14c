"""The header of a wal-index: only a whole and sound one is believed."""

import pytest

from sidecar.database.wal.header import SIZE, UnknownVersion, WalIndex, parse
from tests.unit.wal.logs import SALTS, raw_header


def test_a_sound_header_is_read() -> None:
    assert parse(raw_header()) == WalIndex(SALTS, 5, (7, 8), 11, 9, 512, 3)


@pytest.mark.parametrize("page_size", [512, 4096, 32768, 65536])
def test_every_page_size_is_read(page_size: int) -> None:
    index = parse(raw_header(page_size=page_size))
    assert index
    assert index.page_size == page_size


@pytest.mark.parametrize("place", [0, 8, 14, 16, 20, 32, 40, 47, 48, 70, 95])
def test_a_header_that_is_being_written_is_not_believed(place: int) -> None:
    raw = bytearray(raw_header())
    raw[place] ^= 1
    assert parse(bytes(raw)) is None


def test_two_copies_that_agree_need_their_checksum() -> None:
    raw = bytearray(raw_header())
    for copy in (16, 64):
        raw[copy] ^= 1
    assert parse(bytes(raw)) is None


def test_nothing_is_read_before_the_header_is_initialised_or_from_a_short_one() -> None:
    assert parse(bytes(SIZE)) is None
    assert parse(raw_header()[:100]) is None


def test_another_layout_is_refused() -> None:
    with pytest.raises(UnknownVersion, match="3008000"):
        parse(raw_header(version=3008000))
