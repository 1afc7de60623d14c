"""The boot table, all of it, against an oracle written from the documentation rather than from the code."""

from itertools import product

import pytest

from sidecar.database.lineage import Marker
from sidecar.policies import OnConflict, OnEmptyStore
from sidecar.restore.decision import Decision, decide

NEWEST, OLDER, PENDING = (f"app.db/2026112{day}T000000.000Z.sqlite3.zst" for day in (2, 1, 3))
STORE = "s3://bucket"

MARKERS = {
    "none": None,
    "names nothing": Marker(STORE, None),
    "last is newest": Marker(STORE, NEWEST),
    "pending is newest": Marker(STORE, OLDER, (NEWEST,)),
    "only pending, newest": Marker(STORE, None, (NEWEST,)),
    "last is newest, another pending": Marker(STORE, NEWEST, (PENDING,)),
    "last is older": Marker(STORE, OLDER),
    "older, another pending": Marker(STORE, OLDER, (PENDING,)),
    "only pending, another": Marker(STORE, None, (PENDING,)),
}
DESCENDANTS = {name for name in MARKERS if "newest" in name}

TABLE = """
store      local   marker       setting                 decision
empty      none    any          on_empty_store=start    START_EMPTY
empty      none    any          on_empty_store=fail     NOTHING_TO_RESTORE
empty      exists  any          any                     PUBLISH_LOCAL
points     none    any          any                     RESTORE
points     exists  descends     any                     KEEP_LOCAL
points     exists  strange      on_conflict=remote      CONFLICT_REMOTE
points     exists  strange      on_conflict=local       CONFLICT_LOCAL
points     exists  strange      on_conflict=fail        CONFLICT_FAIL
"""


def oracle(store: str, local: str, marker: str, settings: set[str]) -> Decision:
    rows = [line.split() for line in TABLE.strip().splitlines()[1:]]
    matching = [
        decision
        for its_store, its_local, its_marker, setting, decision in rows
        if (its_store, its_local) == (store, local)
        and its_marker in {"any", marker}
        and (setting == "any" or setting in settings)
    ]
    assert len(matching) == 1, "the table must be complete and free of contradictions"
    return Decision[matching[0]]


CASES = list(product([None, NEWEST], [True, False], MARKERS, OnEmptyStore, OnConflict))


@pytest.mark.parametrize(("newest", "local", "marker", "on_empty", "on_conflict"), CASES)
def test_every_case_is_decided_as_documented(
    newest: str | None, local: bool, marker: str, on_empty: OnEmptyStore, on_conflict: OnConflict
) -> None:
    expected = oracle(
        "points" if newest else "empty",
        "exists" if local else "none",
        "descends" if marker in DESCENDANTS else "strange",
        {f"on_empty_store={on_empty}", f"on_conflict={on_conflict}"},
    )
    decision = decide(newest, local=local, marker=MARKERS[marker], on_empty=on_empty, on_conflict=on_conflict)
    assert decision is expected


@pytest.mark.parametrize(("newest", "local", "marker", "on_empty", "on_conflict"), CASES)
def test_no_decision_lets_data_go(
    newest: str | None, local: bool, marker: str, on_empty: OnEmptyStore, on_conflict: OnConflict
) -> None:
    """Whatever the settings: never empty where there is data, never a plain restore over a local database."""
    decision = decide(newest, local=local, marker=MARKERS[marker], on_empty=on_empty, on_conflict=on_conflict)
    if local or newest:
        assert decision not in {Decision.START_EMPTY, Decision.NOTHING_TO_RESTORE}
    if local:
        assert decision is not Decision.RESTORE
    if newest is None:
        assert decision not in {Decision.RESTORE, Decision.KEEP_LOCAL, Decision.CONFLICT_REMOTE}
