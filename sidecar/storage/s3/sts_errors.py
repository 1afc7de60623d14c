"""Translates errors of a security token service into ours, with the claims of the token.

Codes: https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html, and those of SeaweedFS
(InvalidParameterValue for a token that it cannot verify).
"""

import re
from typing import Any

import aiohttp
from botocore import exceptions as boto

from sidecar.errors import AccessDenied, ConfigurationError, SidecarError, TokenUnavailable
from sidecar.model import Token
from sidecar.storage.s3.configuration import explain

SDK_ERRORS = (boto.BotoCoreError, boto.ClientError, aiohttp.ClientError, OSError, ValueError)

_JWT = re.compile(r"eyJ[\w-]+(?:\.[\w-]*)*")  # this is how base64 of '{"' begins
_STALE = {"ExpiredTokenException", "ExpiredToken"}
_UNVERIFIED = {"InvalidIdentityToken", "InvalidIdentityTokenException"}
_INVALID = {"InvalidParameterValue", "ValidationError"}
_BUSY = {"IDPCommunicationError", "IDPCommunicationErrorException", "Throttling", "ThrottlingException", "SlowDown"}


class Refused(Exception):
    """The service refuses this token. Another one, or the same one later, may be accepted; if not, raise `outcome`."""

    def __init__(self, outcome: SidecarError) -> None:
        super().__init__(str(outcome))
        self.outcome = outcome


def translate(error: BaseException, token: Token, role: str, where: str) -> Exception:
    """Our error for an error of the SDK, or `Refused`. It never shows a token, even if the service repeats it."""
    if isinstance(error, boto.ClientError):
        return _of_reply(error.response, token, role, where)
    if about := explain(error):
        return about
    words = "no answer in time" if isinstance(error, TimeoutError) else clean(str(error) or type(error).__name__)
    return TokenUnavailable(
        f"{where} cannot be reached: {words}", "check the network, AWS_REGION and AWS_ENDPOINT_URL_STS"
    )


def _of_reply(reply: Any, token: Token, role: str, where: str) -> Exception:
    code = str(reply.get("Error", {}).get("Code", ""))
    message = clean(str(reply.get("Error", {}).get("Message", "") or code or "no reason given"))
    status = int(reply.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    if code in _STALE:
        return Refused(
            TokenUnavailable(f"the token has expired: {message}; it says {token}", "the platform should renew it")
        )
    if code in _BUSY or status == 429 or status >= 500 or not status or "retrieve verification key" in message:
        return TokenUnavailable(f"{where} answers with {status} {code}: {message}", "sidecar tries again")
    if code in _UNVERIFIED or (code in _INVALID and "token" in message):
        return Refused(
            AccessDenied(
                f"{where} does not accept the token: {message}; it says {token}",
                "the account needs an OIDC provider for this issuer, with this audience",
            )
        )
    if status in {401, 403}:
        return AccessDenied(
            f"{where} denies the role {role}: {message}; the token says {token}",
            "check that the role exists and that its trust policy allows this iss, aud and sub",
        )
    if code in _INVALID:
        return ConfigurationError(f"{where} rejects the request for the role {role}: {message}", "check AWS_ROLE_ARN")
    return ConfigurationError(
        f"{where} answers with {status} {code}: {message}", "check AWS_ENDPOINT_URL_STS and AWS_REGION"
    )


def clean(text: str) -> str:
    """A text without anything that looks like a token."""
    return _JWT.sub("***", text)
