"""The streams between restore points as Prometheus metrics. There are none with `stream=off`."""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from sidecar.database.wal import CutCause
from sidecar.monitoring.histograms import add_histogram
from sidecar.status import DatabaseStatus, StreamStatus

_GAUGES: Sequence[tuple[str, str, Callable[[StreamStatus, datetime], float]]] = (
    (
        "sidecar_stream_lag_seconds",
        "Age of the oldest commit that is in no segment yet",
        lambda stream, now: stream.lag_seconds(now),
    ),
    ("sidecar_wait_waiters", "Who waits now for commits to be stored", lambda stream, _now: stream.waits.waiting),
    ("sidecar_wal_frames", "Frames in the write-ahead log that is followed", lambda stream, _now: stream.wal_frames),
)
_COUNTERS: Sequence[tuple[str, str, Callable[[StreamStatus], int]]] = (
    ("sidecar_stream_commits", "Commits captured for the stream", lambda stream: stream.commits),
    ("sidecar_stream_segments", "Segments published", lambda stream: stream.segments),
    ("sidecar_stream_uploaded_bytes", "Bytes of the segments published", lambda stream: stream.uploaded),
    (
        "sidecar_stream_whole_pages_bytes",
        "Bytes that the segments published would have with whole pages instead of what changed in them",
        lambda stream: stream.whole_pages,
    ),
    (
        "sidecar_wait_failures",
        "Waits that ended without an answer that all is stored: cut, not streamed, timed out or hung up",
        lambda stream: stream.waits.failed,
    ),
)


def stream_metrics(databases: Iterable[DatabaseStatus], now: datetime) -> Iterable[Metric]:
    """The metrics of all databases whose commits are to be streamed."""
    wanted = [(each.name, each.stream) for each in databases if each.stream.is_wanted]
    if not wanted:
        return
    active = GaugeMetricFamily(
        "sidecar_stream_active",
        "1 while commits are streamed; 0 while they are not though `stream=on` asks for it",
        labels=["database"],
    )
    for name, stream in wanted:
        if stream.active or stream.setting == "on":
            active.add_metric([name], float(stream.active))
    yield active
    for metric, text, gauge in _GAUGES:
        family = GaugeMetricFamily(metric, text, labels=["database"])
        for name, stream in wanted:
            if stream.active:
                family.add_metric([name], gauge(stream, now))
        yield family
    yield _oldest(wanted)
    for metric, text, counter in _COUNTERS:
        counted = CounterMetricFamily(metric, text, labels=["database"])
        for name, stream in wanted:
            counted.add_metric([name], counter(stream))
        yield counted
    yield _cuts(wanted)
    yield _waits(wanted)


def _oldest(wanted: Sequence[tuple[str, StreamStatus]]) -> Metric:
    oldest = GaugeMetricFamily(
        "sidecar_stream_oldest_segment_timestamp_seconds",
        "When the oldest segment in the store was written, as of the last daily look",
        labels=["database"],
    )
    for name, stream in wanted:
        if stream.oldest:
            oldest.add_metric([name], stream.oldest.timestamp())
    return oldest


def _cuts(wanted: Sequence[tuple[str, StreamStatus]]) -> Metric:
    cuts = CounterMetricFamily(
        "sidecar_stream_cuts", "Streams that ended because continuity was lost, by cause", labels=["database", "cause"]
    )
    for name, stream in wanted:
        for cause in CutCause:
            cuts.add_metric([name, cause], stream.cuts[cause])
    return cuts


def _waits(wanted: Sequence[tuple[str, StreamStatus]]) -> Metric:
    seconds = HistogramMetricFamily(
        "sidecar_wait_seconds", "How long those waited who were told that all is stored", labels=["database"]
    )
    for name, stream in wanted:
        add_histogram(seconds, [name], stream.waits.seconds)
    return seconds
