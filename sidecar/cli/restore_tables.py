"""`sidecar restore --table`: bring back some tables, to a new database or into the live one."""

from collections.abc import Sequence
from dataclasses import dataclass

from sidecar.api import Sidecar
from sidecar.cli.output import say
from sidecar.cli.session import attended
from sidecar.errors import ExitCode, UsageError
from sidecar.progress import progress_bar
from sidecar.settings import Configuration


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which tables of which state."""

    tables: Sequence[str]
    at: str | None
    key: str | None

    @property
    def state(self) -> str:
        """The state, as `sidecar diff` names it."""
        if self.at and self.key:
            raise UsageError("--at and --key exclude each other", "give one of them")
        return self.at or self.key or "newest"


async def restore_to_file(configuration: Configuration, *, wanted: Wanted, output: str, force: bool) -> int:
    """Write the tables to a new database. An existing file is replaced only with `force`, and kept beside the new one."""
    state = wanted.state
    async with attended(configuration) as services:
        session = Sidecar(services, progress_bar)
        restored = await session.tables(*wanted.tables, state=state).restore(output, force=force)
    if restored.kept:
        say(f"the database that was there is kept at {restored.kept}")
    say(f"{', '.join(restored.tables)} as of {restored.state} restored to {restored.path}")
    return ExitCode.OK
