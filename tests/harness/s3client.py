"""A plain, synchronous S3 client, independent of the code under test, to inspect a bucket from outside."""

import contextlib
import functools
from typing import Any, Self

import botocore.session
from botocore.client import Config
from botocore.exceptions import ClientError
from botocore.handlers import add_expect_header

REGION = "us-east-1"


def s3_client(endpoint: str, access_key: str, secret_key: str, timeout: float = 10.0, *, expect: bool = False) -> Any:
    """A botocore client that ignores the environment and never retries; close it after use.

    It sends `Expect: 100-continue` only if told to: when a server replies to an empty PUT at once, botocore 1.40 takes
    the status line of a later reply on that connection for a header and waits forever.
    """
    config = Config(
        connect_timeout=timeout,
        read_timeout=timeout,
        retries={"total_max_attempts": 1, "mode": "standard"},
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        proxies={},
    )
    client = _session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        verify=False,
        config=config,
    )
    if not expect:
        client.meta.events.unregister("before-call.s3", add_expect_header)
    return client


@functools.cache
def _session() -> Any:
    """One session for all clients: it caches the description of S3, which takes long to load."""
    return botocore.session.Session(session_vars={"profile": (None, None, None, None)})


class S3Client:
    """The few operations on a bucket that tests need. `raw` is the botocore client, for everything else."""

    def __init__(self, endpoint: str, access_key: str, secret_key: str, timeout: float = 10.0) -> None:
        self.raw = s3_client(endpoint, access_key, secret_key, timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the pooled connections."""
        self.raw.close()

    def make_bucket(self, name: str) -> None:
        """Create a bucket; a name has three characters or more."""
        self.raw.create_bucket(Bucket=name)

    def drop_bucket(self, name: str) -> None:
        """Delete a bucket, if it exists, and everything in it (SeaweedFS does not require it to be empty)."""
        with contextlib.suppress(self.raw.exceptions.NoSuchBucket):
            self.raw.delete_bucket(Bucket=name)

    def keys(self, bucket: str, prefix: str = "") -> list[str]:
        """Every key under `prefix`, in the store's order."""
        pages = self.raw.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        return [entry["Key"] for page in pages for entry in page.get("Contents", [])]

    def restore_points(self, bucket: str, prefix: str = "") -> list[str]:
        """The keys of all restore points, diverged ones included."""
        return [key for key in self.keys(bucket, prefix) if key.endswith(".sqlite3.zst")]

    def get(self, bucket: str, key: str) -> bytes:
        """The whole object."""
        with contextlib.closing(self.raw.get_object(Bucket=bucket, Key=key)["Body"]) as body:
            content: bytes = body.read()
        return content

    def put(self, bucket: str, key: str, body: bytes, **options: Any) -> str:
        """Write an object and return its ETag; `options` are PutObject's own, such as IfNoneMatch."""
        etag: str = self.raw.put_object(Bucket=bucket, Key=key, Body=body, **options)["ETag"]
        return etag

    def head(self, bucket: str, key: str) -> dict[str, Any] | None:
        """HeadObject's reply (ContentLength, ETag, LastModified, Metadata …), or None if there is no such key."""
        try:
            answer: dict[str, Any] = self.raw.head_object(Bucket=bucket, Key=key)
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise
        return answer

    def delete(self, bucket: str, key: str) -> None:
        """Delete an object, if it exists."""
        self.raw.delete_object(Bucket=bucket, Key=key)

    def tags(self, bucket: str, key: str) -> dict[str, str]:
        """The tags of an object."""
        answer = self.raw.get_object_tagging(Bucket=bucket, Key=key)
        return {tag["Key"]: tag["Value"] for tag in answer["TagSet"]}

    def open_uploads(self, bucket: str) -> list[str]:
        """The keys of multipart uploads that were neither completed nor aborted."""
        answer = self.raw.list_multipart_uploads(Bucket=bucket)
        return [upload["Key"] for upload in answer.get("Uploads", [])]
