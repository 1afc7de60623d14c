"""Stores as they are: what eight of them refuse or ignore is found out, done in another way, and never believed blindly.

The server is real; a proxy in front of it imitates each store (`tests/harness/imitations.py`). The same suite runs against
any store: set CONFORMANCE_STORE to its URL, s3://bucket/prefix with a prefix of its own, and AWS_* as for the daemon.

It takes about half a minute: every store gets databases of tens of megabytes, because smaller ones are not copied from.
"""

import os
import shutil
import sqlite3
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import pytest
from anyio import to_thread
from anyio.abc import TaskGroup

import sidecar
from sidecar.errors import (
    AccessDenied,
    ConfigurationError,
    ExitCode,
    NotFound,
    PreconditionFailed,
    ReuseFailed,
    StoreUnavailable,
    StoreUnsuitable,
)
from sidecar.model import IfAbsent, IfMatch, Span
from sidecar.repository.catalog import Catalog
from sidecar.repository.increments import Increments
from sidecar.repository.inventory import Entry
from sidecar.storage import LookedUp, PartCopy, Traits
from sidecar.storage.s3 import probing
from sidecar.storage.s3.client import S3Client, S3Location
from sidecar.storage.s3.known import traits_of
from sidecar.storage.s3.learner import KEY as REMEMBERED
from sidecar.storage.s3.learner import S3Learner
from sidecar.storage.s3.probing import KEY as PROBED
from sidecar.storage.s3.store import S3Store
from tests.harness import imitations
from tests.harness.environment import clean_environment
from tests.harness.imitations import STORES, Imitation
from tests.harness.proxy import Answer, FaultProxy, Stall, StripReply, s3_error
from tests.harness.seaweed import Seaweed
from tests.harness.sidecar_process import run_cli

pytestmark = [pytest.mark.anyio, pytest.mark.s3]

MEGABYTES = 14  # two parts of 5 MiB, and some more
MEGABYTES_OF_EQUAL_PARTS = 27  # only what is four parts long is worth copying
PART = 5 << 20
BUCKET = "stores"
A_SECOND = timedelta(seconds=1)  # the resolution of S3's clock
WITH_LEASE = {"AWS S3", "Cloudflare R2", "Tigris", "Scaleway"}
WITHOUT_COPIES = {"Google Cloud Storage", "Hetzner Object Storage"}
TRIED = ("conditional_put", "conditional_complete", "part_copy", "tags", "ordered")
REAL = os.environ.get("CONFORMANCE_STORE")
# To this machine Tigris and Scaleway are like AWS S3; few parts have a test of their own.
UNLIKE_EACH_OTHER = [each for each in STORES if each not in {imitations.tigris, imitations.scaleway}]
REAL_VARIABLES = {name: value for name, value in os.environ.items() if name.startswith("AWS_")} if REAL else {}


@dataclass(frozen=True, slots=True)
class Place:
    """An empty store: its URL, the variables to reach it, and which one it is."""

    url: str
    variables: dict[str, str]
    imitation: Imitation | None = None
    proxy: FaultProxy | None = None

    @property
    def location(self) -> S3Location:
        bucket, _, prefix = self.url.removeprefix("s3://").partition("/")
        return S3Location(bucket, prefix, self.variables.get("AWS_ENDPOINT_URL_S3"), self.variables.get("AWS_REGION"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seaweed]:
    """A server that takes unsigned requests, so that a proxy may leave out headers that were signed."""
    with Seaweed(tmp_path_factory.mktemp("stores"), open_to_all=True) as started:
        started.s3.make_bucket(BUCKET)
        yield started


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database that does not compress, with something small after 3 MiB; beside it a larger one."""
    folder = tmp_path_factory.mktemp("content")
    create(folder / "large.db", MEGABYTES_OF_EQUAL_PARTS)
    return create(folder / "app.db", MEGABYTES)


def create(path: Path, megabytes: int) -> Path:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA synchronous=off")
        connection.execute("CREATE TABLE filler (noise BLOB)")
        for number in range(megabytes):
            if number == 3:
                connection.execute("CREATE TABLE state (number INTEGER)")
                connection.execute("INSERT INTO state VALUES (0)")
            connection.execute("INSERT INTO filler VALUES (randomblob(1 << 20))")
    return path


def copy_of(content: Path, folder: Path, imitation: Imitation | None) -> Path:
    """A copy that is large enough to be copied from in this store."""
    equal = imitation is None or traits_of(imitation.endpoint).equal_parts
    return Path(shutil.copy(content.with_name("large.db") if equal else content, folder / "app.db"))


def write(path: Path, number: int) -> None:
    """A small change between parts that stay as they are."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE state SET number = ?", (number,))
        connection.commit()


