"""Contrast between embeddings, in one process and over several."""

from __future__ import annotations

import os
import socket
from multiprocessing import get_context

import pytest
import torch
import torch.distributed as dist

from swath.objectives.contrast import gather_rows, nt_xent, paired_softplus


def brute_force(first, second, temperature):
    z = torch.nn.functional.normalize(torch.cat([first, second]).double(), dim=1)
    n, total = len(first), 0.0
    for i in range(2 * n):
        partner = i + n if i < n else i - n
        others = [float(z[i] @ z[j]) / temperature for j in range(2 * n) if j != i]
        total += (
            torch.logsumexp(torch.tensor(others, dtype=torch.float64), 0) - z[i] @ z[partner] / temperature
        )
    return float(total) / (2 * n)


@pytest.mark.parametrize("temperature", [0.05, 0.5, 2.0])
def test_nt_xent_is_its_definition(temperature):
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 5, 7, generator=generator)
    assert float(nt_xent(first, second, temperature)) == pytest.approx(
        brute_force(first, second, temperature), abs=1e-5
    )


def test_nt_xent_of_perfect_partners_is_lowest():
    z = torch.eye(6)
    aligned, wrong = nt_xent(z, z, 0.1), nt_xent(z, z.roll(1, 0), 0.1)
    assert aligned < 1e-3 < wrong


def test_paired_softplus_bounds():
    z = torch.randn(4, 3)
    assert float(paired_softplus(z, z)) == pytest.approx(-1.3133, abs=1e-4)
    assert float(paired_softplus(z, -z)) == pytest.approx(-0.3133, abs=1e-4)


def _rank(rank, port, data, weight, results):
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    torch.set_num_threads(1)
    dist.init_process_group("gloo", rank=rank, world_size=2)
    weight = weight.clone().requires_grad_()
    first, second = (rows.chunk(2)[rank] @ weight for rows in data)
    assert len(gather_rows(first)) == 2 * len(first)
    loss = nt_xent(first, second, 0.3)
    loss.backward()
    results.put((rank, loss.item(), weight.grad.tolist()))
    dist.destroy_process_group()


def test_two_processes_make_the_loss_and_gradient_of_one():
    generator = torch.Generator().manual_seed(2)
    data = torch.randn(2, 6, 5, generator=generator)
    weight = torch.randn(5, 4, generator=generator).requires_grad_()
    whole = nt_xent(data[0] @ weight, data[1] @ weight, 0.3)
    whole.backward()
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    context = get_context("spawn")
    results = context.Queue()
    ranks = [
        context.Process(target=_rank, args=(rank, port, data, weight.detach(), results)) for rank in range(2)
    ]
    for rank in ranks:
        rank.start()
    found = [results.get(timeout=120) for _ in ranks]
    for rank in ranks:
        rank.join(30)
    losses = [loss for _, loss, _ in found]
    gradient = torch.tensor([grad for _, _, grad in found]).mean(0)  # as DDP averages
    assert sum(losses) / 2 == pytest.approx(whole.item(), abs=1e-6)
    assert (gradient - weight.grad).abs().max() < 1e-6
