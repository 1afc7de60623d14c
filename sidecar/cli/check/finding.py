"""The outcome of a step of `sidecar check`."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of a step: `ok`, a `warning`, or `skipped` with the reason. A step that fails raises instead."""

    text: str
    kind: str = "ok"

    def line(self, title: str) -> str:
        """The line that `check` prints."""
        return f"{self.kind:<7} {title}: {self.text}"
