"""What a store can do, as a value. Nothing else in the program distinguishes stores by their kind or vendor."""

from dataclasses import dataclass
from enum import StrEnum

MIB = 1 << 20
GIB = 1 << 30


class PartCopy(StrEnum):
    """Whether a part of an upload can be copied from another object by the store (UploadPartCopy)."""

    CONDITIONAL = "conditional"  # the store compares the source's ETag itself
    UNCONDITIONAL = "unconditional"  # the source is looked up before and after instead
    NO = "no"  # everything is uploaded


@dataclass(frozen=True, slots=True)
class Traits:
    """What a store can do. The defaults are those of AWS S3, so that a store is described by its differences.

    - `conditional_put`: If-None-Match and If-Match on PUT are obeyed; without it there is no lease in this store.
    - `conditional_complete`: If-None-Match is obeyed when a multipart upload is completed.
    - `equal_parts`: all parts of an upload but the last must have one size, and the last must not be larger.
    - `minimum_part` and `maximum_part` are in bytes; the last part may be smaller. `maximum_parts` is their number.
    - `tags`: objects can have tags. `tag_rules` and `prefix_rules`: what a lifecycle rule can select objects by.
      No refused request corrects these two: they decide where restore points are (`repository.places`).
    - `checksums`: `x-amz-checksum-*` of writes is accepted.
    - `clock`: replies have a Date header.
    - `ordered`: a list is in order, and has a new object as soon as it was written.
    - `certain`: this is documented by the vendor or was tried; otherwise it is assumed until it is.
    """

    store: str
    conditional_put: bool = True
    conditional_complete: bool = True
    part_copy: PartCopy = PartCopy.CONDITIONAL
    equal_parts: bool = False
    minimum_part: int = 5 * MIB
    maximum_parts: int = 10_000
    maximum_part: int = 5 * GIB
    tags: bool = True
    tag_rules: bool = True
    prefix_rules: bool = True
    checksums: bool = True
    clock: bool = True
    ordered: bool = True
    certain: bool = True


DIRECTORY = Traits("a directory", minimum_part=1, tag_rules=False, prefix_rules=False)
