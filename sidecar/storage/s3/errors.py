"""Translates the errors of the SDK into ours."""

import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import aiohttp
from botocore import exceptions as boto

from sidecar.errors import (
    AccessDenied,
    ConfigurationError,
    NotFound,
    OutcomeUnknown,
    PreconditionFailed,
    SidecarError,
    StoreMissing,
    StoreUnavailable,
    Throttled,
    TokenUnavailable,
)
from sidecar.storage.s3.configuration import explain, unreachable_hint
from sidecar.storage.urls import without_password

# RecursionError: the SDK follows a bucket that redirects every request, even HEAD, until the stack overflows.
SDK_ERRORS = (boto.BotoCoreError, boto.ClientError, aiohttp.ClientError, OSError, ValueError, RecursionError)

_WRITES = {"put_object", "complete_multipart_upload", "create_multipart_upload", "put_object_tagging"}
_QUERY = re.compile(r"\?[^\s\"]+")
_NOT_SENT = (boto.EndpointConnectionError, boto.ConnectTimeoutError, boto.ProxyConnectionError, boto.SSLError)
_THROTTLES = {"SlowDown", "Throttling", "ThrottlingException", "RequestLimitExceeded", "TooManyRequests", "429"}
_TIMEOUTS = {"RequestTimeout", "RequestTimeoutException", "PriorRequestNotComplete", "IncompleteBody", "BadDigest"}
_STALE_TOKENS = {"ExpiredToken", "ExpiredTokenException", "InvalidIdentityToken", "TokenRefreshRequired"}
_REDIRECTS = {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException", "301"}
_UNSUPPORTED = {"NotImplemented", "MethodNotAllowed", "UnsupportedOperation"}
_UNSUPPORTED_STATUS = {405, 501}
_UNKNOWN_TO_STORE = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "AuthFailure", "NotSignedUp"}


def translate(error: BaseException, bucket: str, endpoint: str | None, operation: str, key: str) -> SidecarError:
    """Our error for an error of the SDK. The message never contains credentials."""
    where = without_password(endpoint) if endpoint else "AWS S3"
    if isinstance(error, boto.ClientError):
        return _of_reply(error.response, bucket, where, operation, key)
    if about := explain(error):
        return about
    if isinstance(error, ValueError) and not isinstance(error, OSError):
        return ConfigurationError(f"the SDK refuses the request to {where}: {error}", "check the AWS_* variables")
    if isinstance(error, RecursionError):
        return ConfigurationError(f"{where} redirects every request", "check AWS_REGION and AWS_ENDPOINT_URL_S3")
    if isinstance(error, boto.FlexibleChecksumError):
        return StoreUnavailable(f"{where} sent {key} with another checksum: {error}", "sidecar reads it again")
    words = _words(error)
    if operation in _WRITES and not _was_not_sent(error):
        return OutcomeUnknown(
            f"no reply from {where} to {operation} {key}: {words}", "sidecar looks the object up and tries again"
        )
    return StoreUnavailable(f"{where} cannot be reached: {words}", unreachable_hint(error))


def doubts_session(error: BaseException) -> bool:
    """Whether the error may mean that temporary credentials have expired, for which not all stores reply ExpiredToken."""
    code = error.response.get("Error", {}).get("Code") if isinstance(error, boto.ClientError) else None
    return code in _STALE_TOKENS or code in {"InvalidAccessKeyId", "InvalidToken"}


def is_unsupported(error: SidecarError) -> bool:
    """Whether the store refused a request because it does not support the operation, or one of its headers."""
    cause = error.__cause__
    if not isinstance(cause, boto.ClientError):
        return False
    code, status = cause.response.get("Error", {}).get("Code"), _status_of(cause)
    return status in _UNSUPPORTED_STATUS or code in _UNSUPPORTED


def is_invalid(error: SidecarError) -> bool:
    """Whether the store refused a request because of what is in it, and not because a part is too small."""
    cause = error.__cause__
    if not isinstance(cause, boto.ClientError):
        return False
    return _status_of(cause) == 400 and cause.response.get("Error", {}).get("Code") != "EntityTooSmall"


def _status_of(error: Any) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))


