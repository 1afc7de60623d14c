"""What credentials are allowed to do, found out without changing anything."""

from sidecar.errors import AccessDenied, NotFound, PreconditionFailed
from sidecar.model import IfMatch
from sidecar.storage import ObjectStore

KEY = ".sidecar/check"
CONTENT = b"written by sidecar check\n"
NOBODYS_ETAG = '"00000000000000000000000000000000"'


async def may_write(store: ObjectStore) -> bool:
    """Whether objects can be written: a store looks at permissions before it looks at a condition that cannot be met."""
    try:
        await store.put(KEY, CONTENT, condition=IfMatch(NOBODYS_ETAG))
    except AccessDenied:
        return False
    except (PreconditionFailed, NotFound):
        pass
    return True
