from .benchmarks.catalog import get_benchmark as get_benchmark
from .benchmarks.catalog import list_benchmarks as list_benchmarks
from .benchmarks.fetch import fetch_benchmark as fetch_benchmark
from .chip import Batch as Batch
from .chip import Chip as Chip
from .chip_opening import open_chips as open_chips
from .collation import collate as collate
from .opening import open_dataset as open_dataset
from .pairs.join import join_catalogs as join_catalogs
from .pairs.opening import open_pairs as open_pairs
from .protocol import ImageDataset as ImageDataset
from .protocol import PairedDataset as PairedDataset
from .protocol import Sample as Sample

__all__ = [
    "Batch",
    "Chip",
    "ImageDataset",
    "PairedDataset",
    "Sample",
    "collate",
    "fetch_benchmark",
    "get_benchmark",
    "join_catalogs",
    "list_benchmarks",
    "open_chips",
    "open_dataset",
    "open_pairs",
]
