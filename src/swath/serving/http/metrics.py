"""Metrics of the server for Prometheus; labels are routes, statuses and pools only, so they stay few."""

from __future__ import annotations

import time
from collections.abc import Iterable

from swath.serving.http.schemas import ArchiveInfo
from swath.serving.http.security import App, Message, Receive, Scope, Send
from swath.serving.workers.image_cache import ImageCache
from swath.serving.workers.worker_pool import WorkerPool

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class PrometheusMetrics:
    """Metrics of one server, in a registry of its own."""

    def __init__(self) -> None:
        from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        from prometheus_client.process_collector import ProcessCollector

        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.requests = Counter(
            "swath_requests", "Requests by route and status.", ("route", "status"), registry=self.registry
        )
        self.seconds = Histogram(
            "swath_request_seconds",
            "Response time in seconds.",
            ("route",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.waiting = Gauge(
            "swath_requests_waiting",
            "Requests that run or wait, by worker pool.",
            ("pool",),
            registry=self.registry,
        )
        self.cached = Gauge("swath_images_cached_bytes", "Size of the image cache.", registry=self.registry)
        self.hits = Gauge("swath_image_cache_hits", "Images served from the cache.", registry=self.registry)
        self.misses = Gauge(
            "swath_image_cache_misses", "Images that had to be rendered.", registry=self.registry
        )
        self.rows = Gauge("swath_archive_rows", "Chips in the archive.", registry=self.registry)
        self.version = Gauge("swath_archive_version", "Version of the archive.", registry=self.registry)

    def text(self, pools: Iterable[WorkerPool], cache: ImageCache, info: ArchiveInfo) -> bytes:
        """All metrics in the text format of Prometheus, with the current state of pools and cache."""
        from prometheus_client import generate_latest

        for pool in pools:
            self.waiting.labels(pool.name).set(pool.pending)
        self.cached.set(cache.size)
        self.hits.set(cache.hits)
        self.misses.set(cache.misses)
        self.rows.set(info.rows)
        self.version.set(info.version)
        return generate_latest(self.registry)


class RequestCounter:
    """ASGI middleware that counts requests by route; requests that match none are counted as "other".

    Args:
        app: The application.
        metrics: The counters.
    """

    def __init__(self, app: App, metrics: PrometheusMetrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward the request and record its status and time."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        status, start = "500", time.perf_counter()

        async def record_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, record_status)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(route, status).inc()
            self.metrics.seconds.labels(route).observe(time.perf_counter() - start)
