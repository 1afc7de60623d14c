"""A comparison is exact: its SQL, applied to the earlier state, gives the later one, typed and byte for byte.

`make soak` runs thousands of such rounds with larger databases.
"""

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sidecar.compare.values import Shortened, Value, key_of, literal, of_json, same, to_json
from tests.harness.database_states import BOXES, LIBRARY, STEPS, TABLES, WORDS, Shape
from tests.soak.rounds import Plan, run

SHAPES = st.builds(
    Shape,
    st.sampled_from([512, 1024, 4096, 65536]),
    st.sampled_from(["UTF-8", "UTF-16le", "UTF-16be"]),
    st.sampled_from([0, 1, 2]),
    st.booleans(),
    st.sampled_from([(), (WORDS,), (BOXES,)]),
    st.sampled_from([20, 60]),
)
STEPS_TAKEN = st.lists(st.sampled_from(sorted(set(STEPS))), max_size=5)
PLANS = st.builds(
    Plan,
    SHAPES,
    st.lists(st.sampled_from(sorted(TABLES)), min_size=1, max_size=3),
    STEPS_TAKEN,
    STEPS_TAKEN,
    st.integers(0, 2**20),
)
VALUES: st.SearchStrategy[Value] = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(PLANS)
def test_the_difference_as_sql_makes_the_later_state_of_the_earlier_one(plan: Plan) -> None:
    with tempfile.TemporaryDirectory() as directory:
        run(plan, Path(directory))


@given(VALUES, VALUES)
def test_values_survive_json_and_sql_and_have_equal_keys_only_if_they_are_the_same(one: Value, other: Value) -> None:
    for value in (one, other):
        again = of_json(to_json(value))
        assert not isinstance(again, Shortened)
        assert same(value, again)
        with LIBRARY.connect(":memory:") as memory:
            read, kind = memory.execute(f"SELECT x, typeof(x) FROM (SELECT {literal(value, 'utf-8')} AS x)").fetchone()
        memory.close()
        assert same(value, read), kind
    assert (key_of([one]) == key_of([other])) is same(one, other)
    if (
        type(one) is type(other)
        and isinstance(one, int | float | str | bytes)
        and max(len(key_of([each])) for each in (one, other)) < 1000
    ):
        small, large = sorted([one, other])  # type: ignore[type-var]
        assert key_of([small]) <= key_of([large]) or isinstance(one, float)
