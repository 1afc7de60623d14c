"""The contract of a store: objects with conditional writes. One suite of tests runs against every implementation."""

from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from sidecar.host.clock import Clock
from sidecar.model import Blob, Bytes, Condition, ObjectInfo, Page, Span, Token

FIRST_BYTE_TIMEOUT = 20.0  # seconds that a store over the network has to say anything before a request has failed


class Upload(Protocol):
    """An object being assembled from numbered parts; nothing is visible under its key until `complete` returned.

    Parts are numbered from 1 without gaps and may be sent in any order and at once. `offset` is the part's place in
    the finished object. Every part but the last has at least `ObjectStore.minimum_part` bytes.
    """

    async def put_part(self, number: int, offset: int, data: Bytes) -> None:
        """Send one part. Repeating a number replaces it."""
        ...

    async def copy_part(self, number: int, offset: int, source: ObjectInfo, span: Span) -> None:
        """Let the store copy bytes of another object as a part.

        Raises `PreconditionFailed` when the source changed and `NotFound` when it is gone.
        """
        ...

    async def complete(self) -> ObjectInfo:
        """Make the object visible, only if its key does not exist yet.

        Raises `PreconditionFailed` when the key exists.
        """
        ...


class ObjectStore(Protocol):
    """A flat namespace of immutable-looking objects with conditional writes and read-after-write consistency.

    Every method may raise the `Transient` family, `AccessDenied` and `StoreMissing`, and nothing of an SDK. Writes that
    were sent and got no reply raise `OutcomeUnknown`. All of them are bounded in time and may be cancelled
    anywhere; a cancelled `put` may take some seconds to end first.
    """

    @property
    def url(self) -> str:
        """The store as a person writes it, without credentials: `s3://bucket/prefix` or `file:///dir`."""
        ...

    @property
    def minimum_part(self) -> int:
        """The smallest allowed part, in bytes, of an upload's parts but the last."""
        ...

    @property
    def maximum_parts(self) -> int:
        """How many parts an upload may have."""
        ...

    async def now(self) -> datetime:
        """The store's clock, in UTC."""
        ...

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """Read an object, or a span of it. A span that reaches beyond the end is cut.

        With `into` the bytes are put there if they fit, and `Blob.data` is a view of them.

        Raises `NotFound`; `PreconditionFailed` when `if_match` is given and the object is another version.
        """
        ...

    async def head(self, key: str) -> ObjectInfo:
        """What the store knows of a key, with its metadata. Raises `NotFound`."""
        ...

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """One page of objects whose key starts with `prefix` and sorts after `start_after`, by UTF-8 bytes.

        Listed objects carry no metadata. The next page starts after the last key of this one.
        """
        ...

    async def put(
        self, key: str, data: Bytes, *, condition: Condition = None, metadata: Mapping[str, str] | None = None
    ) -> ObjectInfo:
        """Write a whole object at once, durably. Metadata keys are lower-case ASCII words, values are ASCII.

        Raises `PreconditionFailed` when the condition does not hold (a missing key under `IfMatch` included).
        """
        ...

    def upload(self, key: str, *, metadata: Mapping[str, str]) -> AbstractAsyncContextManager[Upload]:
        """Assemble an object from parts. Leaving the block without `complete` leaves nothing behind in the store."""
        ...

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """Replace the tags of an object, at most 10; doing it twice is doing it once. Its ETag stays.

        A newly written object has none, whatever was under its key before. Names and values are ASCII letters, digits
        and `+-=._:/@`, at most 128 and 256 of them. Raises `NotFound`, and `ConfigurationError` from a store that has
        no tags.
        """
        ...

    async def tags(self, key: str) -> dict[str, str]:
        """The tags of an object. Raises `NotFound`. On AWS this is a right of its own, s3:GetObjectTagging."""
        ...


