"""The lifecycle rules of a real bucket, as sidecar reads them."""

import uuid
from contextlib import AsyncExitStack, closing

import pytest

from sidecar.storage.base import LifecycleRule
from sidecar.storage.s3.client import S3Location
from sidecar.storage.s3.lifecycle import S3Lifecycle
from tests.contract.conftest import open_s3
from tests.harness.proxy import FaultProxy, s3_error
from tests.harness.s3client import REGION, s3_client
from tests.harness.seaweed import ADMIN, Seaweed

pytestmark = [pytest.mark.anyio, pytest.mark.s3]

OURS = {"Key": "sidecar-tier", "Value": "recent"}


async def test_rules_are_read_from_the_bucket(seaweed: Seaweed, stack: AsyncExitStack) -> None:
    """None at first; then those about the store's prefix."""
    bucket = f"rules-{uuid.uuid4().hex[:12]}"
    seaweed.ensure()
    seaweed.s3.make_bucket(bucket)
    stack.callback(lambda: seaweed.s3.drop_bucket(bucket))
    location = S3Location(bucket, "shop", seaweed.endpoint, REGION)
    store = await open_s3(location, seaweed.environment(), stack)
    assert await S3Lifecycle(store.client).rules() == ()
    with closing(s3_client(seaweed.endpoint, *ADMIN)) as client:
        client.put_bucket_lifecycle_configuration(
            Bucket=bucket,
            LifecycleConfiguration={
                "Rules": [
                    {"ID": "tag", "Status": "Enabled", "Filter": {"Tag": OURS}, "Expiration": {"Days": 1}},
                    {
                        "ID": "prefix",
                        "Status": "Enabled",
                        "Filter": {"Prefix": "shop/app.db/"},
                        "Expiration": {"Days": 9},
                    },
                    {"ID": "other", "Status": "Enabled", "Filter": {"Prefix": "another/"}, "Expiration": {"Days": 9}},
                ]
            },
        )
    assert await S3Lifecycle(store.client).rules() == (
        LifecycleRule("tag", "", {"sidecar-tier": "recent"}, 1),
        LifecycleRule("prefix", "app.db/", {}, 9),
    )


async def test_a_server_that_knows_no_rules_is_told_from_a_bucket_without_any(
    seaweed: Seaweed, stack: AsyncExitStack
) -> None:
    """The reply is versitygw's."""
    bucket = f"rules-{uuid.uuid4().hex[:12]}"
    seaweed.ensure()
    seaweed.s3.make_bucket(bucket)
    stack.callback(lambda: seaweed.s3.drop_bucket(bucket))
    proxy = stack.enter_context(FaultProxy(seaweed.port))
    refusal = "A header you provided implies functionality that is not implemented."
    proxy.rule(s3_error(501, "NotImplemented", refusal), query_contains="lifecycle")
    location = S3Location(bucket, "shop", proxy.endpoint, REGION)
    store = await open_s3(location, seaweed.environment(endpoint=proxy.endpoint), stack)
    assert await S3Lifecycle(store.client).rules() is None
