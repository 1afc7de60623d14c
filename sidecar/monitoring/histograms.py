"""Histograms of the read-model as Prometheus metrics."""

from prometheus_client.core import HistogramMetricFamily

from sidecar.status.histogram import Histogram


def add_histogram(family: HistogramMetricFamily, labels: list[str], histogram: Histogram) -> None:
    """Add what was observed for these labels."""
    family.add_metric(labels, buckets=histogram.buckets(), sum_value=histogram.total)
