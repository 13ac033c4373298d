"""Spectra averaged over two processes are those of one process with the whole batch, gradient included."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from swath.objectives.frequency import focal_frequency


def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 8, 8, generator=generator), torch.randn(4, 3, 8, 8, generator=generator)


def one_of_two(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=2)
    own = slice(2 * rank, 2 * rank + 2)
    prediction, target = (x[own] for x in batch())
    found = {}
    for over_ranks in (True, False):
        leaf = prediction.clone().requires_grad_()
        loss = focal_frequency(leaf, target, over_ranks=over_ranks)
        loss.backward()
        found[over_ranks] = (loss.detach(), leaf.grad)
    torch.save(found, f"{out}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    out = tmp_path_factory.mktemp("ranks")
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    processes.start_processes(one_of_two, (port, str(out)), nprocs=2, start_method="fork")
    return [torch.load(Path(out) / f"{rank}.pt") for rank in range(2)]


def alone(rows):
    prediction, target = (x[rows] for x in batch())
    leaf = prediction.clone().requires_grad_()
    loss = focal_frequency(leaf, target)
    loss.backward()
    return loss.detach(), leaf.grad


def test_over_ranks_is_the_loss_of_the_whole_batch(two):
    loss, grad = alone(slice(None))
    for rank, found in enumerate(two):
        torch.testing.assert_close(found[True][0], loss)
        # DDP divides the sum over ranks of what each rank's samples give by the number of ranks.
        torch.testing.assert_close(found[True][1] / 2, grad[2 * rank : 2 * rank + 2])


def test_of_a_process_is_the_loss_of_its_own_samples(two):
    whole = alone(slice(None))[0]
    for rank, found in enumerate(two):
        loss, grad = alone(slice(2 * rank, 2 * rank + 2))
        torch.testing.assert_close(found[False][0], loss)
        torch.testing.assert_close(found[False][1], grad)
        assert loss > whole  # fewer samples, less of the error cancels
