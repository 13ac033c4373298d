"""Losses of two processes are those of one process with the whole batch, gradient included.

Spectra, and means over what counts where the processes have unequal shares of it.
"""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as processes

from swath.objectives.losses.focal_frequency import focal_frequency, focal_l1
from swath.objectives.losses.prototypes import PrototypeLoss


def batch():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(4, 3, 8, 8, generator=generator), torch.randn(4, 3, 8, 8, generator=generator)


def hidden() -> torch.Tensor:
    """Of the first process nothing is hidden in one image; the second has more."""
    mask = torch.zeros(4, 1, 8, 8)
    mask[1, :, :3] = mask[2:, :, 2:] = 1.0
    return mask


def spatial(rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
    prediction, target = (x[rows] for x in batch())
    leaf = prediction.clone().requires_grad_()
    loss = focal_l1(leaf, target, hidden()[rows])
    loss.backward()
    return loss.detach(), leaf.grad


def agreement(rows: slice, *, sparse: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Of 9 prototypes at 6 places; `sparse`: of the second process one place counts, of the first all do."""
    student, teacher = (x.flatten(2)[:, :, :18].reshape(4, 9, 6)[rows] for x in batch())
    weight = torch.ones(4, 6)
    weight[2:] = 0.0
    weight[3, 2] = 1.0
    leaf = student.clone().requires_grad_()
    # The first process may not know that others have places that do not count.
    given = None if not sparse or rows == slice(0, 2) else weight[rows]
    loss = PrototypeLoss(9)(leaf, teacher, 0.1, given)
    loss.backward()
    return loss.detach(), leaf.grad


def one_of_two(rank: int, port: int, out: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://localhost:{port}", rank=rank, world_size=2)
    own = slice(2 * rank, 2 * rank + 2)
    prediction, target = (x[own] for x in batch())
    found = {"spatial": spatial(own)}
    for sparse in (True, False):
        found["agreement", sparse] = agreement(own, sparse=sparse)
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
    processes.start_processes(one_of_two, (port, str(out)), nprocs=2, start_method="spawn")
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


def test_hidden_pixels_count_alike_on_whichever_rank_they_are(two):
    loss, grad = spatial(slice(None))
    torch.testing.assert_close((two[0]["spatial"][0] + two[1]["spatial"][0]) / 2, loss)
    torch.testing.assert_close(torch.cat([one["spatial"][1] for one in two]) / 2, grad)


@pytest.mark.parametrize("sparse", [True, False])
def test_matches_count_alike_on_whichever_rank_they_are(two, sparse):
    loss, grad = agreement(slice(None), sparse=sparse)
    parts = [one["agreement", sparse] for one in two]
    torch.testing.assert_close((parts[0][0] + parts[1][0]) / 2, loss)
    torch.testing.assert_close(torch.cat([part[1] for part in parts]) / 2, grad)
