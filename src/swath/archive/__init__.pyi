from .archive import Archive as Archive
from .changes.detect import find_changes as find_changes
from .changes.heatmap import write_heatmap as write_heatmap
from .exchange.geoparquet import write_geoparquet as write_geoparquet
from .ingest.embed import embed as embed
from .ingest.run import EmbedReport as EmbedReport
from .ingest.run import embed_archive as embed_archive
from .query.filters import Filter as Filter
from .query.filters import parse_datetime as parse_datetime
from .query.options import SearchOptions as SearchOptions
from .query.results import SearchResult as SearchResult
from .query.results import SearchResults as SearchResults
from .table.rows import rows_from_vectors as rows_from_vectors

__all__ = [
    "Archive",
    "EmbedReport",
    "Filter",
    "SearchOptions",
    "SearchResult",
    "SearchResults",
    "embed",
    "embed_archive",
    "find_changes",
    "parse_datetime",
    "rows_from_vectors",
    "write_geoparquet",
    "write_heatmap",
]
