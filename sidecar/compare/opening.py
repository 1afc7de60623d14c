"""Opens a state: its header and its schema are read."""

from collections.abc import Callable
from dataclasses import dataclass

from sidecar.compare.fileformat import Header, Malformed, NotSqlite
from sidecar.compare.image import Entry, Image
from sidecar.compare.pages import State
from sidecar.compare.schema import Schema, read_schema
from sidecar.database import Driver
from sidecar.errors import DamagedDatabase


def _nothing() -> None:
    """It cannot change."""


@dataclass(frozen=True, slots=True)
class Named:
    """A state, what it is called in messages, and its root digest. `check` raises if it is not what it was when it was opened."""

    name: str
    state: State
    root: str = ""
    check: Callable[[], None] = _nothing


@dataclass(frozen=True, slots=True)
class Opened:
    """A state whose schema was read."""

    named: Named
    image: Image
    entries: tuple[Entry, ...]
    schema: Schema

    @classmethod
    def of(cls, driver: Driver, named: Named) -> "Opened":
        state = named.state
        if not state.size:
            return cls(
                named,
                Image(state, Header(4096, 4096, "utf-8", auto_vacuum=False, freelist=0)),
                (),
                read_schema(driver, ()),
            )
        state.fetch([0])
        try:
            image = Image(state, Header.parse(state.read(0, 100)), named.name)
            entries = tuple(image.schema())
        except NotSqlite:
            raise DamagedDatabase(
                f"{named.name} is not a SQLite database, or it is encrypted", "name another file"
            ) from None
        except Malformed as error:
            raise DamagedDatabase(
                f"{named.name} is damaged: {error}", "`sidecar list` shows other restore points"
            ) from error
        return cls(named, image, entries, read_schema(driver, entries))
