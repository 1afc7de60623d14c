"""What differs between two copies of a database although no commit wrote it: it was written past the log. Pure."""

from collections.abc import Callable

from sidecar.repository import Index


def unexplained(before: Index, now: Index, wrote: Callable[[int, int], bool]) -> list[int]:
    """The chunks that changed between two places in one stream, and that no commit in between wrote.

    `wrote` says of a chunk whether a commit after the given one did. Chunks of another size are left out, and so are copies
    without a place in the same stream.
    """
    start, end = before.position, now.position
    if start is None or end is None or start.stream != end.stream or before.page_size != now.page_size:
        return []
    return [
        chunk
        for chunk in range(min(before.chunks, now.chunks))
        if before.chunk_size(chunk) == now.chunk_size(chunk)
        and before.digest(chunk) != now.digest(chunk)
        and not wrote(chunk, start.commit)
    ]
