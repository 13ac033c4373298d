from .archive import Archive as Archive
from .changes.detect import find_changes as find_changes
from .ingest.run import EmbedReport as EmbedReport
from .ingest.run import embed_archive as embed_archive
from .query.filters import Filter as Filter
from .query.results import SearchResult as SearchResult
from .query.results import SearchResults as SearchResults
from .table.rows import rows_from_vectors as rows_from_vectors

__all__ = [
    "Archive",
    "EmbedReport",
    "Filter",
    "SearchResult",
    "SearchResults",
    "embed_archive",
    "find_changes",
    "rows_from_vectors",
]
