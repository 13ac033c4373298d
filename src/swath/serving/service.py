"""Everything that a server holds while it runs."""

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
    """One archive, its model, and the threads that work for them.

    Args:
        path: The archive.
        model: Its model, or None for a service without search by image.
        settings: Limits.

    Attributes:
        searching, drawing, embedding: Lanes of work, see `swath.serving.workers.worker_pool`.
    """

    def __init__(self, path: str, model: Model | None, settings: ServerSettings) -> None:
        self.settings = settings
        self.handle = ArchiveHandle(path, model, settings)
        self.cache = ImageCache(settings.cache_bytes)
        self.pictures = TileRenderer(self.handle, self.cache, settings.tile_sources)
        self.images = UploadEmbedder(self.handle, settings)
        self.metrics = PrometheusMetrics()
        waiting, seconds = settings.waiting, settings.search_seconds
        self.searching = WorkerPool("search", settings.searching, waiting, seconds)
        self.drawing = WorkerPool("pictures", settings.drawing, waiting, seconds)
        self.embedding = WorkerPool("images", 1, max(1, waiting // 8), 2 * settings.upload_seconds + seconds)

    @property
    def lanes(self) -> tuple[WorkerPool, ...]:
        """All lanes."""
        return self.searching, self.drawing, self.embedding

    def metrics_text(self) -> bytes:
        """The figures of the service for Prometheus."""
        return self.metrics.text(self.lanes, self.cache, self.handle.info())

    def warm(self) -> None:
        """Get ready in the background what the first requests would wait for."""
        self.searching.begin(self.handle.info)
        if self.handle.model is not None:
            self.embedding.begin(self.images.warm)

    def close(self) -> None:
        """Finish what has begun."""
        for lane in self.lanes:
            lane.close()
