"""The contract of a store: objects with conditional writes. One test suite runs against all implementations.

One file, so that whoever adds a kind of store finds everything that it may offer in one place.
"""

from collections.abc import Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable

from sidecar.model import Blob, Bytes, Condition, ObjectInfo, Page, Span, Token
from sidecar.storage.access import StoreAccess
from sidecar.storage.traits import Traits

FIRST_BYTE_TIMEOUT = 20.0  # seconds within which a store over the network must begin its reply


class Upload(Protocol):
    """An object being assembled from numbered parts; nothing is visible under its key before `complete` returns.

    Parts are numbered from 1 without gaps and may be sent in any order and concurrently. `offset` is the part's place in
    the finished object. Every part except the last has at least `Traits.minimum_part` bytes;
    with `Traits.equal_parts` they have one size, and the last is not larger.
    """

    async def put_part(self, number: int, offset: int, data: Bytes) -> None:
        """Send one part. Repeating a number replaces it."""
        ...

    async def copy_part(self, number: int, offset: int, source: ObjectInfo, span: Span) -> None:
        """Let the store copy bytes of another object as a part.

        Raises `PreconditionFailed` if the source has changed, `NotFound` if it is gone, and `ConfigurationError` if the store
        does not copy parts.
        """
        ...

    async def complete(self) -> ObjectInfo:
        """Make the object visible, only if its key does not exist yet.

        Raises `PreconditionFailed` if the key exists, and `ReuseFailed` if a source was replaced while it was copied, or if the
        store turns out to want parts of one size.
        """
        ...


class ObjectStore(Protocol):
    """A flat namespace of immutable-looking objects with conditional writes and read-after-write consistency.

    Every method may raise the `Transient` family, `AccessDenied` and `StoreMissing`, but no error of an SDK. Writes that
    were sent but got no reply raise `OutcomeUnknown`. All methods are bounded in time and can be cancelled at any point; a
    cancelled `put` may take some seconds to finish first.
    """

    @property
    def url(self) -> str:
        """The store's URL as a person writes it, without credentials: `s3://bucket/prefix` or `file:///dir`."""
        ...

    @property
    def traits(self) -> Traits:
        """What the store can do, as far as is known. A refused request may correct it at any time."""
        ...

    async def now(self) -> datetime:
        """The store's clock, in UTC."""
        ...

    async def get(
        self, key: str, *, span: Span | None = None, if_match: str | None = None, into: memoryview | None = None
    ) -> Blob:
        """Read an object, or a span of it. A span that extends past the end is shortened.

        With `into`, the bytes are written there if they fit, and `Blob.data` is a view of them.

        Raises `NotFound`, and `PreconditionFailed` if `if_match` is given and the object is another version.
        """
        ...

    async def head(self, key: str) -> ObjectInfo:
        """Describe the object under a key, with its metadata. Raises `NotFound`."""
        ...

    async def list(self, prefix: str, *, start_after: str = "", limit: int = 1000) -> Page:
        """A page of objects whose keys start with `prefix` and sort after `start_after`, by UTF-8 bytes.

        Listed objects have no metadata. The next page starts after the last key of this one.
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

        The object has the `tags` from the start, because they are in the same request; see `tag`. If the store does not
        support tags or denies writing them, the object is written without tags.

        Raises `PreconditionFailed` if the condition is not met, which includes a missing key with `IfMatch`.
        """
        ...

    def upload(self, key: str, *, metadata: Mapping[str, str]) -> AbstractAsyncContextManager[Upload]:
        """Assemble an object from parts. A block that ends without `complete` leaves nothing behind in the store."""
        ...

    async def copy(self, source: ObjectInfo, key: str, *, metadata: Mapping[str, str]) -> ObjectInfo:
        """Let the store copy a whole object to `key`, over what is there, with this metadata in place of the source's.

        What was under `key` stays until the copy is complete. The copy is as old as its own making, for rules as for
        `last_modified`. Whether it has the source's tags depends on the store.

        Raises `PreconditionFailed` if the source is another version than `source.etag` and `NotFound` if it is gone.
        """
        ...

    async def tag(self, key: str, tags: Mapping[str, str]) -> None:
        """Replace the tags of an object, at most 10. This is idempotent, and the object keeps its ETag.

        A newly written object has no tags of an earlier object with its key. Names and values consist of ASCII letters,
        digits and `+-=._:/@`, and have at most 128 and 256 characters. Raises `NotFound`, and `ConfigurationError` if the store
        does not support tags.
        """
        ...

    async def tags(self, key: str) -> dict[str, str]:
        """The tags of an object. Raises `NotFound`. On AWS this needs its own permission, s3:GetObjectTagging."""
        ...


@dataclass(frozen=True, slots=True)
class Expired:
    """An object to delete: what it was when that was decided. `tags` is None where no tags decided it."""

    key: str
    etag: str
    tags: Mapping[str, str] | None = None


@runtime_checkable
class Prunable(Protocol):
    """What only pruning may do to a store, with credentials that may delete. `ObjectStore` has no such method."""

    async def prune(self, expired: Sequence[Expired]) -> tuple[str, ...]:
        """Delete the objects that are still exactly as given, in this order as far as possible. Returns the deleted keys.

        One that has changed, has other tags or is gone is left out. Safe to repeat. Raises what a request raises; some may be
        deleted then. A store that cannot compare and delete in one request compares first.
        """
        ...


