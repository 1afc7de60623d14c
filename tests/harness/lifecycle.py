"""Lifecycle rules by prefix, as R2 and Tigris have them, for a store in memory: they look at nothing but keys and ages."""

from collections.abc import Mapping
from datetime import timedelta

from tests.fakes import MemoryStore

RULES = {"expiring/recent/": 1, "expiring/hourly/": 7, "expiring/daily/": 35, "stream/": 35}  # days


def apply_rules(store: MemoryStore, rules: Mapping[str, int] = RULES) -> list[str]:
    """Delete what has expired by the store's clock. Returns the keys."""
    expired = [
        key
        for key, stored in store.objects.items()
        for prefix, days in rules.items()
        if key.startswith(prefix) and store.time - stored.info.last_modified >= timedelta(days=days)
    ]
    for key in expired:
        del store.objects[key]
        store.marks.pop(key, None)
    return expired
