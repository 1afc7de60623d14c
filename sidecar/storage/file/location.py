"""`file:///directory`: the location of a store in a directory, and how it is opened."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Self

from sidecar.storage.access import StoreAccess
from sidecar.storage.base import OpenStore


@dataclass(frozen=True, slots=True)
class DirectoryLocation:
    """Implements `base.StoreLocation`. The directory may be relative to the working directory."""

    form: ClassVar[str] = "file:///directory"
    billable: ClassVar[bool] = False
    uses_credentials: ClassVar[bool] = False
    refuses_wrong_clocks: ClassVar[bool] = False
    directory: Path

    @classmethod
    def parse(cls, url: str) -> Self | None:
        """The location for a URL of this form, else None. `file://data/store` is refused as a typo of `file:///data/store`."""
        directory = url.removeprefix("file://")
        return cls(Path(directory)) if directory != url and directory.startswith(("/", "./", "../")) else None

    @property
    def container(self) -> str:
        """See `base.StoreLocation`."""
        return str(self.directory.resolve())

    def removal_command(self, key: str) -> str:
        """See `base.StoreLocation`."""
        return f"rm {self.directory}/{key}"

    @asynccontextmanager
    async def open(self, access: StoreAccess) -> AsyncIterator[OpenStore]:
        """See `base.StoreLocation`."""
        from sidecar.storage.file.neighbours import DirectoryNeighbours
        from sidecar.storage.file.store import FileStore

        directory = self.directory.resolve()
        store = FileStore(directory)
        yield OpenStore(store, prunable=store, file_backed=store, neighbours=DirectoryNeighbours(directory))