@runtime_checkable
class FileBacked(Protocol):
    """A store in a directory. Another store may appear under the same URL, for example if a mount is missing."""

    @property
    def identity(self) -> str | None:
        """The store's random name as of the last request; None before the first request or the first write."""
        ...

    @property
    def directory(self) -> Path:
        """The directory, which may not exist yet."""
        ...

    async def rehearse(self) -> None:
        """Check that the directory is writable, leaving nothing behind. Raises what a write would raise."""
        ...


class Neighbours(Protocol):
    """Finds stores beside this one with a similar name: the store's name may be mistyped."""

    async def similar(self, folder: str) -> tuple[str, ...]:
        """The URLs of stores beside this one that have a similar name and something in this folder.

        `folder` ends with a slash. At most three; none if looking for them is not possible. Raises what a LIST raises.
        """
        ...


class TokenSource(Protocol):
    """A source of web-identity tokens, which is read for every renewal; tokens are not cached."""

    @property
    def name(self) -> str:
        """The file or socket, for messages."""
        ...

    async def read(self) -> Token:
        """The current token, decoded but not verified.

        Raises `TokenUnavailable` if a token may become available later, else `ConfigurationError` or `AccessDenied`.
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
        """Ensure that there are valid credentials; awaited before each request.

        Returns when they expire, by this machine's clock. Raises `TokenUnavailable`, `AccessDenied`, `ConfigurationError`.
        """
        ...

    def forget(self) -> bool:
        """Discard credentials that the store reports as expired. Returns False, and keeps them, if they were just obtained."""
        ...

    def for_sdk(self) -> object:
        """The SDK's session that signs with these credentials. It never renews them."""
        ...


class Probe(Protocol):
    """An operation that only `sidecar check` tries, to see that it is denied."""

    async def delete(self, key: str) -> None:
        """Delete an object. With the right policy this raises `AccessDenied`."""
        ...


class Learner(Protocol):
    """Finds out what a store can do, and remembers it in the store. Every method but the last raises what requests raise."""

    @property
    def known(self) -> bool:
        """Whether the store is known by its endpoint, so that nothing need be found out."""
        ...

    async def recall(self) -> bool:
        """Believe what was remembered, with one request. False if there is nothing, or it is about another store, or old."""
        ...

    async def probe(self) -> Traits:
        """Try it, with small writes of fixed keys below `.sidecar/probe/`, and believe the result."""
        ...

    async def qualify(self) -> Traits:
        """Try all of it, also what takes uploads of 10 MiB, and believe the result."""
        ...

    async def remember(self) -> None:
        """Write what is believed to the store."""
        ...

    async def until_corrected(self) -> None:
        """Wait until a refused request shows that the store can do less. Can be called again for the next time."""
        ...


@dataclass(frozen=True, slots=True)
class LifecycleRule:
    """A rule of the bucket that deletes current objects by itself.

    It is about keys of this store that begin with `prefix`, and objects that have all of the `tags`. They are deleted after
    `days`; 0 stands for a fixed date.
    """

    name: str
    prefix: str
    tags: Mapping[str, str]
    days: int


class Lifecycle(Protocol):
    """The rules of a bucket."""

    async def rules(self) -> tuple[LifecycleRule, ...] | None:
        """The active rules that delete current objects of this store; None where the server does not know lifecycle rules.

        Raises what a request raises, `AccessDenied` above all.
        """
        ...


@dataclass(frozen=True, slots=True)
class OpenStore:
    """An open store, and what its kind offers besides `ObjectStore`.

    `credentials` is None if the SDK finds its own or none are needed. `endpoint` is the server's URL in canonical form
    without a password; it is empty for a store on this machine. `learner` is None for a store on this machine.
    """

    store: ObjectStore
    prunable: Prunable
    file_backed: FileBacked | None = None
    probe: Probe | None = None
    lifecycle: Lifecycle | None = None
    credentials: Credentials | None = None
    endpoint: str = ""
    neighbours: Neighbours | None = None
    learner: Learner | None = None


class StoreLocation(Protocol):
    """The location of a store according to its URL, and properties of its kind. No request was made to the store."""

    @property
    def billable(self) -> bool:
        """Whether requests and bytes cost money."""
        ...

    @property
    def uses_credentials(self) -> bool:
        """Whether requests are signed with the credentials from the AWS_* variables."""
        ...

    @property
    def refuses_wrong_clocks(self) -> bool:
        """Whether the store refuses requests of a machine whose clock is far off."""
        ...

    @property
    def directory(self) -> Path | None:
        """The directory of the store on this machine; None for a store over the network."""
        ...

    @property
    def container(self) -> str:
        """The bucket or directory, which is alike in all that it holds."""
        ...

    def removal_command(self, key: str) -> str:
        """The command with which a person deletes an object."""
        ...

    def open(self, access: StoreAccess) -> AbstractAsyncContextManager[OpenStore]:
        """Open the store without a request: if it is down, the first request fails. Raises `ConfigurationError`."""
        ...
