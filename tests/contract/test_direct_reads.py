"""Whole objects are read by repeating the SDK's request: with the same result, and only where that is certain."""

from base64 import b64encode
from contextlib import AsyncExitStack
from zlib import crc32

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from sidecar.errors import NotFound, StoreMissing, StoreUnavailable, Throttled
from sidecar.storage.s3.client import S3Location
from sidecar.storage.s3.direct import _pattern_of, signature_of
from sidecar.storage.s3.store import S3Store
from tests.contract.requests import DATA, KEY, failure
from tests.harness.proxy import SLOW_DOWN, Answer, Compress, FaultProxy, TruncateReply
from tests.harness.s3client import REGION
from tests.harness.seaweed import READER, Seaweed

pytestmark = [pytest.mark.anyio, pytest.mark.s3]

ODD = [
    "a b.db/x",
    "déjà+vu/~1!'()*",
    "stream/app.db/20261120T145503.123Z-0000000001-web%201/1-1-1.zst",
    "a//b",
    "x?y=1&z#",
]
DESCRIBED = (("ETag", '"1"'), ("Last-Modified", "Fri, 20 Nov 2026 14:55:03 GMT"))


class Reads:
    """The GETs that the SDK makes."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, **_: object) -> None:
        self.count += 1


async def reads_of(store: S3Store) -> Reads:
    reads = Reads()
    (await store.client.opened()).meta.events.register("before-send.s3.GetObject", reads)
    return reads


async def taught(store: S3Store) -> Reads:
    """The store has read once through the SDK."""
    await store.get(KEY)
    return await reads_of(store)


async def test_the_sdk_is_needed_once_and_would_say_the_same(through: S3Store) -> None:
    for key in ODD:
        await through.put(key, key.encode(), metadata={"name": "value", "Other-Name": "x y"})
    reads = await taught(through)
    direct = [await through.get(key) for key in ODD]
    assert reads.count == 0
    assert [bytes(each.data) for each in direct] == [key.encode() for key in ODD]
    assert direct == [await through.get(key, if_match=each.info.etag) for key, each in zip(ODD, direct, strict=True)]
    assert reads.count == len(ODD)
    assert all(each.info.metadata for each in direct)


async def test_so_it_is_below_a_prefix(through: S3Store, seaweed: Seaweed, bucket: str, stack: AsyncExitStack) -> None:
    location = S3Location(bucket, "some prefix/déjà", seaweed.endpoint, REGION)
    store = await stack.enter_async_context(S3Store(location))
    await store.put(KEY, b"below")
    reads = await taught(store)
    assert bytes((await store.get(KEY)).data) == b"below"
    assert reads.count == 0


async def test_what_is_refused_is_asked_again_by_the_sdk(through: S3Store, proxy: FaultProxy) -> None:
    """It has to succeed once before anything is repeated again."""
    reads = await taught(through)
    proxy.rule(SLOW_DOWN, method="GET", times=1)
    assert (await through.get(KEY)).data == DATA
    assert (await through.get(KEY)).data == DATA
    assert reads.count == 1
    proxy.rule(SLOW_DOWN, method="GET", times=3)
    assert [type(await failure(through.get(KEY))) for _ in range(2)] == [Throttled, Throttled]
    assert reads.count == 3


async def test_a_missing_object_is_looked_for_once(
    through: S3Store, proxy: FaultProxy, seaweed: Seaweed, bucket: str
) -> None:
    """A missing bucket is another matter."""
    reads = await taught(through)
    assert type(await failure(through.get("missing"))) is NotFound
    assert (await through.get(KEY)).data == DATA
    assert len(proxy.seen("GET", "missing")) == 1
    assert reads.count == 0
    seaweed.s3.drop_bucket(bucket)
    assert type(await failure(through.get(KEY))) is StoreMissing
    assert reads.count == 1


async def test_what_a_proxy_changes_is_left_to_the_sdk(through: S3Store, proxy: FaultProxy) -> None:
    reads = await taught(through)
    proxy.rule(Compress(), method="GET", times=1)
    assert (await through.get(KEY)).data == DATA
    assert reads.count == 1
    proxy.rule(TruncateReply(), method="GET", times=1)
    assert type(await failure(through.get(KEY))) is StoreUnavailable


@pytest.mark.parametrize("sums", [{"crc32": "AAAAAA=="}, {"sha256": "AAAAAA=="}, {"crc32": "AAAAAA==-2"}])
async def test_a_checksum_that_is_not_that_of_the_bytes_is_left_to_the_sdk(
    through: S3Store, proxy: FaultProxy, sums: dict[str, str]
) -> None:
    reads = await taught(through)
    proxy.rule(answer(**sums), method="GET", times=1)
    assert (await through.get(KEY)).data == DATA
    assert reads.count == 1


@pytest.mark.parametrize(
    "strange", [Answer(503, "other", DESCRIBED), Answer(200, "other", (*DESCRIBED, ("Content-Encoding", "gzip")))]
)
async def test_no_object_is_taken_from_an_error_or_a_decoder(
    through: S3Store, proxy: FaultProxy, strange: Answer
) -> None:
    reads = await taught(through)
    proxy.rule(strange, method="GET", times=1)
    assert (await through.get(KEY)).data == DATA
    assert reads.count == 1


async def test_a_right_checksum_is_right(through: S3Store, proxy: FaultProxy) -> None:
    reads = await taught(through)
    right = b64encode(crc32(b"other").to_bytes(4, "big")).decode()
    proxy.rule(answer(crc32=right), method="GET", times=1)
    assert (await through.get(KEY)).data == b"other"
    assert reads.count == 0


def answer(**sums: str) -> Answer:
    return Answer(200, "other", (*DESCRIBED, *((f"x-amz-checksum-{name}", each) for name, each in sums.items())))


async def test_other_credentials_are_used_at_once(through: S3Store, proxy: FaultProxy) -> None:
    """Nothing is sent with the old ones, or with parts of both."""
    reads = await taught(through)
    credentials = (await through.client.opened())._request_signer._credentials
    credentials.access_key, credentials.secret_key = READER
    assert [(await through.get(KEY)).data for _ in range(2)] == [DATA, DATA]
    assert reads.count == 1
    assert {outcome for method, _, outcome in proxy.log if method == "GET"} == {"200"}
    credentials.token = "a token"
    before = len(proxy.log)
    await failure(through.get(KEY))
    assert reads.count == 2
    assert len(proxy.log) == before + 1


def test_the_signature_is_that_of_the_example_in_the_documentation() -> None:
    """GET Object, https://docs.aws.amazon.com/AmazonS3/latest/API/sig-v4-header-based-auth.html."""
    headers = {
        "host": "examplebucket.s3.amazonaws.com",
        "range": "bytes=0-9",
        "x-amz-content-sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "x-amz-date": "20130524T000000Z",
    }
    secret = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"
    found = signature_of("/test.txt", headers, "us-east-1", "s3", secret)
    assert found == "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"


