"""The kinds of stores; this is the only list of them. A store's URL gives its location, which opens the store.

A new kind is a folder beside `s3` and `file` with a location (`base.StoreLocation`), and one line here.
"""

from collections.abc import Callable

from sidecar.storage.base import StoreLocation
from sidecar.storage.file.location import DirectoryLocation
from sidecar.storage.s3.location import BucketLocation
from sidecar.storage.urls import without_password

# The form of the URL, for messages, and its parser. Only opening a store imports an SDK.
KINDS: dict[str, Callable[[str], StoreLocation | None]] = {
    BucketLocation.form: BucketLocation.parse,
    DirectoryLocation.form: DirectoryLocation.parse,
}


def parse_location(url: str, setting: str = "store") -> StoreLocation:
    """The location of a store. Raises a ValueError that shows the forms of a store's URL, and names the setting."""
    if location := _parsed(url):
        return location
    raise ValueError(f"{setting}: {without_password(url)!r} is neither {' nor '.join(KINDS)}")


def removal_command(url: str, key: str) -> str:
    """The command with which a person deletes an object of the store with this URL."""
    location = _parsed(url)
    return location.removal_command(key) if location else f"delete {url}/{key}"


def _parsed(url: str) -> StoreLocation | None:
    return next((location for parse in KINDS.values() if (location := parse(url))), None)
