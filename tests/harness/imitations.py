"""What stores other than AWS S3 refuse, ignore or want otherwise, imitated in front of the S3 server of the tests.

Each store's rules name their source. Where a source says that something is not supported and not what the reply is, the
reply is the most misleading one that is known of such servers. Headers that a store ignores are signed, so the server must
accept requests without a signature (`Seaweed(open_to_all=True)`).
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from urllib.parse import parse_qs

from tests.harness.exchange import Seen
from tests.harness.faults import Answer, Fault, Pass, Strip, s3_error

NOT_IMPLEMENTED = s3_error(501, "NotImplemented", "A header you provided implies functionality that is not implemented")


@dataclass(frozen=True, slots=True)
class Request:
    """A request as the rules see it."""

    method: str
    query: dict[str, list[str]]
    headers: dict[str, str]

    @property
    def kind(self) -> str:
        """The operation, by the SDK's name."""
        upload, part = "uploadId" in self.query, "partNumber" in self.query
        copied = "x-amz-copy-source" in self.headers
        match self.method:
            case "PUT" if part:
                return "upload_part_copy" if copied else "upload_part"
            case "PUT" | "GET" if "tagging" in self.query:
                return "tagging"
            case "PUT" if not self.query.keys() - {"x-id"}:
                return "put_object"
            case "POST" if upload:
                return "complete_multipart_upload"
            case "DELETE" if not upload:
                return "delete_object"
        return self.method

    @property
    def size(self) -> int:
        """The bytes of the part that it sends or has copied."""
        if span := self.headers.get("x-amz-copy-source-range"):
            first, _, last = span.removeprefix("bytes=").partition("-")
            return int(last) - int(first) + 1
        return int(self.headers.get("content-length", 0))


Rule = Callable[[Request], Fault | None]


def refuse(kind: str, reply: Answer = NOT_IMPLEMENTED, *, header: str = "") -> Rule:
    """Refuse requests of this kind, or only those that have the header."""
    return lambda request: reply if request.kind == kind and (not header or header in request.headers) else None


def ignore(kind: str, header: str) -> Rule:
    """Carry out requests of this kind as if they did not have the header."""
    fault = Strip((header, "authorization"))
    return lambda request: fault if request.kind == kind and header in request.headers else None


@dataclass
class EqualParts:
    """Refuse to complete an upload whose parts differ in size, except that the last may be smaller."""

    sizes: dict[str, dict[int, int]] = field(default_factory=lambda: defaultdict(dict))

    def __call__(self, request: Request) -> Fault | None:
        """See `Rule`."""
        upload = request.query.get("uploadId", [""])[0]
        if request.kind in {"upload_part", "upload_part_copy"}:
            self.sizes[upload][int(request.query["partNumber"][0])] = request.size
        if request.kind != "complete_multipart_upload":
            return None
        *others, last = (size for _, size in sorted(self.sizes[upload].items()))
        if len(set(others)) <= 1 and last <= max(others, default=last):
            return None
        return s3_error(400, "InvalidPart", "All non-trailing parts must have the same length.")


def few_parts(most: int) -> Rule:
    """Refuse part numbers beyond this one."""
    reply = s3_error(400, "InvalidArgument", f"Part number must be an integer between 1 and {most}, inclusive")
    return lambda request: reply if int(request.query.get("partNumber", ["0"])[0]) > most else None


@dataclass(frozen=True, slots=True)
class Imitation:
    """A store's rules: the first one that has a fault for a request applies."""

    name: str
    endpoint: str
    rules: tuple[Rule, ...] = ()

    def fault(self, seen: Seen) -> Fault:
        """What the store does with a request."""
        request = Request(seen.method, parse_qs(seen.query, keep_blank_values=True), seen.headers)
        return next((fault for rule in (*_NO_DELETES, *self.rules) if (fault := rule(request))), Pass())


