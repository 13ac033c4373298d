"""An embedding run on a Ray cluster: Ray Data reads chips on any CPU and encodes them on few workers.

Two stages, as Ray Data likes them: tasks that read and screen (they scale with the cluster's CPUs), and
workers that hold the model and encode (each takes a GPU where the model is on one). What they send each other
are whole batches as bytes. Where neither needs a GPU, Ray makes one stage of the two. The driver alone
commits rows, in the order in which they come.

Every machine must see the imagery under the same paths, and have Swath installed.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from typing import Any

from swath.archive.ingest.encode import ChipEncoder, EncodedChips
from swath.archive.ingest.read import Collate, PendingChips
from swath.errors import ArchiveError


def ray_outcomes(
    reader: PendingChips, encoder: ChipEncoder, batch_size: int, workers: int | None
) -> Iterator[EncodedChips]:
    """Every chip of `reader`, embedded by `workers` (None: one) on the Ray cluster that is there.

    A cluster named by RAY_ADDRESS is joined; without one, Ray is started on this machine.

    Raises:
        ArchiveError: Ray is not installed.
    """
    if not len(reader):
        return
    try:
        import ray
        import ray.data
    except ImportError:
        raise ArchiveError("the engine 'ray' needs Ray: pip install '.[ray]'") from None
    if not ray.is_initialized():
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    firsts = [{"first": first} for first in range(0, len(reader), batch_size)]
    on_gpu = next(iter(_parameters(encoder)), None) is not None
    parts = ray.data.from_items(firsts, override_num_blocks=len(firsts)).map(
        _RayReader(ray.put(reader), batch_size)
    )
    done = parts.map(
        _Encoding,  # type: ignore[arg-type]  # Ray makes one of it in every worker
        fn_constructor_args=(ray.put(encoder),),
        concurrency=workers or 1,
        num_cpus=1,
        num_gpus=1 if on_gpu else 0,
    )
    for row in done.iter_rows():
        yield pickle.loads(row["outcome"])


def _parameters(encoder: ChipEncoder) -> Iterator[Any]:
    """Parameters of the model that are on a GPU."""
    parameters = getattr(encoder.model, "parameters", None)
    return (one for one in (parameters() if parameters else ()) if one.device.type == "cuda")


class _RayReader:
    """Reads the chips of one batch: {"first": position} -> {"part": bytes}."""

    def __init__(self, reader: Any, batch_size: int) -> None:
        self.reader, self.batch_size = reader, batch_size

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        import ray

        reader: PendingChips = ray.get(self.reader)
        last = min(row["first"] + self.batch_size, len(reader))
        part = Collate(reader.screen)([reader[position] for position in range(row["first"], last)])
        return {"part": pickle.dumps(part, protocol=5)}


class _Encoding:
    """Holds the model: {"part": bytes} -> {"outcome": bytes}."""

    def __init__(self, encoder: Any) -> None:
        import ray

        self.encoder: ChipEncoder = ray.get(encoder)

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        return {"outcome": pickle.dumps(self.encoder(pickle.loads(row["part"])), protocol=5)}
