"""How long the final backup of a database would take, by what its restore points took."""

from dataclasses import dataclass


@dataclass(slots=True)
class FinalEstimate:
    """Seconds: with everything copied, of a database of `size` bytes, and with only what has changed read in place."""

    whole: float | None = None
    size: int = 0
    in_place: float | None = None

    def took(self, seconds: float, size: int, *, in_place: bool) -> None:
        """A restore point of a database of `size` bytes would have taken so long as the last one."""
        if in_place:
            self.in_place = seconds
        else:
            self.whole, self.size = seconds, size

    def seconds(self, size: int, *, in_place: bool) -> float | None:
        """The estimate for a database of `size` bytes; None before the first restore point."""
        if in_place and self.in_place is not None:
            return self.in_place
        if self.whole is None:
            return self.in_place
        return self.whole * max(1.0, size / self.size) if self.size else self.whole
