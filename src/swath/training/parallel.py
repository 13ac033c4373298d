"""Several processes under torchrun: who am I, wrap the objective, gather whole weights, agree on stopping.

The objectives know nothing of this. A run may be resumed on another number of processes and in another mode,
because checkpoints always hold whole tensors and the data order does not depend on the ranks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal

import torch
import torch.distributed as dist
from torch import Tensor, nn

from swath.errors import RecipeError, TrainingError


@dataclass(frozen=True)
class World:
    """This process among all: `rank` of `size`, on `device`; `control` is a CPU group for small messages."""

    rank: int
    size: int
    device: torch.device
    control: dist.ProcessGroup | None = None

    @property
    def first(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0


def choose_device(requested: Literal["auto", "cpu", "cuda"], local_rank: int = 0) -> torch.device:
    """The device of a recipe's `training.device`.

    Raises:
        RecipeError: A GPU is requested and there is none.
    """
    if requested == "cuda" and not torch.cuda.is_available():
        raise RecipeError(
            "training.device: is cuda, but PyTorch sees no GPU; see `swath doctor`, or use auto"
        )
    if requested == "cpu" or not torch.cuda.is_available():
        return torch.device("cpu")
    return torch.device("cuda", local_rank)


@contextmanager
def init_distributed(
    requested: Literal["auto", "cpu", "cuda"], timeout: timedelta = timedelta(minutes=30)
) -> Iterator[World]:
    """The world that torchrun describes in the environment, or a world of one; left at the end."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World(0, 1, choose_device(requested))
        return
    rank, local = int(os.environ["RANK"]), int(os.environ.get("LOCAL_RANK", "0"))
    device = choose_device(requested, local)
    if device.type == "cuda":
        if local >= torch.cuda.device_count():
            raise TrainingError(
                f"torchrun started more processes than the {torch.cuda.device_count()} GPUs of this machine; "
                "lower --nproc-per-node"
            )
        torch.cuda.set_device(device)
    ours = not dist.is_initialized()  # a program that trains several times keeps its own group
    if ours:
        dist.init_process_group("cuda:nccl,cpu:gloo" if device.type == "cuda" else "gloo", timeout=timeout)
    try:
        control = dist.new_group(backend="gloo", timeout=timeout)
        assert isinstance(control, dist.ProcessGroup)
        yield World(rank, size, device, control)
    finally:
        if ours:
            dist.destroy_process_group()


def sync_batch_norm(objective: nn.Module, world: World, requested: bool | Literal["auto"]) -> None:
    """Let every BatchNorm in `objective` take its statistics over all ranks, if requested; in place.

    Raises:
        RecipeError: It is `True` and the device is a CPU.
    """
    norms = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    if requested is False or world.size == 1 or not any(isinstance(m, norms) for m in objective.modules()):
        return
    if world.device.type != "cuda":
        if requested is True:
            raise RecipeError(
                f"training.sync_batch_norm: is true, but PyTorch's SyncBatchNorm needs GPUs and these "
                f"{world.size} processes run on a CPU; use auto or false (each process's own statistics), "
                "one process, or an encoder without BatchNorm (vit_*, swin_*)"
            )
        return
    from timm.layers.norm_act import convert_sync_batchnorm  # knows timm's norms with an activation, too

    convert_sync_batchnorm(objective)  # type: ignore[no-untyped-call]


def wrap_parallel(
    objective: nn.Module, world: World, mode: Literal["ddp", "fsdp"], find_unused: bool
) -> nn.Module:
    """The module to call in training: the objective itself, or in DDP, or sharded in place by FSDP2."""
    if world.size == 1:
        return objective
    if mode == "ddp":
        from torch.nn.parallel import DistributedDataParallel

        ids = [world.device.index] if world.device.type == "cuda" else None
        return DistributedDataParallel(objective, device_ids=ids, find_unused_parameters=find_unused)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(world.device.type, (world.size,))
    for unit in sharding_units(objective):
        fully_shard(unit, mesh=mesh)
    fully_shard(objective, mesh=mesh)
    return objective


