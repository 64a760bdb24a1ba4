"""What the service counts, for Prometheus. Labels come from closed sets: route templates, methods, statuses, states of jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from quality.service.jobs import BrokenStore

MEDIA_TYPE = CONTENT_TYPE_PLAIN_0_0_4
Jobs = Callable[[], Mapping[Any, int]]
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_SECONDS = (0.005, 0.02, 0.1, 0.5, 2, 10, 60)


def known_method(method: str) -> str:
    """The method, or `other`: a client may send any word."""
    return method if method in _METHODS else "other"


class Metrics:
    """The counters of one application, in a registry of their own."""

    def __init__(self, jobs: Jobs) -> None:
        """jobs: how many jobs are in each state, asked for whenever the metrics are read."""
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "winnow_requests", "Requests answered.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "winnow_request_seconds", "Seconds to the end of the answer.", ["route"], buckets=_SECONDS, registry=self._registry
        )
        self._documents = Counter("winnow_documents_scored", "Documents scored.", registry=self._registry)
        self._registry.register(_Jobs(jobs))
        ProcessCollector(registry=self._registry)  # memory, processor time, open files

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        """Counts an answer. method: as `known_method` gives it; status 0 for one that never began, counted as 499."""
        self._requests.labels(method, route, str(status or 499)).inc()
        self._seconds.labels(route).observe(seconds)

    def scored(self, documents: int) -> None:
        self._documents.inc(documents)

    def text(self) -> bytes:
        """The exposition, in MEDIA_TYPE."""
        return generate_latest(self._registry)


class _Jobs(Collector):
    def __init__(self, count: Jobs) -> None:
        self._count = count

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """The others are told also where the file of jobs cannot be read: then they are wanted most."""
        try:
            counts = self._count()
        except BrokenStore:
            yield GaugeMetricFamily("winnow_jobs_up", "Whether the file of jobs can be read.", 0)
            return
        yield GaugeMetricFamily("winnow_jobs_up", "Whether the file of jobs can be read.", 1)
        family = GaugeMetricFamily("winnow_jobs", "Jobs by state.", labels=["state"])
        for state, number in sorted(counts.items()):
            family.add_metric([state], number)
        yield family
