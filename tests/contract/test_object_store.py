"""Reading, writing and listing: what every store promises, and the core relies on."""

from datetime import UTC, datetime, timedelta
from urllib.parse import quote

import anyio
import pytest

from sidecar.errors import NotFound, PreconditionFailed
from sidecar.model import IfAbsent, IfMatch, ObjectInfo, Span
from sidecar.storage.base import ObjectStore
from tests.fakes import MemoryStore

pytestmark = pytest.mark.anyio

DATA = bytes(range(256)) * 5
NAMES = [
    "plain.db",
    "with space.db",
    "a+b.db",
    "100%.db",
    "déjà vu.db",
    "名前 😀.db",
    "a&b=c?d#e.db",
    "~tilde'\"!*().db",
]


async def keys_of(store: ObjectStore, prefix: str, start_after: str = "") -> list[str]:
    """Every key of a listing that is small enough for one page."""
    page = await store.list(prefix, start_after=start_after)
    assert not page.more
    return [info.key for info in page.objects]


async def test_object_is_read_back_as_it_was_written(store: ObjectStore, folder: str) -> None:
    key = f"{folder}object"
    written = await store.put(key, DATA, metadata={"root": "abc", "epoch": "7"})
    blob = await store.get(key)
    assert (bytes(blob.data), blob.info.size, blob.info.key) == (DATA, len(DATA), key)
    assert blob.info.etag == written.etag == (await store.head(key)).etag


async def test_empty_object_is_an_object(store: ObjectStore, folder: str) -> None:
    await store.put(f"{folder}empty", b"")
    blob = await store.get(f"{folder}empty")
    assert (bytes(blob.data), blob.info.size) == (b"", 0)
    assert await keys_of(store, folder) == [f"{folder}empty"]


async def test_metadata_comes_back_with_get_and_head_and_not_with_list(store: ObjectStore, folder: str) -> None:
    metadata = {"root": "0" * 64, "epoch": "12", "with-dash": "a b,c;d=e/f"}
    await store.put(f"{folder}object", DATA, metadata=metadata)
    for info in (await store.head(f"{folder}object"), (await store.get(f"{folder}object")).info):
        assert {name: info.metadata[name] for name in metadata} == metadata
    (listed,) = (await store.list(folder)).objects
    assert listed.metadata == {}
    assert listed.size == len(DATA)


async def test_overwriting_replaces_content_metadata_and_etag(store: ObjectStore, folder: str) -> None:
    first = await store.put(f"{folder}object", b"first", metadata={"one": "1"})
    second = await store.put(f"{folder}object", b"the second", metadata={"two": "2"})
    info = await store.head(f"{folder}object")
    assert first.etag != second.etag == info.etag
    assert info.size == 10
    assert "one" not in info.metadata
    assert info.metadata["two"] == "2"


@pytest.mark.parametrize(
    ("span", "expected"),
    [
        (Span(0), DATA),
        (Span(0, len(DATA)), DATA),
        (Span(0, 1), DATA[:1]),
        (Span(700, 701), DATA[700:701]),
        (Span(100, 300), DATA[100:300]),
        (Span(1000), DATA[1000:]),
        (Span(1000, 999_999), DATA[1000:]),
        (Span(len(DATA) - 1, len(DATA) + 1), DATA[-1:]),
        (Span(-1), DATA[-1:]),
        (Span(-77), DATA[-77:]),
        (Span(-len(DATA)), DATA),
        (Span(-999_999), DATA),
    ],
)
async def test_span_is_cut_at_the_end_and_tells_of_the_whole(
    store: ObjectStore, folder: str, span: Span, expected: bytes
) -> None:
    """The bytes are the span's; size, ETag and metadata are the whole object's."""
    await store.put(f"{folder}object", DATA, metadata={"a": "b"})
    blob = await store.get(f"{folder}object", span=span)
    assert bytes(blob.data) == expected
    assert blob.info.size == len(DATA)
    assert blob.info.etag == (await store.head(f"{folder}object")).etag
    assert blob.info.metadata["a"] == "b"


@pytest.mark.parametrize("start", [len(DATA), len(DATA) + 1, 999_999])
async def test_span_that_begins_beyond_the_end_is_refused(store: ObjectStore, folder: str, start: int) -> None:
    """The object is shorter than the reader knows: another version, not a broken store and not a bug."""
    if isinstance(store, MemoryStore):
        pytest.skip("the fake answers with no bytes: nothing that is tested with it asks for them")
    await store.put(f"{folder}object", DATA)
    for span in (Span(start), Span(start, start + 10)):
        with pytest.raises(PreconditionFailed):
            await store.get(f"{folder}object", span=span)


