"""`s3://bucket/prefix`: the location of a store in a bucket, and how and with which credentials it is opened."""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import ClassVar, Self
from urllib.parse import urlsplit

from sidecar.host import OWN, canonical
from sidecar.storage.access import StoreAccess
from sidecar.storage.base import Credentials, OpenStore, TokenSource

FALLBACK_REGION = "us-east-1"  # for a token service other than AWS's, which has no regions
_PORTS = {"http": 80, "https": 443}
_URL = re.compile(r"s3://([A-Za-z0-9][A-Za-z0-9._-]*)(/[^?#]*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class BucketLocation:
    """Implements `base.StoreLocation`. `prefix` has no slash at either end."""

    form: ClassVar[str] = "s3://bucket/prefix"
    billable: ClassVar[bool] = True
    uses_credentials: ClassVar[bool] = True
    refuses_wrong_clocks: ClassVar[bool] = True
    directory: ClassVar[None] = None
    bucket: str
    prefix: str

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """The location for a URL of this form, else None."""
        match = _URL.fullmatch(url)
        return cls(match[1], (match[2] or "").strip("/")) if match else None

    @property
    def container(self) -> str:
        """See `base.StoreLocation`."""
        return self.bucket

    def removal_command(self, key: str) -> str:
        """See `base.StoreLocation`."""
        return f"aws s3 rm s3://{'/'.join(filter(None, (self.bucket, self.prefix, key)))}"

    @asynccontextmanager
    async def open(self, access: StoreAccess) -> AsyncIterator[OpenStore]:
        """See `base.StoreLocation`."""
        # Imported only when needed: the SDK costs a third of a second and 40 MB.
        from sidecar.storage.s3.client import S3Location
        from sidecar.storage.s3.configuration import configured_endpoint
        from sidecar.storage.s3.learner import S3Learner
        from sidecar.storage.s3.lifecycle import S3Lifecycle
        from sidecar.storage.s3.neighbours import PrefixNeighbours
        from sidecar.storage.s3.probe import S3Probe
        from sidecar.storage.s3.pruning import S3Pruning
        from sidecar.storage.s3.store import S3Store

        credentials = _credentials(access)
        endpoint = access.endpoint or configured_endpoint()
        location = S3Location(self.bucket, self.prefix, endpoint, access.region)
        async with S3Store(
            location, connections=access.connections, credentials=credentials, keys=access.keys
        ) as store:
            yield OpenStore(
                store,
                prunable=S3Pruning(store),
                probe=S3Probe(store.client),
                lifecycle=S3Lifecycle(store.client),
                credentials=credentials,
                endpoint=server(endpoint),
                neighbours=PrefixNeighbours(store.client),
                learner=S3Learner(store, server(endpoint)),
            )


def server(endpoint: str | None) -> str:
    """An endpoint in canonical form, without user and password: see `host.endpoints`."""
    if not endpoint:
        return OWN
    parts = urlsplit(endpoint)
    default = parts.port is None or parts.port == _PORTS.get(parts.scheme)
    name = parts.hostname or ""
    host = f"[{name}]" if ":" in name else name
    return canonical(f"{parts.scheme}://{host}{'' if default else f':{parts.port}'}{parts.path.rstrip('/')}")


def _credentials(access: StoreAccess) -> Credentials | None:
    """The role's credentials, if there is a role and a token for it; None leaves the search to the SDK."""
    if not access.role_arn:
        return None
    from sidecar.storage.s3.credentials import Role, RoleCredentials
    from sidecar.storage.s3.tokens import MachineApi, TokenFile

    tokens: TokenSource
    if access.token_file:
        tokens = TokenFile(access.token_file, access.clock)
    elif access.machine_api and (access.machine_api_expected or access.machine_api.exists()):
        tokens = MachineApi(access.machine_api)
    else:
        return None
    role = Role(access.role_arn, access.session_name, access.region or FALLBACK_REGION, access.sts_endpoint)
    return RoleCredentials(role, tokens, access.clock, access.renewed)
