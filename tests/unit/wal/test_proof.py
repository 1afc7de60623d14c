"""The rules of continuity: what cannot be proved is a cut with its cause."""

import pytest

from sidecar.database.wal import CutCause, StreamCut
from sidecar.database.wal.frames import Found
from sidecar.database.wal.proof import (
    Mark,
    first_unread,
    growth,
    require_complete,
    require_last,
    require_resumable,
    require_same_frame,
)
from sidecar.model import LogPosition
from tests.unit.wal.logs import SALTS, frame, index

OTHER = b"87654321"
LAST = frame(4, 4)[:24]
MARK = Mark(index(10, change=100), LAST)


def found(*ends: int, sums: tuple[int, int] = (7, 8), repeated: int = 0) -> Found:
    return Found(ends=list(ends), last=frame(1, 1, sums=sums)[:24] if ends else b"", repeated=repeated)


def test_reading_goes_on_in_the_same_generation_and_begins_anew_in_another() -> None:
    assert first_unread(MARK, index(12, change=101), unsummed=False) == 10
    assert first_unread(MARK, index(0, change=100, salts=OTHER), unsummed=False) == 0
    assert first_unread(MARK, index(99, change=101, salts=OTHER), unsummed=False) == 0


def test_the_counter_may_wrap() -> None:
    assert growth(index(1, change=2**32 - 1), index(2, change=1)) == 2
    assert growth(index(1, change=5), index(2, change=0)) == -5


@pytest.mark.parametrize(
    ("now", "unsummed", "cause"),
    [
        (index(9, change=100), False, CutCause.MISMATCH),
        (index(9, change=0), False, CutCause.RECOVERED),
        (index(12, change=1), True, CutCause.RECOVERED),
        (index(12, change=1, salts=OTHER), False, CutCause.RECOVERED),
    ],
    ids=["went-back", "recovery-lost-the-end", "recovery-without-checksums", "recovered-and-reset"],
)
def test_a_log_that_lost_commits_is_a_cut(now: object, unsummed: bool, cause: CutCause) -> None:
    with pytest.raises(StreamCut) as cut:
        first_unread(MARK, now, unsummed=unsummed)  # type: ignore[arg-type]
    assert cut.value.cause is cause


def test_a_recovery_that_kept_everything_is_no_cut() -> None:
    now = index(12, change=1)
    assert first_unread(MARK, now, unsummed=False) == 10
    require_complete(MARK, now, found(11, 12))


def test_the_last_captured_frame_must_be_there() -> None:
    require_last(MARK, LAST)
    with pytest.raises(StreamCut, match="not the one that was captured"):
        require_last(MARK, frame(5, 4)[:24])


@pytest.mark.parametrize(
    ("now", "read"),
    [
        (index(12, change=102), found(12)),
        (index(12, change=101), found(11, 12)),
        (index(12, change=102), found(12, repeated=1)),
        (index(12, change=101), found(12, sums=(1, 1))),
        (index(10, change=100, sums=(1, 1)), found()),
        (index(10, change=101), found()),
        (index(0, change=101, salts=OTHER), found()),
        (index(2, change=102, salts=OTHER), found(2)),
    ],
    ids=[
        "missed",
        "too-many",
        "missed-beside-repeated",
        "other-end",
        "other-last-frame",
        "no-frame",
        "reset",
        "reset-missed",
    ],
)
def test_what_was_found_must_be_what_was_committed(now: object, read: Found) -> None:
    with pytest.raises(StreamCut) as cut:
        require_complete(MARK, now, read)  # type: ignore[arg-type]
    assert cut.value.cause is CutCause.MISMATCH


def test_repeated_frames_are_no_commits_by_the_counter() -> None:
    require_complete(MARK, index(12, change=101), found(11, 12, repeated=1))


@pytest.mark.parametrize(
    ("log", "now"),
    [
        (LogPosition(SALTS, 10, (7, 8)), index(12, salts=OTHER)),
        (LogPosition(SALTS, 10, (7, 8)), index(9)),
        (LogPosition(bytes(8), 0), index(2, salts=bytes(8))),
    ],
    ids=["reset", "went-back", "never-had-a-frame"],
)
def test_a_log_that_cannot_be_recognised_is_not_resumed(log: LogPosition, now: object) -> None:
    with pytest.raises(StreamCut) as cut:
        require_resumable(log, now)  # type: ignore[arg-type]
    assert cut.value.cause is CutCause.RESET


@pytest.mark.parametrize("header", [b"", frame(1, 1, sums=(1, 1))[:24], frame(1, 1, salts=OTHER)[:24], bytes(24)])
def test_another_frame_in_its_place_is_not_resumed(header: bytes) -> None:
    log = LogPosition(SALTS, 10, (7, 8))
    require_same_frame(log, frame(1, 1)[:24])
    with pytest.raises(StreamCut):
        require_same_frame(log, header)


def test_a_frame_without_a_checksum_is_not_resumed() -> None:
    with pytest.raises(StreamCut):
        require_same_frame(LogPosition(SALTS, 10, (0, 0)), bytes(24))
