"""What was found out about an unknown store, and remembered in it, so that the next start need not try again.

.sidecar/traits.json    the traits, with the endpoint that they are about: a copy of the store elsewhere is another one
"""

import json
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta
from typing import Any

from sidecar.errors import NotFound
from sidecar.storage.s3.probing import FEWEST_PARTS, most_parts, probe, takes_only_equal_parts
from sidecar.storage.s3.store import S3Store
from sidecar.storage.traits import PartCopy, Traits

KEY = ".sidecar/traits.json"
FORMAT = 1
TRUSTED_FOR = timedelta(days=30)  # a server may be updated


class S3Learner:
    """Implements `base.Learner`."""

    def __init__(self, store: S3Store, endpoint: str) -> None:
        """`endpoint` identifies the server: its URL in canonical form."""
        self._store = store
        self._endpoint = endpoint
        self._assumed = store.traits
        self.known = store.traits.certain

    async def recall(self) -> bool:
        """See `base.Learner`."""
        try:
            blob = await self._store.get(KEY)
        except NotFound:
            return False
        found = _parse(bytes(blob.data), self._endpoint, self._assumed)
        if found is None or await self._store.now() - blob.info.last_modified > TRUSTED_FOR:
            return False
        self._store.learning.adopt(found)
        return True

    async def probe(self) -> Traits:
        """See `base.Learner`."""
        found = await probe(self._store.client, self._assumed)
        self._store.learning.adopt(found)
        return self._store.traits

    async def qualify(self) -> Traits:
        """See `base.Learner`."""
        tried = await probe(self._store.client, self._assumed)
        equal, most = await takes_only_equal_parts(self._store.client), await most_parts(self._store.client)
        found = replace(tried, equal_parts=equal, maximum_parts=min(most, tried.maximum_parts))
        self._store.learning.adopt(found)
        return self._store.traits

    async def remember(self) -> None:
        """See `base.Learner`."""
        traits = {name: value for name, value in asdict(self._store.traits).items() if name in _TRIED}
        document = {
            "format": FORMAT,
            "endpoint": self._endpoint,
            "at": datetime.now(UTC).isoformat(timespec="seconds"),
            "traits": traits,
        }
        await self._store.put(KEY, json.dumps(document, indent=1).encode())

    async def until_corrected(self) -> None:
        """See `base.Learner`."""
        await self._store.learning.until_corrected()


# What requests can find out or correct. Anything else in the object was never true, and may be dangerous.
_TRIED = ("conditional_put", "conditional_complete", "part_copy", "equal_parts", "maximum_parts", "tags", "ordered")


def _parse(data: bytes, endpoint: str, assumed: Traits) -> Traits | None:
    """The traits in the object; None if it is about another endpoint, or not what this version writes."""
    try:
        document = json.loads(data)
        if document["format"] != FORMAT or document["endpoint"] != endpoint:
            return None
        known: dict[str, Any] = document["traits"]
        found = {name: known[name] for name in _TRIED}
        found["part_copy"] = PartCopy(found["part_copy"])
        if any(type(value) is not type(getattr(assumed, name)) for name, value in found.items()):
            return None
        if found["maximum_parts"] < FEWEST_PARTS:
            return None
        return replace(assumed, **found, certain=True)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
