"""Restore points in a store: keys, catalog, writer, reader, reuse, retention."""

from sidecar.repository.catalog import OTHERS, Catalog, format_others
from sidecar.repository.drill_tag import DRILL_TAG, Drilled, DrillOutcome, last_drill
from sidecar.repository.existence import CHECK_EVERY, ExistenceCheck, ExistenceResult
from sidecar.repository.expiry import Expiry, expiry_of
from sidecar.repository.format.index import Index
from sidecar.repository.inventory import DatabaseHistory, Entry, History, Inventory, age_of, describe, with_lines
from sidecar.repository.keys import diverged_key_of, folder_of, key_of, point_of, timestamp_of
from sidecar.repository.placed import PlacedStore
from sidecar.repository.reader import DownloadOptions, Reader, Restored
from sidecar.repository.retention import tier_of
from sidecar.repository.reuse import Parent
from sidecar.repository.taking_over import TakeOver, take_over
from sidecar.repository.writer import Published, Publisher, PublisherIdentity

__all__ = [
    "CHECK_EVERY",
    "DRILL_TAG",
    "OTHERS",
    "Catalog",
    "DatabaseHistory",
    "DownloadOptions",
    "DrillOutcome",
    "Drilled",
    "Entry",
    "ExistenceCheck",
    "ExistenceResult",
    "Expiry",
    "History",
    "Index",
    "Inventory",
    "Parent",
    "PlacedStore",
    "Published",
    "Publisher",
    "PublisherIdentity",
    "Reader",
    "Restored",
    "TakeOver",
    "age_of",
    "describe",
    "diverged_key_of",
    "expiry_of",
    "folder_of",
    "format_others",
    "key_of",
    "last_drill",
    "point_of",
    "take_over",
    "tier_of",
    "timestamp_of",
    "with_lines",
]
