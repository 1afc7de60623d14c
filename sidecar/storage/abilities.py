"""What a store can do, and what is done instead where it cannot, in words. Pure."""

from collections.abc import Iterator
from dataclasses import dataclass

from sidecar.storage.traits import MIB, PartCopy, Traits

AWS_PARTS = 10_000


@dataclass(frozen=True, slots=True)
class Ability:
    """Something that a store can do or not, and what is done `instead`; that is empty if nothing need be done."""

    name: str
    works: bool
    instead: str = ""


def abilities(traits: Traits) -> tuple[Ability, ...]:
    """Everything that differs between stores, in the order of weight."""
    return tuple(_abilities(traits))


def _abilities(traits: Traits) -> Iterator[Ability]:
    yield _ability("conditional writes", traits.conditional_put, "no lease here: set lease_store, or lease=off")
    yield _ability(
        "conditional completion", traits.conditional_complete, "the key is looked up before an upload is completed"
    )
    yield _ability("copied parts", traits.part_copy is not PartCopy.NO, "every restore point is uploaded whole")
    if traits.part_copy is not PartCopy.NO:
        conditional = traits.part_copy is PartCopy.CONDITIONAL
        yield _ability("conditional copies", conditional, "the source is looked up before and after")
        yield _ability(
            "parts of different sizes", not traits.equal_parts, "up to two parts around each copy are uploaded"
        )
    yield _ability(
        f"{AWS_PARTS:,} parts", traits.maximum_parts >= AWS_PARTS, f"parts grow: at most {traits.maximum_parts:,}"
    )
    if traits.minimum_part > 5 * MIB:
        yield Ability("parts of 5 MiB", works=False, instead=f"parts have at least {traits.minimum_part // MIB} MiB")
    yield _ability("object tags", traits.tags, "rules of the bucket cannot select restore points by tag")
    yield _ability("a clock in replies", traits.clock, "refused: the age of a lease would not be known")
    yield _ability("ordered lists", traits.ordered, "refused: what is newest would not be known")


def _ability(name: str, works: bool, instead: str) -> Ability:
    return Ability(name, works, "" if works else instead)
