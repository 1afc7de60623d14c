"""One line in the log about what streaming may cost at most, when it is first set up on a machine that pays for requests."""

from sidecar.log import log
from sidecar.status import Status, busiest
from sidecar.units import format_duration


async def log_stream_cost(status: Status) -> None:
    """Log the cost of a month in which the app never stops writing, unless it was logged by the first one who streamed here.

    Nothing is logged where nothing is streamed or paid.
    """
    if status.stream_interval is None or status.stream_cost() is None or status.lease.streamed:
        return
    log.info(
        "stream cost",
        stream_interval=format_duration(status.stream_interval),
        dollars_a_month_at_most=round(busiest(status.stream_interval.total_seconds()), 2),
        with_5s=round(busiest(5.0), 2),
        hint="PUTs at AWS's price while the app writes all the time; an idle app costs nothing. `sidecar status` shows its own cost",
    )
