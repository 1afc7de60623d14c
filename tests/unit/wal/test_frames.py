"""Frames of a log: what counts as committed by the wal-index is read, and nothing else."""

from pathlib import Path

import pytest

from sidecar.database.wal import StreamCut
from sidecar.database.wal.frames import pages_of, read
from tests.unit.wal.logs import PAGE, SALTS, frame, index, log_of, unsummed


def test_commits_are_read_from_where_the_last_one_ended(tmp_path: Path) -> None:
    log = log_of(tmp_path, frame(1, 3), frame(2), frame(3), frame(2, 4, fill=2), frame(5, 5, sums=(1, 2)), frame(6, 6))
    found = read(log, index(5), 1, fold=False)
    assert [(each.pages, sorted(each.images)) for each in found.transactions] == [(4, [2, 3]), (5, [5])]
    assert found.transactions[0].images[2] == b"\2" * PAGE  # a page may come twice: the last one counts
    assert (found.ends, found.frames, found.checksum) == ([4, 5], 4, (1, 2))
    assert pages_of(log, index(5), 1) == {2, 3, 5}


def test_folded_commits_are_counted_one_by_one(tmp_path: Path) -> None:
    log = log_of(tmp_path, frame(1, 3), frame(2, 4, fill=1), frame(2, 5, fill=2))
    found = read(log, index(3), 0, fold=True)
    assert [(each.pages, each.commits) for each in found.transactions] == [(5, 3)]
    assert found.transactions[0].images[2] == b"\2" * PAGE
    assert found.ends == [1, 2, 3]


def test_frames_without_salts_and_checksums_are_committed(tmp_path: Path) -> None:
    found = read(log_of(tmp_path, frame(1), unsummed(2), unsummed(3, 3)), index(3), 0, fold=False)
    assert (len(found.transactions), found.unsummed, found.checksum) == (1, 2, (0, 0))


def test_a_frame_of_another_generation_is_a_cut(tmp_path: Path) -> None:
    with pytest.raises(StreamCut, match="frame 2 of the log is of another generation"):
        read(log_of(tmp_path, frame(1), frame(2, 2, salts=b"other123")), index(2), 0, fold=False)


def test_a_frame_with_a_checksum_and_no_salts_is_a_cut(tmp_path: Path) -> None:
    with pytest.raises(StreamCut, match="another generation"):
        read(log_of(tmp_path, frame(1, 1, salts=bytes(8))), index(1), 0, fold=False)


def test_a_log_that_is_too_short_is_a_cut(tmp_path: Path) -> None:
    with pytest.raises(StreamCut, match="ends before"):
        read(log_of(tmp_path, frame(1, 1)), index(2), 0, fold=False)


def test_an_open_transaction_at_the_end_is_a_cut(tmp_path: Path) -> None:
    with pytest.raises(StreamCut, match="does not end with a commit"):
        read(log_of(tmp_path, frame(1, 1), frame(2)), index(2), 0, fold=False)


def test_repeated_commit_frames_are_told_from_commits(tmp_path: Path) -> None:
    log = log_of(tmp_path, frame(1), frame(2, 2), frame(2, 2), frame(2, 2), frame(2, 2, fill=1), frame(3, 3))
    found = read(log, index(6), 0, fold=False)
    assert (len(found.ends), found.repeated) == (5, 2)


def test_large_logs_are_read_in_pieces(tmp_path: Path) -> None:
    count = 4500  # more than a piece has
    log = log_of(tmp_path, *(frame(number, number, salts=SALTS) for number in range(1, count + 1)))
    found = read(log, index(count), 0, fold=False)
    assert [each.pages for each in found.transactions] == list(range(1, count + 1))