# Of every store: the key of a daemon may not delete.
_NO_DELETES: tuple[Rule, ...] = (refuse("delete_object", s3_error(403, "AccessDenied")),)


def aws() -> Imitation:
    """AWS S3: nothing is missing."""
    return Imitation("AWS S3", "https://s3.eu-central-1.amazonaws.com")


def r2() -> Imitation:
    """Cloudflare R2. Headers and operations: https://developers.cloudflare.com/r2/api/s3/api/

    Part sizes, checked when an upload is completed: https://github.com/cloudflare/cloudflare-docs/pull/9549
    """
    return Imitation(
        "Cloudflare R2",
        "https://0123456789abcdef.r2.cloudflarestorage.com",
        (
            refuse("put_object", header="x-amz-tagging"),
            refuse("tagging"),
            refuse("upload_part_copy", header="x-amz-copy-source-if-match"),
            EqualParts(),
        ),
    )


def tigris() -> Imitation:
    """Tigris: object tags work, only lifecycle rules by tag do not: https://www.tigrisdata.com/docs/api/s3/"""
    return Imitation("Tigris", "https://fly.storage.tigris.dev")


def scaleway(parts: int = 1000) -> Imitation:
    """Scaleway: https://www.scaleway.com/en/docs/object-storage/api-cli/multipart-uploads/

    A test that is to be short asks for fewer parts.
    """
    return Imitation("Scaleway", "https://s3.fr-par.scw.cloud", (few_parts(parts),))


def gcs() -> Imitation:
    """Google Cloud Storage. Conditions are generations: https://cloud.google.com/storage/docs/request-preconditions

    No copied parts (https://issuetracker.google.com/issues/323465186): the empty body is taken for the part, as in
    https://github.com/afreidah/s3-orchestrator/issues/1370
    """
    return Imitation(
        "Google Cloud Storage",
        "https://storage.googleapis.com",
        (
            ignore("put_object", "if-match"),
            ignore("put_object", "if-none-match"),
            ignore("complete_multipart_upload", "if-none-match"),
            ignore("upload_part_copy", "x-amz-copy-source"),
            ignore("put_object", "x-amz-tagging"),
            refuse("tagging"),
        ),
    )


def b2() -> Imitation:
    """Backblaze B2. Conditional writes: https://github.com/hashicorp/terraform/issues/37143

    Tags are rejected: https://www.backblaze.com/apidocs/s3-copy-object
    """
    unsupported = s3_error(400, "InvalidArgument", "Unsupported header 'x-amz-tagging' received for this API call.")
    return Imitation(
        "Backblaze B2",
        "https://s3.us-west-004.backblazeb2.com",
        (
            refuse("put_object", header="if-none-match"),
            refuse("put_object", header="if-match"),
            refuse("complete_multipart_upload", header="if-none-match"),
            refuse("put_object", unsupported, header="x-amz-tagging"),
            refuse("tagging"),
        ),
    )


def hetzner() -> Imitation:
    """Hetzner, by the accounts of it that are worst: a copy "depends on internal factors and may fail"
    (https://docs.hetzner.com/storage/object-storage/supported-actions/), and If-Match is ignored.
    """
    return Imitation(
        "Hetzner Object Storage",
        "https://fsn1.your-objectstorage.com",
        (ignore("put_object", "if-match"), refuse("upload_part_copy")),
    )


def garage() -> Imitation:
    """Garage 1.2: conditions of writes are unknown headers to it, and there are no tags:
    https://garagehq.deuxfleurs.fr/documentation/reference-manual/s3-compatibility/
    """
    return Imitation(
        "Garage",
        "http://garage.example.com:3900",
        (
            ignore("put_object", "if-match"),
            ignore("put_object", "if-none-match"),
            ignore("complete_multipart_upload", "if-none-match"),
            ignore("put_object", "x-amz-tagging"),
            refuse("tagging"),
        ),
    )


STORES = (aws, r2, tigris, scaleway, gcs, b2, hetzner, garage)