async def test_get_if_match_reads_only_that_version(store: ObjectStore, folder: str) -> None:
    first = await store.put(f"{folder}object", b"first")
    assert bytes((await store.get(f"{folder}object", if_match=first.etag)).data) == b"first"
    await store.put(f"{folder}object", b"the second")
    for span in (None, Span(0, 3), Span(-3)):
        with pytest.raises(PreconditionFailed):
            await store.get(f"{folder}object", span=span, if_match=first.etag)


async def test_missing_key_is_not_found(store: ObjectStore, folder: str) -> None:
    await store.put(f"{folder}neighbour", DATA)
    for missing in ("nothing", "neighbou", "neighbour2", "deep/er"):
        with pytest.raises(NotFound):
            await store.get(f"{folder}{missing}")
        with pytest.raises(NotFound):
            await store.get(f"{folder}{missing}", span=Span(-5), if_match='"x"')
        with pytest.raises(NotFound):
            await store.head(f"{folder}{missing}")
    assert await keys_of(store, f"{folder}nothing") == []


@pytest.mark.parametrize("name", NAMES)
async def test_any_database_name_makes_a_key(store: ObjectStore, folder: str, name: str) -> None:
    """Names arrive URL-encoded, as the catalog does, so the store sees ASCII and percent signs."""
    key = f"{folder}{quote(name, safe='')}/20261120T145503.123Z.sqlite3.zst"
    await store.put(key, DATA, condition=IfAbsent())
    assert bytes((await store.get(key)).data) == DATA
    assert (await store.head(key)).key == key
    assert await keys_of(store, f"{folder}{quote(name, safe='')}/") == [key]
    assert await keys_of(store, folder, start_after=key) == []
    with pytest.raises(PreconditionFailed):
        await store.put(key, DATA, condition=IfAbsent())


@pytest.mark.parametrize("name", ["with space", "a+b", "100%", "50%25", "déjà", "名前"])
async def test_raw_characters_in_a_key_are_kept(store: ObjectStore, folder: str, name: str) -> None:
    """Whoever lists a folder of other people's files meets such keys; they must not come back changed."""
    await store.put(f"{folder}{name}", name.encode())
    assert await keys_of(store, folder) == [f"{folder}{name}"]
    assert bytes((await store.get(f"{folder}{name}")).data) == name.encode()


async def test_list_is_ordered_by_utf8_bytes(store: ObjectStore, folder: str) -> None:
    """Upper case before lower, and U+FF5E before an emoji, which UTF-16 would order the other way round."""
    names = ["a", "Z", "é", "z", "0", "~", "\uff5e", "\U0001f600", "a.b", "a0", "%41", "-"]
    for name in names:
        await store.put(f"{folder}{name}", b"x")
    expected = sorted((f"{folder}{name}" for name in names), key=lambda key: key.encode())
    assert await keys_of(store, folder) == expected
    for position, key in enumerate(expected):
        assert await keys_of(store, folder, start_after=key) == expected[position + 1 :]


async def test_list_takes_prefixes_that_are_no_folders(store: ObjectStore, folder: str) -> None:
    for name in ("app/1", "app/2", "app2/1", "ap", "lease.json", "diverged/app/1"):
        await store.put(f"{folder}{name}", b"x")
    assert await keys_of(store, f"{folder}app/") == [f"{folder}app/1", f"{folder}app/2"]
    assert await keys_of(store, f"{folder}app") == [f"{folder}app/1", f"{folder}app/2", f"{folder}app2/1"]
    assert await keys_of(store, f"{folder}diverged/app/") == [f"{folder}diverged/app/1"]
    assert await keys_of(store, f"{folder}none/") == []


async def test_list_starts_after_keys_that_do_not_exist(store: ObjectStore, folder: str) -> None:
    for number in range(1, 6):
        await store.put(f"{folder}{number}", b"x")
    assert await keys_of(store, folder, start_after=f"{folder}25") == [f"{folder}{n}" for n in (3, 4, 5)]
    assert await keys_of(store, folder, start_after=f"{folder}0") == [f"{folder}{n}" for n in range(1, 6)]
    assert await keys_of(store, folder, start_after=f"{folder}9") == []
    assert await keys_of(store, folder, start_after=folder[0]) == [f"{folder}{n}" for n in range(1, 6)]


