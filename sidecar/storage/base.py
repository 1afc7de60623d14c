"""The contract of a store: objects with conditional writes. One suite of tests runs against every implementation."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from sidecar.host import Clock
from sidecar.model import Blob, Bytes, Condition, ObjectInfo, Page, Span, Token

FIRST_BYTE_TIMEOUT = 20.0  # seconds within which a store over the network must begin its reply


class Upload(Protocol):
    """An object being assembled from numbered parts; nothing is visible under its key before `complete` returns.

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

    Every method may raise the `Transient` family, `AccessDenied` and `StoreMissing`, but no error of an SDK. Writes that
    were sent and got no reply raise `OutcomeUnknown`. All methods are bounded in time and may be cancelled
    anywhere; a cancelled `put` may first take some seconds to finish.
    """

    @property
    def url(self) -> str:
        """The store's URL as a person writes it, without credentials: `s3://bucket/prefix` or `file:///dir`."""
        ...

    @property
    def minimum_part(self) -> int:
        """The smallest allowed part, in bytes, of an upload's parts but the last."""
        ...

    @property
    def maximum_parts(self) -> int:
        """The largest number of parts that an upload may have."""
        ...

    async def now(self) -> datetime:
        """The store's clock, in UTC."""
        ...

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """Read an object, or a span of it. A span that reaches beyond the end is shortened.

        With `into` the bytes are written there if they fit, and `Blob.data` is a view of them.

        Raises `NotFound`; `PreconditionFailed` when `if_match` is given and the object is another version.
        """
        ...

    async def head(self, key: str) -> ObjectInfo:
        """Describe the object under a key, with its metadata. Raises `NotFound`."""
        ...

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """One page of objects whose key starts with `prefix` and sorts after `start_after`, by UTF-8 bytes.

        Listed objects carry no metadata. The next page starts after the last key of this one.
        """
        ...

    async def put(
        self,
        key: str,
        data: Bytes,
        *,
        condition: Condition = None,
        metadata: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> ObjectInfo:
        """Write a whole object durably. Metadata keys are lower-case ASCII words, values are ASCII.

        The object has the `tags` from its first moment, in the same request; see `tag`. A store that refuses tags, or these
        credentials the permission to write them, gets the object without.

        Raises `PreconditionFailed` when the condition does not hold (a missing key under `IfMatch` included).
        """
        ...

    def upload(self, key: str, *, metadata: Mapping[str, str]) -> AbstractAsyncContextManager[Upload]:
        """Assemble an object from parts. A block that ends without `complete` leaves nothing behind in the store."""
        ...

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """Replace the tags of an object, at most 10. The operation is idempotent, and the object keeps its ETag.

        A newly written object has no tags, whatever was under its key before. Names and values are ASCII letters,
        digits and `+-=._:/@`, at most 128 and 256 of them. Raises `NotFound`, and `ConfigurationError` from a store
        without tags.
        """
        ...

    async def tags(self, key: str) -> dict[str, str]:
        """The tags of an object. Raises `NotFound`. AWS has a separate permission for it, s3:GetObjectTagging."""
        ...


@runtime_checkable
class Prunable(Protocol):
    """A store without lifecycle rules of its own: objects expire only when they are pruned."""

    async def tagged(self, prefix: str) -> dict[str, dict[str, str]]:
        """All keys that start with `prefix` and have tags, with these tags."""
        ...

    async def prune(self, expired: Mapping[str, Mapping[str, str]]) -> tuple[str, ...]:
        """Delete the objects whose tags are still exactly the given ones. Returns the keys of those deleted."""
        ...

    async def remove(self, segments: Sequence[str]) -> tuple[str, ...]:
        """Delete segments of streams, which have no tags here. Other keys are left alone. Returns those deleted."""
        ...


@runtime_checkable
class FileBacked(Protocol):
    """A store in a directory, where another store may appear under the same URL, when a mount is missing for example."""

    @property
    def identity(self) -> str | None:
        """The store's own name as of the last request; None before the first request and before anything was written."""
        ...

    @property
    def directory(self) -> Path:
        """The directory, which may not exist yet."""
        ...

    async def rehearse(self) -> None:
        """Check that the directory is writable, and leave nothing behind. Raises what a write would."""
        ...


class Neighbours(Protocol):
    """A store that may find others beside it: a mistyped name is similar to the right one."""

    async def similar(self, folder: str) -> tuple[str, ...]:
        """The URLs of stores beside this one whose name is similar, and which have something in this folder.

        `folder` ends with a slash. At most three, none where the store may not look. Raises what a LIST does.
        """
        ...


class TokenSource(Protocol):
    """A source of web-identity tokens, which is read at every refresh; tokens are not cached."""

    @property
    def name(self) -> str:
        """The file or socket, for messages."""
        ...

    async def read(self) -> Token:
        """The current token, decoded but not verified.

        Raises `TokenUnavailable` when a token may become available later, else `ConfigurationError` or `AccessDenied`.
        """
        ...


class Credentials(Protocol):
    """Temporary credentials of a role, renewed before they expire."""

    @property
    def role(self) -> str:
        """The role's ARN."""
        ...

    @property
    def tokens(self) -> TokenSource:
        """The source of the tokens that are exchanged for the role."""
        ...

    async def fresh(self) -> datetime:
        """Ensure that there are valid credentials; to be awaited before each request.

        Returns when they expire, by this machine's clock. Raises `TokenUnavailable`, `AccessDenied`, `ConfigurationError`.
        """
        ...

    def forget(self) -> bool:
        """Discard credentials that the store calls expired, so that `fresh` gets new ones. False if they were just obtained."""
        ...

    def for_sdk(self) -> object:
        """The SDK's session that signs with these credentials. It never renews them by itself."""
        ...


class Probe(Protocol):
    """An operation that only `sidecar check` tries, to see it refused."""

    async def delete(self, key: str) -> None:
        """Delete an object; with the right policy this is refused: `AccessDenied`."""
        ...


@dataclass(frozen=True, slots=True)
class OpenStore:
    """A store that can be used, and what this kind offers beside `ObjectStore`.

    `credentials` is None where the SDK finds its own or none are needed. `endpoint` names the server, without a
    password and in one spelling; it is empty for a store on this machine.
    """

    store: ObjectStore
    prunable: Prunable | None = None
    file_backed: FileBacked | None = None
    probe: Probe | None = None
    credentials: Credentials | None = None
    endpoint: str = ""
    neighbours: Neighbours | None = None


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
