"""A file that a command writes for a person."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from sidecar.errors import UsageError
from sidecar.host import local_errors


@contextmanager
def new_file(path: Path, *, force: bool = False) -> Iterator[BinaryIO]:
    """A new file, readable by its owner alone, that gets its name once it is complete. With `force` it replaces another one.

    Raises `UsageError` if the file exists, `NoRoom`, and `ConfigurationError` if it cannot be written.
    """
    part = path.with_name(f".{path.name}.part")
    with local_errors(path):
        if path.exists() and not force:
            raise UsageError(f"{path} exists", "name another file, or remove it first")
        part.unlink(missing_ok=True)
        try:
            with open(os.open(part, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "wb") as file:
                yield file
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
