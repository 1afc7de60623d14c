"""What a verification amounts to: which restore points are bad, and which can be restored instead."""

import re

import pytest

from sidecar.errors import DamagedRestorePoint, UnsupportedRestorePoint
from sidecar.model import RestorePoint, Timestamp
from sidecar.repository.keys import key_of
from sidecar.restore.verification import Outcome, VerificationReport, Verified


def report(*outcomes: Outcome) -> VerificationReport:
    """Of one database, oldest first, a minute apart."""
    results = []
    for minute, outcome in enumerate(outcomes):
        at = Timestamp(f"20261120T12{minute:02d}00.000Z")
        point = RestorePoint(key_of("app.db", at), "app.db", at, 100, "etag")
        results.append(Verified(point, outcome, "" if outcome is Outcome.GOOD else "why"))
    return VerificationReport(tuple(results))


def key(minute: int) -> str:
    return key_of("app.db", Timestamp(f"20261120T12{minute:02d}00.000Z"))


def test_what_expires_meanwhile_is_no_failure() -> None:
    """The newest one cannot expire."""
    done = report(Outcome.GONE, Outcome.GOOD)
    done.require_good()
    assert done.good


@pytest.mark.parametrize("outcome", [Outcome.DAMAGED, Outcome.LOST, Outcome.UNSUPPORTED])
def test_everything_else_is(outcome: Outcome) -> None:
    done = report(Outcome.GOOD, outcome)
    assert not done.good
    with pytest.raises((DamagedRestorePoint, UnsupportedRestorePoint)):
        done.require_good()


def test_the_newest_good_one_is_named_instead_of_a_damaged_one() -> None:
    done = report(Outcome.GOOD, Outcome.GOOD, Outcome.DAMAGED, Outcome.UNSUPPORTED)
    with pytest.raises(DamagedRestorePoint, match=r"^1 of 4 .* are damaged") as failure:
        done.require_good()
    assert failure.value.hint == f"the newest good one: `sidecar restore --key {key(1)}`"


def test_a_lost_newest_one_is_told_before_the_damaged_ones() -> None:
    with pytest.raises(DamagedRestorePoint, match=re.escape(f"gone from the store: {key(1)}; 1 of 2 ")) as failure:
        report(Outcome.DAMAGED, Outcome.LOST).require_good()
    assert "no older one is good" in failure.value.hint


def test_one_that_was_verified_alone_says_what_looks_for_others() -> None:
    with pytest.raises(DamagedRestorePoint) as failure:
        report(Outcome.DAMAGED).require_good()
    assert "`sidecar verify --all`" in failure.value.hint
