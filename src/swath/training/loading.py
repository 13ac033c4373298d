"""Which samples make which step, and how they get here.

Step k of an epoch takes the samples k B .. (k + 1) B - 1 of the epoch's permutation, whatever the number of
ranks, workers or accumulated parts: rank r of R takes the r-th of R equal slices, and works through it in
`accumulate` parts. The rest of an epoch that does not fill a step is left out (another rest in each epoch).

Legend: B samples of a step over all ranks, N samples of the data set.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from multiprocessing import active_children
from multiprocessing.process import BaseProcess
from multiprocessing.util import Finalize
from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from swath.datasets.chip import Batch
from swath.datasets.collation import collate
from swath.datasets.protocol import ImageDataset, PairedDataset
from swath.errors import ImageryError, RecipeError
from swath.keyed_random import permutation
from swath.training.signals import ignore_in_worker

TRIES = 64  # unreadable files in a row after which a data set counts as lost (an unmounted disk)


class BatchLoader:
    """The stream of a run's batches.

    Args:
        dataset: Map-style; with `get_batch` it is asked for whole batches.
        seed: Of the order.
        batch_size: B.
        rank: Of this process.
        ranks: Number of processes.
        accumulate: Parts of a rank's share.
        workers: Loader processes; 0 loads here.
        pin: Page-locked memory, for quick copies to a GPU.

    Attributes:
        steps_per_epoch: floor(N / B).
        wait_seconds: Seconds spent waiting for data so far.

    Raises:
        RecipeError: B does not divide, or there are fewer than B samples.
    """

    def __init__(
        self,
        dataset: ImageDataset | PairedDataset,
        *,
        seed: int,
        batch_size: int,
        rank: int = 0,
        ranks: int = 1,
        accumulate: int = 1,
        workers: int = 0,
        pin: bool = False,
    ) -> None:
        if batch_size % (ranks * accumulate):
            raise RecipeError(
                f"training.batch_size: {batch_size} cannot be divided among {ranks} processes x {accumulate} "
                "accumulated parts; choose a multiple"
            )
        if len(dataset) < batch_size:
            raise RecipeError(
                f"training.batch_size: {batch_size} is more than the {len(dataset)} samples of the data; use "
                f"at most {len(dataset)}, more imagery, or smaller chips"
            )
        self.dataset = dataset
        self.steps_per_epoch = len(dataset) // batch_size
        self.wait_seconds = 0.0
        self._seed, self._size, self._rank, self._ranks = seed, batch_size, rank, ranks
        self._parts = accumulate
        self._order: tuple[int, Tensor] | None = None
        self._plan = _Plan()
        self._loader: DataLoader[Any] | None = None
        self._guarded = (
            False  # whether the loader's workers, which live as long as it does, end with this process
        )
        if workers:
            self._loader = DataLoader(
                _Fetch(dataset),
                batch_size=None,  # the plan's items are whole batches
                sampler=self._plan,
                num_workers=workers,
                persistent_workers=True,  # open files stay open from epoch to epoch
                prefetch_factor=2,
                pin_memory=pin,
                worker_init_fn=ignore_in_worker,
            )

    def epoch_of(self, step: int) -> int:
        """Epoch (from 0) of step `step` (from 1)."""
        return (step - 1) // self.steps_per_epoch

    def indices(self, step: int) -> Tensor:
        """The B samples of step `step` (from 1), of all ranks, in order."""
        epoch, k = divmod(step - 1, self.steps_per_epoch)
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, permutation(self._seed, epoch, len(self.dataset)))
        return self._order[1][k * self._size : (k + 1) * self._size]

    def parts(self, step: int) -> list[list[int]]:
        """This rank's share of step `step`, in `accumulate` parts."""
        fraction = self.indices(step).chunk(self._ranks)[self._rank]
        return [part.tolist() for part in fraction.chunk(self._parts)]

    def stream(self, first_step: int) -> Iterator[list[Batch]]:
        """The parts of step `first_step` (from 1), of the next one, and so on without end."""
        step = first_step
        while True:
            epoch = self.epoch_of(step)
            last = (epoch + 1) * self.steps_per_epoch
            # One pass of the loader an epoch: no worker is in the next epoch while another is in this one.
            items = self._items(epoch, range(step, last + 1))
            for _ in range(step, last + 1):
                began = time.perf_counter()
                batches = [next(items) for _ in range(self._parts)]
                self.wait_seconds += time.perf_counter() - began
                yield batches
            step = last + 1

    def fetch(self, epoch: int, indices: Sequence[int]) -> Batch:
        """These samples as one batch, now and here."""
        return fetch_batch(self.dataset, epoch, indices)

    def _items(self, epoch: int, steps: range) -> Iterator[Batch]:
        self.dataset.set_epoch(epoch)
        if self._loader is None:
            return (self.fetch(epoch, part) for step in steps for part in self.parts(step))
        self._plan.items = [(epoch, part) for step in steps for part in self.parts(step)]
        if self._guarded:
            return iter(self._loader)
        others = set(active_children())
        items = iter(self._loader)
        # Workers ignore SIGTERM, which is all that Python sends them when a run ends by an exception, to wait
        # for them then without end.
        Finalize(None, _kill, args=([w for w in active_children() if w not in others],), exitpriority=0)
        self._guarded = True
        return items


def default_workers(cached: bool, by_cpu_time: bool) -> int:
    """Loader processes where a recipe leaves them open: none if there is nothing to wait for."""
    if cached or by_cpu_time:
        return 0
    return max(0, min(8, len(os.sched_getaffinity(0)) - 1))


def fetch_batch(dataset: ImageDataset | PairedDataset, epoch: int, indices: Sequence[int]) -> Batch:
    """The samples `indices` of `epoch` as one batch of exactly as many.

    A sample that cannot be read is replaced by the next one of the data set that can, the same one in every
    run, and listed under ``problems``.

    Raises:
        ImageryError: `TRIES` samples in a row cannot be read.
    """
    dataset.set_epoch(epoch)
    if hasattr(dataset, "get_batch"):
        try:
            batch = dataset.get_batch(indices)
            if len(batch["index"]) == len(indices):
                return batch
        except ImageryError:
            pass  # not one sample could be read: one by one below, which replaces them
    problems = []
    samples: list[Any] = []  # all of one kind
    for index in indices:
        for step in range(TRIES):
            sample = dataset[(index + step) % len(dataset)]
            if "problem" in sample:
                problems.append(sample["problem"])
            if "image" in sample or "sensors" in sample:  # some pixels may be usable in spite of a problem
                samples.append(sample)
                break
        else:
            raise ImageryError(
                f"{TRIES} samples in a row could not be read, the last: {problems[-1][1]}. "
                "Is the disk still there?"
            )
    together: Batch = getattr(dataset, "collate", collate)(samples)  # boxes are collated in their own way
    if problems:
        together["problems"] = problems
    return together


def _kill(workers: Sequence[BaseProcess]) -> None:
    for worker in workers:
        worker.kill()


class _Plan:
    """The sampler: (epoch, indices) of each batch of the coming pass."""

    def __init__(self) -> None:
        self.items: list[tuple[int, list[int]]] = []

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)


class _Fetch(Dataset[Batch]):
    """A data set of batches; `item` is what `_Plan` gives. The epoch travels with it to the worker."""

    def __init__(self, dataset: ImageDataset | PairedDataset) -> None:
        self._dataset = dataset

    def __getitem__(self, item: tuple[int, list[int]]) -> Batch:
        return fetch_batch(self._dataset, *item)
