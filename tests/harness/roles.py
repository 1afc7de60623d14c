"""Roles for the test server, made from the policies that Terraform provisions.

They are read from the templates of `infra` with nothing added, so what a test proves holds for `infra`. Two things differ
from AWS: the server refers to an OIDC provider by name instead of by ARN, and calls a token's claims `oidc:sub` and
`oidc:aud`, where AWS prefixes them with the provider's host and path.
"""

import base64
import json
from typing import Any

from tests.harness.fly_machine import APP, AUDIENCE, ORGANIZATION, Issuer
from tests.harness.provisioned import fly_trust_policy, writer_policy

BUCKET = "role-store"
OTHER_APP = "blog"
_PROVIDER = "fly"
_CLAIMS = f"oidc.fly.io/{ORGANIZATION}:"


def role_arn(app: str = APP) -> str:
    """The ARN of an app's writer role."""
    return f"arn:aws:iam::000000000000:role/sidecar-writer-{app}"


def trust(app: str) -> dict[str, Any]:
    """The trust policy of an app's role, in the server's syntax."""
    text = json.dumps(fly_trust_policy(_PROVIDER, ORGANIZATION, app))
    assert text.count(f'"{_CLAIMS}') == 2, f"another condition than on aud and sub: {text}"
    translated: dict[str, Any] = json.loads(text.replace(f'"{_CLAIMS}', '"oidc:'))
    return translated


def writer(app: str) -> dict[str, Any]:
    """The permissions of an app's role."""
    return writer_policy(BUCKET, app)


def iam(issuer: Issuer, *, longest_session: str = "12h") -> dict[str, object]:
    """The server's -s3.iam.config: fly.io's issuer as the provider, and a writer role for each of two apps."""
    provider = {"issuer": issuer.url, "clientId": AUDIENCE, "jwksUri": issuer.keys_url}
    apps = (APP, OTHER_APP)
    return {
        "sts": {
            "tokenDuration": "1h",
            "maxSessionLength": longest_session,
            "issuer": "seaweedfs-sts",
            "signingKey": base64.b64encode(b"a signing key of 32 or more bytes").decode(),
        },
        "policy": {"defaultEffect": "Deny", "storeType": "memory"},
        "providers": [{"name": _PROVIDER, "type": "oidc", "enabled": True, "config": provider}],
        "policies": [{"name": f"write-{app}", "document": writer(app)} for app in apps],
        "roles": [
            {
                "roleName": f"sidecar-writer-{app}",
                "roleArn": role_arn(app),
                "trustPolicy": trust(app),
                "attachedPolicies": [f"write-{app}"],
            }
            for app in apps
        ],
    }