@runtime_checkable
class Prunable(Protocol):
    """What a store without lifecycle rules of its own has beside `ObjectStore`: nobody else would expire anything."""

    async def tagged(self, prefix: str) -> dict[str, dict[str, str]]:
        """Every key that starts with `prefix` and has tags, with its tags."""
        ...

    async def prune(self, expired: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
        """Delete those of these objects whose tags are still exactly the given ones. Returns the keys of these."""
        ...


@runtime_checkable
class FileBacked(Protocol):
    """What a store has beside `ObjectStore` that another one may take the place of, under the same URL: a directory."""

    @property
    def identity(self) -> str | None:
        """Its own name, as it was when it was last asked for anything; None before that, and before anything was written to it."""
        ...

    @property
    def directory(self) -> Path:
        """Where it is, or would be."""
        ...

    async def rehearse(self) -> None:
        """See that something could be written there, and leave nothing. Raises what a write would."""
        ...


class TokenSource(Protocol):
    """Where web-identity tokens come from; read anew at every refresh, never cached by us."""

    @property
    def name(self) -> str:
        """For people: which file or socket it is."""
        ...

    async def read(self) -> Token:
        """A token as it is now, decoded but not verified.

        Raises `TokenUnavailable` when there may be one later, else `ConfigurationError` or `AccessDenied`.
        """
        ...


class Credentials(Protocol):
    """Temporary credentials of a role, renewed ahead of their end."""

    @property
    def role(self) -> str:
        """The role's ARN."""
        ...

    @property
    def tokens(self) -> TokenSource:
        """What the role is had for."""
        ...

    async def fresh(self) -> datetime:
        """See that there are credentials that the store accepts now; to be awaited before each request.

        Returns when they end, by this machine's clock. Raises `TokenUnavailable`, `AccessDenied`, `ConfigurationError`.
        """
        ...

    def forget(self) -> bool:
        """The store says that they have ended: the next `fresh` gets others. False for such that were just obtained."""
        ...

    def for_sdk(self) -> object:
        """The SDK's session that signs with them. It never renews by itself."""
        ...


class Probe(Protocol):
    """What `sidecar check` tries at a store beyond what `ObjectStore` offers."""

    async def delete(self, key: str) -> None:
        """Delete an object; with the right policy this is refused: `AccessDenied`."""
        ...


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A store that can be used, and what this kind offers beside `ObjectStore`.

    `credentials` is None where the SDK finds its own or none are needed.
    """

    store: ObjectStore
    prunable: Prunable | None = None
    file_backed: FileBacked | None = None
    probe: Probe | None = None
    credentials: Credentials | None = None


@dataclass(frozen=True, slots=True)
class StoreAccess:
    """What settings and environment say about reaching a store over a network; one on this machine needs none of it.

    `endpoint` and `sts_endpoint` None are the provider's own. `machine_api` is the socket that mints tokens; unless it
    is expected, it is used only where it exists. `renewed` is called with the end of each new session.
    """

    clock: Clock
    renewed: Callable[[datetime], None]
    endpoint: str | None = None
    region: str | None = None
    connections: int = 10
    role_arn: str | None = None
    session_name: str = "sidecar"
    sts_endpoint: str | None = None
    token_file: Path | None = None
    machine_api: Path | None = None
    machine_api_expected: bool = False


class StoreLocation(Protocol):
    """Where a store is, read from its URL, and what its kind is like. Nothing was asked of the store itself."""

    @property
    def billable(self) -> bool:
        """Whether requests and bytes are paid for."""
        ...

    @property
    def uses_credentials(self) -> bool:
        """Whether requests are signed with the credentials that the AWS_* variables lead to."""
        ...

    @property
    def refuses_wrong_clocks(self) -> bool:
        """Whether the store refuses requests from a machine whose clock is far off."""
        ...

    @property
    def directory(self) -> Path | None:
        """Where the store is in this machine's file systems; None for one over the network."""
        ...

    def removal_command(self, key: str) -> str:
        """What a person types to delete an object."""
        ...

    def open(self, access: StoreAccess) -> AbstractAsyncContextManager[OpenStore]:
        """The store, without a request yet: one that is down fails at its first. Raises `ConfigurationError`."""
        ...
