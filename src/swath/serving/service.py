"""State of a running server: the archive, its model, caches and worker pools."""

from __future__ import annotations

from typing import TYPE_CHECKING

from swath.serving.http.metrics import PrometheusMetrics
from swath.serving.settings import ServerSettings
from swath.serving.workers.archive_handle import ArchiveHandle
from swath.serving.workers.image_cache import ImageCache
from swath.serving.workers.tiles import TileRenderer
from swath.serving.workers.uploads import UploadEmbedder
from swath.serving.workers.worker_pool import WorkerPool

if TYPE_CHECKING:
    from swath.models import Model


class ServerState:
    """One archive, its model, and the worker pools that serve them.

    Args:
        path: The archive.
        model: Its model, or None to serve without search by image.
        settings: Limits.
    """

    def __init__(self, path: str, model: Model | None, settings: ServerSettings) -> None:
        self.settings = settings
        self.archive = ArchiveHandle(path, model, settings)
        self.cache = ImageCache(settings.cache_bytes)
        self.tiles = TileRenderer(self.archive, self.cache, settings.max_tile_sources)
        self.uploads = UploadEmbedder(self.archive, settings)
        self.metrics = PrometheusMetrics()
        queue, seconds = settings.max_queue, settings.search_seconds
        self.search_pool = WorkerPool("search", settings.search_workers, queue, seconds)
        self.tile_pool = WorkerPool("tiles", settings.tile_workers, queue, seconds)
        self.upload_pool = WorkerPool("uploads", 1, max(1, queue // 8), 2 * settings.upload_seconds + seconds)

    @property
    def pools(self) -> tuple[WorkerPool, ...]:
        """All worker pools."""
        return self.search_pool, self.tile_pool, self.upload_pool

    def metrics_text(self) -> bytes:
        """Metrics in the text format of Prometheus."""
        return self.metrics.text(self.pools, self.cache, self.archive.info())

    def warm(self) -> None:
        """Prepare in the background what the first requests need."""
        self.search_pool.submit(self.archive.info)
        if self.archive.model is not None:
            self.upload_pool.submit(self.uploads.warm)

    def close(self) -> None:
        """Finish the requests that are running."""
        for pool in self.pools:
            pool.close()
