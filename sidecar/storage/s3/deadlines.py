"""How long a request may take, in seconds. The SDK limits neither a whole request nor the wait for a connection."""

DEADLINE = 30.0
SLOWEST = 64 * 1024  # bytes per second; a slower transfer is abandoned and retried
SLOWEST_COPY = 4 << 20  # bytes per second, inside the store
ABORT_DEADLINE = 3.0  # for cleanup after a cancellation, which delays a shutdown if the store does not answer


def of_request() -> float:
    """The deadline of a request without a body."""
    return DEADLINE


def of_transfer(size: int) -> float:
    """The deadline of a request that moves this many bytes between us and the store."""
    return DEADLINE + size / SLOWEST


def of_copy(size: int) -> float:
    """The deadline of a copy of this many bytes inside the store."""
    return DEADLINE + size / SLOWEST_COPY


def of_assembly() -> float:
    """The deadline of completing a multipart upload."""
    return 2 * DEADLINE
