"""The writer's policy, as Terraform provisions it: everything the daemon needs, and nothing else.

The server enforces it (weed's policy engine, by the action of each request); what it lets pass without asking a policy
is left out here, and said so below.
"""

import uuid
from collections.abc import Iterator
from typing import Any

import botocore.session
import pytest
from botocore import UNSIGNED
from botocore.client import Config
from botocore.exceptions import ClientError

from tests.harness.fly_machine import APP
from tests.harness.provisioned import actions, writer_policy
from tests.harness.roles import BUCKET, OTHER_APP, role_arn, trust
from tests.harness.s3client import REGION
from tests.harness.token_service import TokenService

pytestmark = pytest.mark.s3

CONFIG: dict[str, Any] = {
    "retries": {"total_max_attempts": 1},
    "s3": {"addressing_style": "path"},
    "request_checksum_calculation": "when_required",
    "proxies": {},
}
HERE = f"{APP}/{uuid.uuid4().hex[:8]}"
PART = bytes(5 << 20)


@pytest.fixture(scope="module")
def writer(token_service: TokenService) -> Iterator[Any]:
    """A plain client with the session of the app's role."""
    session, endpoint = botocore.session.Session(), token_service.server.endpoint
    sts = session.create_client(
        "sts", REGION, endpoint_url=endpoint, config=Config(signature_version=UNSIGNED, retries=CONFIG["retries"])
    )
    keys = sts.assume_role_with_web_identity(
        RoleArn=role_arn(), RoleSessionName="test", WebIdentityToken=token_service.issuer.token(), DurationSeconds=3600
    )["Credentials"]
    client = session.create_client(
        "s3",
        REGION,
        endpoint_url=endpoint,
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
        config=Config(**CONFIG),
    )
    yield client
    client.close()
    sts.close()


@pytest.fixture(scope="module", autouse=True)
def _objects(token_service: TokenService) -> None:
    """An object of the app's, and one of another app's."""
    for app in (HERE, OTHER_APP):
        token_service.server.s3.put(BUCKET, f"{app}/there", PART + b"!")


def test_all_that_the_daemon_does_is_allowed(writer: Any) -> None:
    """List, read, conditional writes, an upload of parts and copies, completed and aborted, a tag."""
    at, key = {"Bucket": BUCKET}, f"{HERE}/new"
    writer.list_objects_v2(**at, Prefix=f"{HERE}/", StartAfter=f"{HERE}/a")
    writer.put_object(**at, Key=key, Body=b"1", IfNoneMatch="*")
    etag = writer.head_object(**at, Key=key)["ETag"]
    writer.put_object(**at, Key=key, Body=b"2", IfMatch=etag)
    with writer.get_object(**at, Key=key, Range="bytes=-1")["Body"] as body:
        assert body.read() == b"2"
    for complete in (True, False):
        target = {**at, "Key": f"{HERE}/upload-{complete}"}
        upload = writer.create_multipart_upload(**target)["UploadId"]
        source = {"CopySource": {**at, "Key": f"{HERE}/there"}, "CopySourceRange": f"bytes=0-{len(PART) - 1}"}
        copied = writer.upload_part_copy(**target, **source, UploadId=upload, PartNumber=1)["CopyPartResult"]["ETag"]
        sent = writer.upload_part(**target, UploadId=upload, PartNumber=2, Body=b"end")["ETag"]
        parts = [{"PartNumber": 1, "ETag": copied}, {"PartNumber": 2, "ETag": sent}]
        if complete:
            writer.complete_multipart_upload(
                **target, UploadId=upload, MultipartUpload={"Parts": parts}, IfNoneMatch="*"
            )
        else:
            writer.abort_multipart_upload(**target, UploadId=upload)
    writer.put_object_tagging(**at, Key=key, Tagging={"TagSet": [{"Key": "sidecar-tier", "Value": "recent"}]})
    writer.get_object_tagging(**at, Key=key)


OWN = {"Bucket": BUCKET, "Key": f"{HERE}/there"}
OTHERS = {"Bucket": BUCKET, "Key": f"{OTHER_APP}/there"}
BUCKET_ONLY = {"Bucket": BUCKET}
TAGGING = {"Tagging": {"TagSet": [{"Key": "a", "Value": "b"}]}}
PUBLIC = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "s3:*", "Resource": f"arn:aws:s3:::{BUCKET}/*"}],
}
EXPIRE = {"Rules": [{"ID": "all", "Status": "Enabled", "Filter": {"Prefix": ""}, "Expiration": {"Days": 1}}]}

REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("delete_object", OWN),
    ("delete_object", {**OWN, "VersionId": "null"}),
    ("delete_object", {**OWN, "Key": f"{HERE}/never-written"}),
    ("delete_object_tagging", OWN),
    ("get_object_tagging", OTHERS),
    ("put_object_acl", {**OWN, "ACL": "public-read"}),
    ("put_object_retention", {**OWN, "Retention": {"Mode": "GOVERNANCE"}}),
    ("put_object_legal_hold", {**OWN, "LegalHold": {"Status": "ON"}}),
    ("get_object", OTHERS),
    ("head_object", OTHERS),
    ("put_object", {**OTHERS, "Body": b"x"}),
    ("put_object", {**OTHERS, "Key": "at-the-top", "Body": b"x"}),
    ("put_object", {**OTHERS, "Key": f"{APP}-staging/key", "Body": b"x"}),
    ("put_object_tagging", {**OTHERS, **TAGGING}),
    ("create_multipart_upload", OTHERS),
    ("copy_object", {"Bucket": BUCKET, "Key": f"{OTHER_APP}/copy", "CopySource": OWN}),
    ("list_objects_v2", BUCKET_ONLY),
    ("list_objects_v2", {**BUCKET_ONLY, "Prefix": f"{OTHER_APP}/"}),
    ("list_objects_v2", {**BUCKET_ONLY, "Prefix": APP}),
    ("list_object_versions", {**BUCKET_ONLY, "Prefix": f"{HERE}/"}),
    ("list_multipart_uploads", BUCKET_ONLY),
    ("delete_bucket", BUCKET_ONLY),
    ("create_bucket", {"Bucket": "another-bucket"}),
    ("put_bucket_policy", {**BUCKET_ONLY, "Policy": str(PUBLIC).replace("'", '"')}),
    ("delete_bucket_policy", BUCKET_ONLY),
    ("put_bucket_lifecycle_configuration", {**BUCKET_ONLY, "LifecycleConfiguration": EXPIRE}),
    ("delete_bucket_lifecycle", BUCKET_ONLY),
    ("put_bucket_versioning", {**BUCKET_ONLY, "VersioningConfiguration": {"Status": "Suspended"}}),
    ("put_bucket_acl", {**BUCKET_ONLY, "ACL": "public-read"}),
    ("delete_bucket_encryption", BUCKET_ONLY),
]


@pytest.mark.parametrize(
    ("action", "arguments"), REFUSED, ids=[f"{action}-{n}" for n, (action, _) in enumerate(REFUSED)]
)
def test_all_else_is_refused(action: str, arguments: dict[str, Any], writer: Any, token_service: TokenService) -> None:
    """403, and what was there is still there."""
    with pytest.raises(ClientError) as caught:
        getattr(writer, action)(**arguments)
    assert caught.value.response["ResponseMetadata"]["HTTPStatusCode"] == 403, caught.value
    for app in (HERE, OTHER_APP):
        assert token_service.server.s3.head(BUCKET, f"{app}/there")


def test_deleting_many_at_once_deletes_none(writer: Any, token_service: TokenService) -> None:
    """DeleteObjects is answered with an error for each key."""
    answer = writer.delete_objects(Bucket=BUCKET, Delete={"Objects": [{"Key": OWN["Key"]}, {"Key": OTHERS["Key"]}]})
    assert [each["Code"] for each in answer["Errors"]] == ["AccessDenied"] * 2
    assert not answer.get("Deleted")
    assert token_service.server.s3.head(BUCKET, OWN["Key"])


@pytest.mark.parametrize("action", ["Delete", "Acl", "Policy", "Version", "*", "Put*"])
def test_the_policy_itself_names_no_more(action: str) -> None:
    """What the test server might not ask for is not in the document either."""
    named = actions(writer_policy(BUCKET, APP))
    assert not [one for one in named if action in one and one != "s3:PutObject"]


def test_trust_is_for_one_app_with_its_colon() -> None:
    """`acme:shop:*`: without the colon, `shop-staging` would be trusted too."""
    (statement,) = trust(APP)["Statement"]
    assert statement["Condition"]["StringLike"] == {"oidc:sub": f"acme:{APP}:*"}
    assert statement["Condition"]["StringEquals"] == {"oidc:aud": "sts.amazonaws.com"}