def read(path: Path) -> tuple[int, bytes]:
    with closing(sqlite3.connect(path)) as connection:
        ((number,),) = connection.execute("SELECT number FROM state")
        ((noise,),) = connection.execute("SELECT noise FROM filler ORDER BY rowid DESC LIMIT 1")
    return number, noise


@contextmanager
def imitated(imitation: Imitation, server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """An empty store behind a proxy."""
    with FaultProxy(server.port, imitation) as proxy:
        variables = server.environment(endpoint=proxy.endpoint)
        yield use(Place(f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}", variables, imitation, proxy), monkeypatch)


def name_of(store: Any) -> str:
    return str(getattr(store, "__name__", store))


@pytest.fixture(params=[REAL] if REAL else STORES, ids=name_of)
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Each of the eight stores, empty, or the real one that the environment names."""
    if REAL:
        yield use(Place(f"{REAL.rstrip('/')}/{uuid.uuid4().hex[:8]}", REAL_VARIABLES), monkeypatch)
        return
    with imitated(request.param(), request.getfixturevalue("server"), monkeypatch) as found:
        yield found


def use(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    for name, value in place.variables.items():
        monkeypatch.setenv(name, value)
    return place


@asynccontextmanager
async def opened(place: Place) -> AsyncIterator[S3Store]:
    async with S3Store(place.location, connections=10) as store:
        yield store


async def test_a_store_that_is_emptied_while_it_is_tried_teaches_nothing(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it answers about an object that is gone says nothing: it was believed to have no tags, for 30 days."""
    with imitated(imitations.aws(), server, monkeypatch) as place:
        async with opened(place) as store:
            tried = probing._has_tags

            async def emptied(client: S3Client) -> bool:
                server.s3.delete(BUCKET, client.location.key(probing.KEY))
                return await tried(client)

            monkeypatch.setattr(probing, "_has_tags", emptied)
            with pytest.raises(StoreUnavailable, match="disappeared"):
                await S3Learner(store, "").probe()
            assert store.traits.tags
            assert not store.traits.certain


@pytest.mark.parametrize("number", [0, 1], ids=["completing", "copying"])
async def test_an_upload_that_a_probe_begins_while_the_daemon_stops_is_aborted(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """The reply to its creation comes after the cancellation. Else its parts would be stored, and paid for, until a rule ends them."""
    released = Event()
    with imitated(imitations.aws(), server, monkeypatch) as place:
        assert place.proxy
        proxy = place.proxy
        held = Stall(60, direction="reply", released=released)
        proxy.rule(held, method="POST", query_contains="uploads", skip=number, times=1)

        async def stop(group: TaskGroup) -> None:
            await to_thread.run_sync(lambda: proxy.wait_seen("POST", PROBED, "uploads", count=number + 1))
            group.cancel_scope.cancel()
            released.set()

        async with opened(place) as store, anyio.create_task_group() as group:
            group.start_soon(stop, group)
            await S3Learner(store, "").probe()
        prefix = f"{place.location.prefix}/"
        assert not [key for key in server.s3.open_uploads(BUCKET) if key.startswith(prefix)]
        assert proxy.seen("DELETE", PROBED, "uploadId")


async def test_what_a_store_can_do_is_found_out_by_trying(place: Place) -> None:
    """As its documentation says, without a right to delete; remembered in the store, for this endpoint; nothing else changes."""
    async with opened(place) as store:
        learner = S3Learner(store, "https://one.example.com")
        assert not await learner.recall()
        found = await learner.probe()
        await learner.remember()
        assert found.certain
        if place.imitation and (known := traits_of(place.imitation.endpoint)).certain:
            assert {name: getattr(found, name) for name in TRIED} == {name: getattr(known, name) for name in TRIED}
        await learner.probe()  # the objects are there now
        assert store.traits == found
        assert {info.key for info in (await store.list("")).objects} == {PROBED, REMEMBERED}
        assert await Catalog(store).newest("app.db") is None, "an app must still start for the first time here"
        assert list(await Catalog(store).names(1)) == []
    async with opened(place) as again:
        assert await S3Learner(again, "https://one.example.com").recall()
        assert again.traits == found
        assert not await S3Learner(again, "https://another.example.com").recall()


async def test_without_a_right_to_tag_the_rest_is_found_out(server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is denied today may be granted tomorrow, so it is not remembered as something that the store cannot do."""
    with imitated(imitations.garage(), server, monkeypatch) as place:
        assert place.proxy
        place.proxy.rule(s3_error(403, "AccessDenied"), query_contains="tagging")
        async with opened(place) as store:
            found = await S3Learner(store, "").probe()
            assert (found.conditional_put, found.part_copy, found.tags) == (False, PartCopy.CONDITIONAL, True)
            place.proxy.rule(s3_error(403, "AccessDenied"), method="PUT")
            with pytest.raises(AccessDenied):
                await S3Learner(store, "").probe()
            assert store.traits == found


REMEMBERED_TRAITS = (
    b'{"conditional_put": true, "conditional_complete": true, "part_copy": "conditional", "equal_parts": false, '
    b'"maximum_parts": 10000, "tags": false, "ordered": true}'
)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"{",
        b"[" * 200_000,
        b'{"format": 2}',
        b'{"format": 1, "endpoint": "e", "traits": {}}',
        b'{"format": 1, "endpoint": "e", "traits": %b}' % REMEMBERED_TRAITS.replace(b"10000", b"0"),
        b"\xff\xfe",
    ],
    ids=range(8),
)
async def test_what_cannot_be_read_is_not_remembered(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Neither a newer version's traits nor somebody's file there may decide anything."""
    with imitated(imitations.aws(), server, monkeypatch) as place:
        async with opened(place) as store:
            before = store.traits
            await store.put(REMEMBERED, content)
            assert not await S3Learner(store, "e").recall()
            assert store.traits == before


async def test_only_what_can_be_tried_is_remembered(server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what rules select, and which sizes of parts are taken, is never asked: a file there cannot say it, either."""
    more = REMEMBERED_TRAITS.replace(b"}", b', "tag_rules": false, "minimum_part": 9000000000, "maximum_part": 0}')
    with imitated(imitations.aws(), server, monkeypatch) as place:
        async with opened(place) as store:
            before = store.traits
            await store.put(REMEMBERED, b'{"format": 1, "endpoint": "e", "traits": %b}' % more)
            assert await S3Learner(store, "e").recall()
            assert store.traits == replace(before, tags=False, certain=True)


async def published(session: sidecar.Sidecar, database: Path, number: int) -> Entry:
    """The restore point of a small change."""
    write(database, number)
    await session.backup()
    return (await session.list()).databases[0].restore_points[-1]


@pytest.mark.parametrize("place", [REAL] if REAL else UNLIKE_EACH_OTHER, ids=name_of, indirect=True)
async def test_restore_points_are_published_reused_and_restored(place: Place, content: Path, tmp_path: Path) -> None:
    """By a machine that learns in the act, because nothing was tried before: with a lease, or with a clear refusal of it."""
    name = place.imitation.name if place.imitation else ""
    database = copy_of(content, tmp_path, place.imitation)
    options: dict[str, Any] = {"databases": [database], "store": place.url, "part_size": PART}
    refusal = None
    async with sidecar.open(**options) as session:
        try:
            await session.backup()
        except StoreUnsuitable as error:
            refusal, options["lease"] = error, "off"
            assert not (await session.list()).databases[0].restore_points
    if refusal:
        assert refusal.exit_code == ExitCode.CONFIGURATION
        assert "lease_store" in refusal.hint
        assert "lease=off" in refusal.hint
    assert REAL or (refusal is None) == (name in WITH_LEASE)
    async with sidecar.open(**options) as session:
        if refusal:
            await session.backup()
        entries = [await published(session, database, number) for number in (1, 2)]
        assert REAL or bool(entries[-1].reused) == (name not in WITHOUT_COPIES)
        store = session._services.catalog().store
        for _ in range(2):  # the second time as after a lost reply
            await Increments(store).publish("stream/other.db/a/1", b"segment")
        await session.restore(output=tmp_path / "restored.db")
        assert read(tmp_path / "restored.db") == read(database)
        assert read(database)[0] == 2


@pytest.mark.parametrize("store", [imitations.r2, imitations.gcs, imitations.b2], ids=lambda each: each.__name__)
async def test_a_known_store_is_asked_for_nothing_that_it_cannot_do(
    store: Callable[[], Imitation],
    server: Seaweed,
    content: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No request is refused, and nothing is tried."""
    known = traits_of(store().endpoint)
    monkeypatch.setattr("sidecar.storage.s3.store.traits_of", lambda _endpoint: known)
    with imitated(store(), server, monkeypatch) as place:
        await publish_twice(place, known, content, tmp_path)
        assert place.proxy
        seen = place.proxy.seen()
    assert {str(each.status) for each in seen} <= {"200", "204", "206", "404", "412"}


async def publish_twice(place: Place, known: Traits, content: Path, tmp_path: Path) -> None:
    database = copy_of(content, tmp_path, place.imitation)
    lease = "on" if known.conditional_put else "off"
    async with sidecar.open(databases=[database], store=place.url, part_size=PART, lease=lease) as session:
        assert session._services.learner
        assert session._services.learner.known
        await session.backup()
        entry = await published(session, database, 1)
        assert bool(entry.reused) == (known.part_copy is not PartCopy.NO)
        store = session._services.catalog().store
        for _ in range(2):
            await Increments(store).publish("stream/app.db/a/1", b"segment")
        await session.restore(output=tmp_path / "restored.db")
        assert read(tmp_path / "restored.db") == read(database)


async def test_a_proxy_that_is_put_in_front_is_noticed(
    server: Seaweed, content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store could do everything yesterday; what it refuses today costs an upload, and nothing else."""
    database = copy_of(content, tmp_path, imitations.r2())
    with imitated(imitations.aws(), server, monkeypatch) as place:
        assert place.proxy
        async with sidecar.open(databases=[database], store=place.url, part_size=PART) as session:
            await session.backup()
            assert (await published(session, database, 1)).reused
            place.proxy.imitation = imitations.r2()
            assert not (await published(session, database, 2)).reused
            assert (await published(session, database, 3)).reused
            (await session.verify()).require_good()
            traits = session._services.store.traits
    assert (traits.part_copy, traits.equal_parts) == (PartCopy.UNCONDITIONAL, True)


async def test_a_lease_is_refused_by_name_before_anything_is_written(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A known store without conditional writes is not even asked."""
    with imitated(imitations.b2(), server, monkeypatch) as place:
        monkeypatch.setattr("sidecar.storage.s3.store.traits_of", lambda _: traits_of(imitations.b2().endpoint))
        async with sidecar.open(databases=["app.db"], store=place.url) as session:
            with pytest.raises(StoreUnsuitable, match="Backblaze B2"):
                await session._services.fence().acquire(timedelta(0))
        assert place.proxy
        assert place.proxy.seen() == []


@pytest.fixture
async def r2(server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[S3Store]:
    """A store that knows neither conditions on a copy's source nor on anything about tags."""
    with imitated(imitations.r2(), server, monkeypatch) as place:
        async with opened(place) as store:
            yield store


@pytest.mark.parametrize("store", [imitations.b2, imitations.garage, imitations.aws], ids=lambda each: each.__name__)
async def test_an_upload_never_replaces_an_object(
    store: Callable[[], Imitation], server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the store refuses the condition, ignores it, which is known once it was tried, or obeys it."""
    with imitated(store(), server, monkeypatch) as place:
        async with opened(place) as s3:
            await S3Learner(s3, "").probe()
            await s3.put("object", b"there before")
            with pytest.raises(PreconditionFailed):
                async with s3.upload("object", metadata={}) as upload:
                    await upload.put_part(1, 0, b"another")
                    await upload.complete()
            assert bytes((await s3.get("object")).data) == b"there before"


@pytest.mark.parametrize("when", ["before", "while it is copied"])
async def test_a_source_that_is_replaced_is_never_part_of_an_object(r2: S3Store, when: str) -> None:
    """The store does not compare the source's ETag, so it is looked up before the first copy and after the last one."""
    source = await r2.put("source", bytes(PART + 1))
    with pytest.raises(PreconditionFailed if when == "before" else ReuseFailed):
        async with r2.upload("object", metadata={}) as upload:
            if when == "before":
                await r2.put("source", bytes(PART + 2))
            await upload.copy_part(1, 0, source, Span(0, PART))
            await r2.put("source", bytes(PART + 2))
            await upload.put_part(2, PART, b"the end")
            await upload.complete()
    assert [info.key for info in (await r2.list("")).objects] == ["source"]


async def test_a_source_that_is_gone_is_never_part_of_an_object(r2: S3Store) -> None:
    source = replace(await r2.put("source", bytes(PART + 1)), key="gone")
    with pytest.raises(NotFound):
        async with r2.upload("object", metadata={}) as upload:
            await upload.copy_part(1, 0, source, Span(0, PART))
    assert r2.traits.part_copy is PartCopy.CONDITIONAL, "nothing was asked of the store"


async def test_a_copy_that_is_answered_like_an_upload_is_not_believed(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The store has taken the empty body for the part: completed, the object would lack those bytes."""
    with imitated(imitations.gcs(), server, monkeypatch) as place:
        async with opened(place) as store:
            source = await store.put("source", bytes(PART + 1))
            async with store.upload("object", metadata={}) as upload:
                for _ in range(2):
                    with pytest.raises(ConfigurationError):
                        await upload.copy_part(1, 0, source, Span(0, PART))
            assert store.traits.part_copy is PartCopy.NO


async def test_part_numbers_beyond_the_stores_limit_are_learned(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    with imitated(imitations.scaleway(), server, monkeypatch) as place:
        async with opened(place) as store:
            async with store.upload("object", metadata={}) as upload:
                for number in (1005, 2003):
                    with pytest.raises(ConfigurationError):
                        await upload.put_part(number, 0, b"x")
            assert store.traits.maximum_parts == 1000


async def test_a_store_with_few_parts_takes_a_database_in_larger_ones(
    server: Seaweed, content: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = replace(traits_of(imitations.scaleway().endpoint), maximum_parts=4)
    monkeypatch.setattr("sidecar.storage.s3.store.traits_of", lambda _endpoint: few)
    with imitated(imitations.scaleway(4), server, monkeypatch) as place:
        async with sidecar.open(databases=[content], store=place.url, part_size=PART) as session:
            await session.backup()
            (await session.verify()).require_good()


async def test_conditions_are_evaluated_before_the_write_where_the_store_has_none(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For objects that nobody else writes. What is not met is refused, and the lease still sees that there are none."""
    with imitated(imitations.b2(), server, monkeypatch) as place:
        async with opened(place) as plain:
            store = LookedUp(plain)
            first = await store.put("key", b"1", condition=IfAbsent(), metadata={"a": "b"}, tags={"c": "d"})
            with pytest.raises(PreconditionFailed):
                await store.put("key", b"2", condition=IfAbsent())
            await store.put("key", b"3", condition=IfMatch(first.etag))
            for key in ("key", "missing"):
                with pytest.raises(PreconditionFailed):
                    await store.put(key, b"4", condition=IfMatch(first.etag))
            assert bytes((await store.get("key")).data) == b"3"
            with pytest.raises(ConfigurationError):
                await plain.put("another", b"5", condition=IfAbsent())
            assert not store.traits.conditional_put


LISTED = (
    "<Contents><Key>{0}</Key><Size>1</Size><ETag>x</ETag><LastModified>2026-11-20T14:55:03Z</LastModified></Contents>"
)


@pytest.mark.parametrize("keys", [("b", "a"), ("a", "a"), ("a", "other")])
async def test_a_listing_out_of_order_is_not_believed(
    server: Seaweed, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, str]
) -> None:
    """What is newest, and whether there is anything, would be guessed."""
    with imitated(imitations.aws(), server, monkeypatch) as place:
        assert place.proxy
        prefix = place.location.prefix
        found = "".join(LISTED.format(f"{prefix}/folder/{key}" if key != "other" else f"{prefix}/z") for key in keys)
        reply = Answer(200, f"<ListBucketResult><Name>{BUCKET}</Name><KeyCount>2</KeyCount>{found}</ListBucketResult>")
        async with opened(place) as store:
            await store.now()
            place.proxy.rule(reply, query_contains="list-type=2")
            with pytest.raises(StoreUnsuitable, match="out of order"):
                await store.list("folder/")
            assert not store.traits.ordered


async def test_without_a_date_nothing_is_dated(server: Seaweed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither this machine's clock nor a time long ago takes the place of the store's clock."""
    with imitated(imitations.aws(), server, monkeypatch) as place:
        assert place.proxy
        async with opened(place) as seen, opened(place) as never:
            before = await seen.now()
            rule = place.proxy.rule(StripReply(("date",)))
            for store in (seen, never):
                monkeypatch.setattr("sidecar.storage.s3.client.LONGEST_WITHOUT_DATE", -1.0)
                with pytest.raises(StoreUnsuitable, match="Date") as refusal:
                    await store.now()
                assert refusal.value.exit_code == ExitCode.CONFIGURATION
            place.proxy.remove(rule)
            assert await seen.now() >= before - A_SECOND
            place.proxy.rule(s3_error(503, "SlowDown"))
            assert await seen.now() >= before - A_SECOND, "a store that does not answer has kept its time"


def check(place: Place, folder: Path, *options: str, **variables: str) -> tuple[int, str]:
    """`sidecar check` as a person runs it: its exit code, and what it prints."""
    environment = clean_environment(folder) | place.variables | variables
    arguments = ["--database", str(folder / "app.db"), "--store", place.url, "--listen", "off", *options]
    done = run_cli("check", *arguments, env=environment, cwd=folder, timeout=120)
    return done.returncode, done.stdout + done.stderr


def test_check_says_what_the_store_cannot_do_and_what_is_done_instead(
    server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of it is tried, and the table has what was found out."""
    with imitated(imitations.r2(), server, monkeypatch) as place:
        code, text = check(place, tmp_path, "--qualify")
        assert code == 0, text
        assert "ok      traits: an unknown S3 store, tried just now: no conditional copies (" in text
        assert "warning tag: an unknown S3 store has no object tags" in text
        rows = [line.split("  ") for line in text[text.index("ABILITY") :].splitlines()]
        works = {row[0]: next(cell.strip() for cell in row[1:] if cell) for row in rows if len(row) > 1}
        assert works["conditional writes"] == works["copied parts"] == works["10,000 parts"] == "yes"
        assert works["conditional copies"] == works["parts of different sizes"] == works["object tags"] == "no"
        assert "what a month costs is not known: there is neither a restore point nor a database" in text


def test_check_refuses_a_store_without_conditional_writes_only_for_the_lease(
    server: Seaweed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found by its refusal; with lease=off that is a warning, and everything else is still tried."""
    with imitated(imitations.b2(), server, monkeypatch) as place:
        code, text = check(place, tmp_path)
        assert code == ExitCode.CONFIGURATION
        assert "FAILED  conditional write" in text
        assert "lease_store" in text
        code, text = check(place, tmp_path, "--lease", "off")
        assert code == 0, text
        assert "warning conditional write: If-None-Match and If-Match are not obeyed" in text
        assert "ok      no deletes: refused" in text