def _was_not_sent(error: BaseException) -> bool:
    """Whether the connection was never made. aiobotocore raises EndpointConnectionError for a broken one as well."""
    cause = error.kwargs.get("error") if isinstance(error, boto.EndpointConnectionError) else None
    return isinstance(error, _NOT_SENT) and (cause is None or isinstance(cause, aiohttp.ClientConnectorError))


def _of_reply(reply: Any, bucket: str, where: str, operation: str, key: str) -> SidecarError:
    code = str(reply.get("Error", {}).get("Code", ""))
    message = str(reply.get("Error", {}).get("Message", "") or code)
    status = int(reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if status in {412, 416} or code in {"PreconditionFailed", "InvalidRange"}:  # 416: shorter than expected
        return PreconditionFailed(f"{key} is not in the expected state")
    if status == 409 or code == "ConditionalRequestConflict":
        return StoreUnavailable(f"{where} is busy with another write of {key}: {message}")
    if code in _TIMEOUTS or status in {408, 425}:
        return StoreUnavailable(f"{where} did not receive {operation} in time: {message}")
    if code in _THROTTLES or status == 429:
        return Throttled(f"{where} asks to slow down: {message}")
    if code in _STALE_TOKENS:
        return TokenUnavailable(f"{where} reports expired credentials: {message}", "new ones are fetched")
    if code in _REDIRECTS or status in {301, 307}:
        return ConfigurationError(_redirect(reply, bucket, message), "set AWS_REGION to the bucket's region")
    if code == "NoSuchUpload":
        return NotFound(f"the upload of {key} is gone")
    if code == "NoSuchBucket" or (status == 404 and (not key or operation == "head_object")):
        return StoreMissing(f"the bucket {bucket} does not exist at {where}", "create it, or correct `store`")
    if code == "NoSuchKey" or status == 404:
        return NotFound(f"{key} does not exist")
    return _denied_or_down(code, status, _with_skew(reply, code, message), bucket, where, operation)


def _denied_or_down(code: str, status: int, message: str, bucket: str, where: str, operation: str) -> SidecarError:
    if code == "RequestTimeTooSkewed":
        return AccessDenied(f"{where} refuses requests: {message}", "set the machine's clock")
    if code.startswith("KMS.") or "kms:" in message:
        return AccessDenied(
            f"{where} may not use the bucket's KMS key for {operation}: {message}",
            "grant the role kms:GenerateDataKey and kms:Decrypt on that key, in its policy and the key's",
        )
    if code in _UNKNOWN_TO_STORE:
        return AccessDenied(f"{where} does not accept the credentials: {code}: {message}", "check the AWS_* variables")
    if status in {401, 403}:
        return AccessDenied(
            f"{where} denies {operation} in bucket {bucket}: {message}", "check the policy of the key or role"
        )
    if status == 501 or code == "NotImplemented":
        return ConfigurationError(
            f"{where} does not support {operation}: {message}", "`sidecar check` shows what the store can do"
        )
    if status >= 500 or not status:
        return StoreUnavailable(f"{where} answers {operation} with {status} {code}: {message}")
    return ConfigurationError(f"{where} rejects {operation}: {code or status}: {message}", "check `store` and AWS_*")


def _redirect(reply: Any, bucket: str, message: str) -> str:
    headers = reply.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    region = headers.get("x-amz-bucket-region") or reply.get("Error", {}).get("Region")
    return f"the bucket {bucket} is in another region{f': {region}' if region else ''}: {message}"


def _with_skew(reply: Any, code: str, message: str) -> str:
    """The message; for a wrong clock, with its error according to the reply's `Date`."""
    return f"this clock {_skew(reply)}: {message}" if code == "RequestTimeTooSkewed" else message


def _skew(reply: Any) -> str:
    try:
        date = parsedate_to_datetime(reply["ResponseMetadata"]["HTTPHeaders"]["date"])
        seconds = (datetime.now(UTC) - date).total_seconds()
    except (KeyError, ValueError, TypeError):
        return "is wrong"
    return f"is {abs(seconds) / 60:.0f} minutes {'ahead' if seconds > 0 else 'behind'}"


def _words(error: BaseException) -> str:
    """The message of an error without queries: the SDK quotes whole URLs, whose queries obscure the rest."""
    text = "no answer in time" if isinstance(error, TimeoutError) else (str(error) or type(error).__name__)
    return _QUERY.sub("", text)