@pytest.mark.parametrize("limit", [1, 10, 24, 25, 26])
async def test_pages_add_up_to_every_key_once(store: ObjectStore, folder: str, limit: int) -> None:
    """`more` is exact: an empty last page would cost a request for every listing."""
    keys = [f"{folder}{number:03d}" for number in range(25)]
    async with anyio.create_task_group() as group:
        for key in reversed(keys):
            group.start_soon(store.put, key, key.encode())
    found: list[ObjectInfo] = []
    pages = 0
    more = True
    while more:
        page = await store.list(folder, start_after=found[-1].key if found else "", limit=limit)
        assert 0 < len(page.objects) <= limit
        found += page.objects
        more, pages = page.more, pages + 1
    assert [info.key for info in found] == keys
    assert pages == -(-25 // limit)


async def test_listed_object_is_the_one_that_head_sees(store: ObjectStore, folder: str) -> None:
    await store.put(f"{folder}object", DATA)
    (listed,) = (await store.list(folder)).objects
    head = await store.head(f"{folder}object")
    assert (listed.key, listed.size, listed.etag) == (head.key, head.size, head.etag)
    assert abs(listed.last_modified - head.last_modified) <= timedelta(seconds=1)


async def test_if_absent_writes_once(store: ObjectStore, folder: str) -> None:
    await store.put(f"{folder}object", b"first", condition=IfAbsent())
    with pytest.raises(PreconditionFailed):
        await store.put(f"{folder}object", b"second", condition=IfAbsent(), metadata={"other": "1"})
    blob = await store.get(f"{folder}object")
    assert bytes(blob.data) == b"first"
    assert "other" not in blob.info.metadata


async def test_if_absent_has_one_winner_of_twenty(store: ObjectStore, folder: str) -> None:
    won: list[bytes] = []

    async def contend(number: int) -> None:
        data = b"%d" % number
        try:
            await store.put(f"{folder}lease.json", data, condition=IfAbsent())
        except PreconditionFailed:
            return
        won.append(data)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(contend, number)
    assert won == [bytes((await store.get(f"{folder}lease.json")).data)]


async def test_if_match_has_one_winner_of_twenty(store: ObjectStore, folder: str) -> None:
    won: list[bytes] = []
    before = await store.put(f"{folder}lease.json", b"before")

    async def contend(number: int) -> None:
        data = b"new %d" % number
        try:
            await store.put(f"{folder}lease.json", data, condition=IfMatch(before.etag))
        except PreconditionFailed:
            return
        won.append(data)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(contend, number)
    assert won == [bytes((await store.get(f"{folder}lease.json")).data)]


async def test_if_match_refuses_another_version_and_a_missing_key(store: ObjectStore, folder: str) -> None:
    first = await store.put(f"{folder}object", b"first")
    second = await store.put(f"{folder}object", b"second", condition=IfMatch(first.etag))
    with pytest.raises(PreconditionFailed):
        await store.put(f"{folder}object", b"third", condition=IfMatch(first.etag))
    with pytest.raises(PreconditionFailed):
        await store.put(f"{folder}missing", b"third", condition=IfMatch(second.etag))
    assert bytes((await store.get(f"{folder}object")).data) == b"second"
    assert await keys_of(store, folder) == [f"{folder}object"]


async def test_clock_and_last_modified_are_close_to_real_time(store: ObjectStore, folder: str) -> None:
    """S3's clock has a resolution of a second, and its file times may come from another process."""
    written = await store.put(f"{folder}object", b"x")
    instants = [
        await store.now(),
        written.last_modified,
        (await store.head(f"{folder}object")).last_modified,
        (await store.get(f"{folder}object")).info.last_modified,
        (await store.list(folder)).objects[0].last_modified,
    ]
    now = datetime.now(UTC)
    for instant in instants:
        assert instant.utcoffset() == timedelta(0)
        assert abs(now - instant) < timedelta(seconds=10)


async def test_clock_does_not_go_back(store: ObjectStore, folder: str) -> None:
    """Not by more than its own resolution; keys are stamped with it."""
    previous = await store.now()
    for number in range(5):
        await store.put(f"{folder}{number}", b"x")
        now = await store.now()
        assert now > previous - timedelta(seconds=1.1)
        previous = now
        await anyio.sleep(0.05)
