"""Stores with a similar name beside a store: the one that was meant when `store` is mistyped."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from sidecar.storage.file.neighbours import DirectoryNeighbours
from sidecar.storage.s3.client import S3Location
from sidecar.storage.s3.neighbours import PrefixNeighbours
from sidecar.storage.similarity import similar_names
from tests.contract.conftest import open_s3
from tests.harness.s3client import REGION
from tests.harness.seaweed import Seaweed

pytestmark = pytest.mark.anyio

OBJECT = "app.db/20261120T115503.123Z.sqlite3.zst"


@pytest.mark.parametrize(
    ("name", "names", "similar"),
    [
        ("ap", ["app", "ap", "blog"], ("app",)),
        ("stroe", ["store", "shop"], ("store",)),
        ("my-app-prod", ["my-app-prd", "my-app-staging"], ("my-app-prd",)),
        ("wiki", ["blog", "shop"], ()),
        ("", ["blog"], ()),
        ("prodution", ["production", "staging"], ("production",)),
        ("production2", ["prodution1", "production"], ("prodution1",)),
        ("pr0duction", ["production"], ("production",)),
        ("decade", ["decaed", "decad"], ("decad", "decaed")),
        ("pr-13", ["pr-1", "pr-2", "pr-3", "pr-12", "rp-13"], ("rp-13",)),
        ("pr-13", ["pr-12"], ()),
        ("app-2", ["app-1", "app", "app_10"], ()),
        ("app2", ["app1", "app"], ()),
        ("v1.10.0", ["v1.9.3"], ()),
        ("nightly-2026-11-30", ["nightly-2026-11-29"], ()),
        ("preview-3f2a9c1", ["preview-8b1d004", "preview-12"], ()),
        ("preview-3f2a9c1", ["previw-3f2a9c1"], ("previw-3f2a9c1",)),
        ("t-550e8400-e29b-41d4-a716-446655440000", ["t-550e8400-e29b-41d4-a716-446655440001"], ()),
        ("13", ["12"], ()),
    ],
)
def test_names_that_could_be_typing_errors_of_each_other(name: str, names: list[str], similar: tuple[str, ...]) -> None:
    assert similar_names(name, names) == similar


async def test_directories_beside_the_store_that_have_the_database(tmp_path: Path) -> None:
    """Neither an empty one, nor one of another database, nor a file; the store itself does not exist yet."""
    for name in ("store", "store2/other.db", "stores/app.db", "blog/app.db"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "stor").touch()
    neighbours = DirectoryNeighbours(tmp_path / "stroe")
    assert await neighbours.similar("app.db/") == ()
    (tmp_path / "store" / OBJECT).parent.mkdir()
    (tmp_path / "store" / OBJECT).touch()
    assert await neighbours.similar("app.db/") == (f"file://{tmp_path}/store",)


async def test_a_directory_that_cannot_be_listed_is_the_systems_error(tmp_path: Path) -> None:
    """The boot continues without this evidence."""
    with pytest.raises(OSError, match="No such file"):
        await DirectoryNeighbours(tmp_path / "missing" / "store").similar("app.db/")


@pytest.mark.s3
@pytest.mark.parametrize("parent", ["", "team/"])
async def test_prefixes_beside_the_store_that_have_the_database(
    seaweed: Seaweed, bucket: str, stack: AsyncExitStack, parent: str
) -> None:
    for key in (f"app/{OBJECT}", "apps/other.db/x", f"blog/{OBJECT}"):
        seaweed.s3.put(bucket, f"{parent}{key}", b"x")
    location = S3Location(bucket, f"{parent}ap", seaweed.endpoint, REGION)
    store = await open_s3(location, seaweed.environment(), stack)
    assert await PrefixNeighbours(store.client).similar("app.db/") == (f"s3://{bucket}/{parent}app",)


@pytest.mark.s3
async def test_a_whole_bucket_has_no_neighbours(seaweed: Seaweed, bucket: str, stack: AsyncExitStack) -> None:
    whole = await open_s3(S3Location(bucket, "", seaweed.endpoint, REGION), seaweed.environment(), stack)
    assert await PrefixNeighbours(whole.client).similar("app.db/") == ()
