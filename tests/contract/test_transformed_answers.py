"""Answers that a proxy has transformed on the way: read as they were written, or reported as what they are."""

import pytest

from sidecar.errors import ConfigurationError, StoreUnavailable
from sidecar.lease.document import read_lease, write_lease
from sidecar.lease.record import KEY as LEASE
from sidecar.lease.record import Record
from sidecar.model import IfAbsent, IfMatch, Span
from sidecar.storage.s3.replies import strong
from sidecar.storage.s3.store import S3Store
from tests.contract.requests import DATA, KEY, failure
from tests.harness.proxy import Answer, Compress, FaultProxy
from tests.harness.seaweed import Seaweed

pytestmark = [pytest.mark.anyio, pytest.mark.s3]

RECORD = Record(7, "machine", "boot", 120.0)


async def test_compressed_answers_are_read_as_they_were_written(through: S3Store, proxy: FaultProxy) -> None:
    """Whole objects, ranges, listings and errors; and conditions hold, although the proxy weakens the ETag."""
    proxy.rule(Compress())
    blob = await through.get(KEY)
    assert (bytes(blob.data), blob.info.size) == (DATA, len(DATA))
    room = bytearray(100)
    part = await through.get(KEY, span=Span(5, 105), if_match=blob.info.etag, into=memoryview(room))
    assert (bytes(part.data), bytes(room), part.info.size) == (DATA[5:105], DATA[5:105], len(DATA))
    assert bytes((await through.get(KEY, span=Span(-3))).data) == DATA[-3:]
    assert [each.key for each in (await through.list("")).objects] == [KEY]
    assert (await through.head(KEY)).size == len(DATA)
    await through.put(KEY, b"newer", condition=IfMatch(blob.info.etag))
    assert bytes((await through.get(KEY)).data) == b"newer"


async def test_a_lease_is_read_and_renewed_through_a_proxy_that_compresses(through: S3Store, proxy: FaultProxy) -> None:
    await write_lease(through, RECORD, IfAbsent())
    proxy.rule(Compress())
    seen = await read_lease(through)
    assert seen
    assert seen.record == RECORD
    await write_lease(through, RECORD, IfMatch(seen.etag))


async def test_an_encoding_that_we_cannot_undo_is_told_as_that(through: S3Store, proxy: FaultProxy) -> None:
    """Never damaged: nobody is told to remove a sound object, and no older restore point is taken instead."""
    proxy.rule(Compress("unheard-of"), method="GET")
    for key in (KEY, LEASE):
        await through.put(key, DATA)
        error = await failure(through.get(key))
        assert type(error) is ConfigurationError
        assert "a proxy" in error.message
        assert "unheard-of" in error.message


async def test_a_lease_whose_content_was_changed_on_the_way_is_read_from_its_metadata(
    seaweed: Seaweed, through: S3Store, bucket: str
) -> None:
    """A proxy that changes the content without a word leaves the metadata."""
    seaweed.s3.put(bucket, LEASE, b"<html>" + RECORD.to_bytes(), Metadata=RECORD.to_metadata())
    seen = await read_lease(through)
    assert seen
    assert seen.record == RECORD


async def test_a_page_instead_of_an_object_is_no_object(through: S3Store, proxy: FaultProxy) -> None:
    """A login page that answers 200 to everything is an outage."""
    proxy.rule(Answer(200, "<html>please log in</html>", (("Content-Type", "text/html"),)))
    for request in (through.get(KEY), through.head(KEY)):
        assert type(await failure(request)) is StoreUnavailable


@pytest.mark.parametrize(
    ("given", "expected"),
    [('"a"', '"a"'), ('W/"a"', '"a"'), ('"a-gzip"', '"a"'), ('W/"a-3--gzip"', '"a-3"'), ('"a-3"', '"a-3"')],
)
def test_etags_are_the_stores_own(given: str, expected: str) -> None:
    """As nginx and Apache change them."""
    assert strong(given) == expected