def sharding_units(objective: nn.Module) -> list[nn.Module]:
    """What FSDP gathers and frees as one piece: the members of the encoder's ``blocks`` (timm's name).

    Everything else, the objective's own heads and decoders too, belongs to the root, which is whole for the
    length of a step. An objective may name its own units in a method `sharding_units`.
    """
    own = getattr(objective, "sharding_units", None)
    if callable(own):
        return list(own())
    return [
        unit
        for name, blocks in objective.encoder.named_modules()  # type: ignore[union-attr]
        if isinstance(blocks, nn.ModuleList | nn.Sequential) and name.rsplit(".", 1)[-1] == "blocks"
        for unit in blocks
    ]


@contextmanager
def unsharded_params(objective: nn.Module) -> Iterator[None]:
    """Make a sharded objective's parts callable outside of a step, on all ranks at once."""
    if not is_sharded(objective):
        yield
        return
    objective.unshard()  # type: ignore[operator]
    try:
        yield
    finally:
        objective.reshard()  # type: ignore[operator]


@contextmanager
def no_gradient_sync(module: nn.Module, wait: bool) -> Iterator[None]:
    """While accumulating, DDP need not exchange gradients before the last part of a step."""
    from torch.nn.parallel import DistributedDataParallel

    if wait and isinstance(module, DistributedDataParallel):
        with module.no_sync():
            yield
    else:
        yield


def is_sharded(thing: Tensor | nn.Module) -> bool:
    """Whether a tensor is a DTensor, or a module under FSDP2.

    Asked by attribute: importing those classes costs a run on one process more than a second.
    """
    return hasattr(thing, "full_tensor") or hasattr(thing, "unshard")


def gather_full_tensor(tensor: Tensor) -> Tensor:
    """A tensor or gathered shards, detached, in main memory and of its own storage. Collective for shards."""
    tensor = tensor.detach()
    if is_sharded(tensor):
        tensor = tensor.full_tensor()  # type: ignore[attr-defined]
    return tensor.to("cpu", copy=True).contiguous()


def copy_into(target: Tensor, value: Tensor) -> None:
    """Fill a tensor, or this rank's shard of one, from the whole value."""
    value = value.to(target.dtype)
    with torch.no_grad():
        if is_sharded(target):
            from torch.distributed.tensor import DTensor, distribute_tensor

            assert isinstance(target, DTensor)
            value = value.to(target.device)
            value = distribute_tensor(value, target.device_mesh, target.placements, src_data_rank=None)
        target.copy_(value)


def shard_like(target: Tensor, value: Tensor) -> Tensor:
    """The whole `value` in the form (device, shards) of `target`."""
    new = torch.zeros_like(target, dtype=value.dtype)
    copy_into(new, value)
    return new


def mean_over_ranks(values: Tensor, world: World) -> Tensor:
    """Mean of each of `values` over all ranks; waits for all of them."""
    if world.size > 1:
        dist.all_reduce(values)
        values = values / world.size
    return values


class StopConsensus:
    """All ranks stop after the same step, although a signal may reach them at different times.

    Each step exchanges a flag in the background and reads it one step later: no rank ever waits.
    """

    def __init__(self, world: World, requested: Callable[[], bool]) -> None:
        self._world = world
        self._requested = requested
        self._pending: tuple[Any, Tensor] | None = None

    def should_stop(self) -> bool:
        """Whether any rank had a request at the previous call; all ranks call it once per step."""
        if self._world.size == 1:
            return self._requested()
        agreed = False
        if self._pending is not None:
            work, flag = self._pending
            work.wait()
            agreed = bool(flag.item())
        flag = torch.tensor([int(self._requested())])
        self._pending = (
            dist.all_reduce(flag, dist.ReduceOp.MAX, group=self._world.control, async_op=True),
            flag,
        )
        return agreed

    def close(self) -> None:
        """Wait for the message that is under way, if any."""
        if self._pending is not None:
            self._pending[0].wait()
            self._pending = None


def broadcast_object(value: Mapping[str, Any] | None, world: World) -> Any:
    """Broadcast an object from rank 0. Pickled between the processes of this run; never read from a file."""
    if world.size == 1:
        return value
    box = [value]
    dist.broadcast_object_list(box, src=0, group=world.control)
    return box[0]