@pytest.mark.parametrize("token", [None, "session"])
def test_a_request_is_only_repeated_if_we_would_have_signed_it_so(token: str | None) -> None:
    credentials = Credentials("key", "secret", token)

    def signed(url: str) -> AWSRequest:
        request = AWSRequest("GET", url, headers={"User-Agent": "x", "amz-sdk-request": "attempt=1"})
        S3SigV4Auth(credentials, "s3", REGION).add_auth(request)
        return request

    good = signed("https://b.example.com/p/a%20b")
    pattern = _pattern_of(good, "p/a b", credentials)
    assert pattern
    again = pattern.request("p/é", "secret")
    assert again.url == "https://b.example.com/p/%C3%A9"
    assert again.headers.get("x-amz-security-token") == token
    assert _pattern_of(AWSRequest("GET", again.url, headers=again.headers), "p/é", credentials) == pattern
    assert _pattern_of(good, "p/a", credentials) is None
    assert _pattern_of(good, "p/a b", Credentials("key", "other", token)) is None
    assert _pattern_of(good, "p/a b", Credentials("other", "secret", token)) is None
    assert _pattern_of(signed("https://b.example.com/p/a%20b?x=1"), "p/a b", credentials) is None
    for changed in ({"Authorization": "AWS key:xyz"}, {"Authorization": "AWS4-ECDSA-P256-SHA256 Credential=key"}, {}):
        other = AWSRequest("GET", good.url, headers=changed)
        assert _pattern_of(other, "p/a b", credentials) is None
