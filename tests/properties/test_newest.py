"""Finding restore points in random stores, against a model that sorts everything."""

from datetime import timedelta

import anyio
from hypothesis import example, given, settings
from hypothesis import strategies as st

from sidecar.model import ObjectInfo, Timestamp
from sidecar.repository.catalog import Catalog
from sidecar.repository.keys import diverged_key_of, key_of, point_of
from tests.fakes import START, MemoryStore

NAMES = ["app.db", "app.db2", "app.d", "app.db-x", "größe 1", "a/b"]
names = st.sampled_from(NAMES)
ages = st.one_of(
    st.integers(-86_400, 86_400 * 2),
    st.integers(-86_400 * 300, 86_400 * 600),
    st.sampled_from([86_400 * days + second for days in (1, 16, 256) for second in (-1, 0, 1)]),
)
times = ages.map(lambda seconds: Timestamp.of(START - timedelta(seconds=seconds)))
ours = st.tuples(names, times)


@st.composite
def foreign_keys(draw: st.DrawFn) -> str:
    """Objects that are not ours, as close to ours as possible."""
    folder = draw(
        st.sampled_from(["", "app.db/", "app.db/sub/", "app.db//", "app%2edb/", "diverged/app.db/", "app.db2"])
    )
    name = draw(
        st.text(alphabet="0129ZT.-/abz~\x7fö", max_size=12)
        | times.map(lambda time: f"{time}")
        | times.map(lambda time: f"{time}-.sqlite3.zst")
        | times.map(lambda time: f"{time}.sqlite3.zst.part")
        | (times.map(lambda time: f"{time}-holder.sqlite3.zst") if folder != "diverged/app.db/" else st.nothing())
        | (times.map(lambda time: f"{time}.sqlite3.zst") if folder != "app.db/" else st.nothing())
    )
    return folder + name or "x"


def filled(
    points: list[tuple[str, Timestamp]], foreign: list[str], diverged: list[tuple[str, Timestamp]]
) -> MemoryStore:
    store = MemoryStore()
    for key in foreign:
        store.add(key)
    for name, time in points:
        store.add(key_of(name, time))
    for name, time in diverged:
        store.add(diverged_key_of(name, time, "148e2-x"))
    return store


async def everything(catalog: Catalog, name: str, *, diverged: bool = False) -> list[Timestamp]:
    return [point.timestamp async for point in catalog.points(name, diverged=diverged)]


@given(st.lists(ours, max_size=25), st.lists(foreign_keys(), max_size=10), st.lists(ours, max_size=3), names)
@example([("app.db", Timestamp.of(START - timedelta(days=1)))], [], [], "app.db")
@settings(max_examples=250)
def test_newest_and_listing_agree_with_a_model(
    points: list[tuple[str, Timestamp]], foreign: list[str], diverged: list[tuple[str, Timestamp]], name: str
) -> None:
    """The newest is found whatever else the store holds: other databases, diverged states, foreign objects."""
    store = filled(points, foreign, diverged)
    catalog = Catalog(store)
    mine = sorted({time for each, time in points if each == name})

    async def run() -> None:
        newest = await catalog.newest(name)
        assert (newest.timestamp if newest else None) == (mine[-1] if mine else None)
        assert store.count("list") <= 4
        assert await everything(catalog, name) == mine
        aside = sorted({time for each, time in diverged if each == name})
        assert await everything(catalog, name, diverged=True) == aside

    anyio.run(run)


@given(st.lists(times, max_size=40), times, st.integers(1, 7))
@settings(max_examples=100)
def test_pages_of_any_size_lose_nothing(points: list[Timestamp], at: Timestamp, limit: int) -> None:
    """A store may return fewer keys than asked for."""
    store = filled([("app.db", time) for time in points], ["app.db/zzz"], [])
    whole = store.list

    async def short(prefix: str, *, start_after: str = "", **_more: int) -> object:
        return await whole(prefix, start_after=start_after, limit=limit)

    store.list = short  # type: ignore[method-assign, assignment]

    async def run() -> None:
        catalog = Catalog(store)
        assert await everything(catalog, "app.db") == sorted(set(points))
        newest = await catalog.newest("app.db")
        assert (newest.timestamp if newest else None) == max(points, default=None)
        if any(time <= at for time in points):
            assert (await catalog.find("app.db", at)).timestamp == max(time for time in points if time <= at)

    anyio.run(run)


@given(st.lists(times, max_size=10), st.booleans())
@settings(max_examples=100)
def test_a_stamp_is_above_everything_and_not_before_the_stores_time(points: list[Timestamp], known: bool) -> None:
    store = filled([("app.db", time) for time in points], [], [])

    async def run() -> None:
        stamp = await Catalog(store).stamp("app.db", START, max(points) if known and points else None)
        assert all(time < stamp for time in points)
        assert stamp >= Timestamp.of(START)

    anyio.run(run)


encodable = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20)


@given(encodable, times, encodable)
@settings(max_examples=150)
def test_keys_are_read_back_whatever_the_names(name: str, time: Timestamp, holder: str) -> None:
    for key, kept in ((key_of(name, time), None), (diverged_key_of(name, time, holder), holder)):
        point = point_of(ObjectInfo(key, 1, "", START))
        if name == "diverged" and kept is None:
            continue  # refused as a name
        assert point
        assert (point.database, point.timestamp, point.diverged_holder) == (name, time, kept)
        assert key.isascii()
