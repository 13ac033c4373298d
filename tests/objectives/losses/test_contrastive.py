"""Contrast between embeddings, in one process and over several."""

from __future__ import annotations

import os
import socket
from multiprocessing import get_context

import pytest
import torch
import torch.distributed as dist

from swath.objectives.losses.contrastive import (
    KeyQueue,
    all_gather_with_grad,
    info_nce,
    nt_xent,
    paired_softplus,
)


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
    assert len(all_gather_with_grad(first)) == 2 * len(first)
    loss = nt_xent(first, second, 0.3)
    loss.backward()
    queue = KeyQueue(8, 5)
    for step in range(3):
        queue.push(*_keys(rank, step))
    results.put((rank, loss.item(), weight.grad.tolist(), queue.keys.tolist(), queue.owners.tolist()))
    dist.destroy_process_group()


def _keys(rank, step):
    """Two keys of a rank in a step, and whose they are; all different."""
    generator = torch.Generator().manual_seed(10 * step + rank)
    return torch.randn(2, 5, generator=generator), torch.tensor([0, 1]) + 2 * rank + 10 * step


@pytest.fixture(scope="module")
def two():
    """What two processes made: by rank loss, gradient, and the queue's keys and owners."""
    generator = torch.Generator().manual_seed(2)
    data = torch.randn(2, 6, 5, generator=generator)
    weight = torch.randn(5, 4, generator=generator).requires_grad_()
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
    return data, weight, sorted(found)


def test_two_processes_make_the_loss_and_gradient_of_one(two):
    data, weight, found = two
    whole = nt_xent(data[0] @ weight, data[1] @ weight, 0.3)
    whole.backward()
    losses = [loss for _, loss, *_ in found]
    gradient = torch.tensor([grad for _, _, grad, *_ in found]).mean(0)  # as DDP averages
    assert sum(losses) / 2 == pytest.approx(whole.item(), abs=1e-6)
    assert (gradient - weight.grad).abs().max() < 1e-6


def test_two_processes_have_one_queue_with_each_key_once(two):
    """Six keys of each rank's three steps went in, and the newest eight of all are there, in both."""
    (_, _, _, keys, owners), (_, _, _, *other) = two[2]
    assert [keys, owners] == other
    expected = [_keys(rank, step) for step in range(3) for rank in range(2)]
    newest = torch.nn.functional.normalize(torch.cat([k for k, _ in expected]), dim=1)[-8:]
    whose = torch.cat([o for _, o in expected])[-8:]
    order = torch.tensor(owners).argsort()
    assert torch.tensor(owners)[order].tolist() == whose.tolist()
    assert (torch.tensor(keys)[order] - newest).abs().max() < 1e-6


def test_keys_of_the_same_image_are_no_negatives():
    """A queue longer than the data holds a view of the very image that is asked for: it must not count."""
    queue = KeyQueue(4, 3)
    queue.push(torch.eye(3), torch.tensor([7, 8, 9]))
    query = torch.tensor([[1.0, 0.0, 0.0]])
    alike = queue.held_by(torch.tensor([7]))
    assert alike.tolist() == [[True, False, False, False]]
    without = torch.cat([queue.keys[1:]])
    expected = info_nce(query, query, without, 0.2)
    assert torch.allclose(info_nce(query, query, queue.keys, 0.2, alike), expected)
    assert info_nce(query, query, queue.keys, 0.2) > expected + 0.5
    assert queue.held_by(None) is None
