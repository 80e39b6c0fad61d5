"""Several processes that train together come to what one alone comes to."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from fastrain.engine.group import ALONE, Group
from fastrain.engine.lean import compute_again
from fastrain.nets.blocks import Block
from fastrain.nets.rain_net import RainNet
from fastrain.rain.chances import ordinal_loss

CHILD = """
import sys
import torch
from fastrain.engine.group import join, leave
sys.path.insert(0, {tests!r})
from engine.test_group import network, batch, part_of, loss_of

torch.set_num_threads(1)
group = join(torch.device("cpu"))
torch.manual_seed(100 + group.rank)  # of weights that the first one's take the place of
model = network(seed=None if group.rank else 1)
group.agree(model)
model.train()
for step in range(2):
    model.zero_grad()
    loss = loss_of(model, part_of(batch(step), group.rank, group.size), group)
    loss.backward()
    group.sum_gradients(model)
told = group.same(dict(rank=group.rank, words=["a"]))
torch.save(dict(
    gradients={{name: weight.grad for name, weight in model.named_parameters()}},
    buffers=dict(model.named_buffers()),
    loss=group.total(loss.detach()),
    most=group.most(7 * group.rank),
    told=told,
), sys.argv[1] + f"/{{group.rank}}.pt")
leave()
"""


def network(seed: int | None = 1) -> RainNet:
    if seed is not None:
        torch.manual_seed(seed)
    model = RainNet(10, guesses=2, thresholds=3, conditions=4, width=8)
    if seed is not None:
        draw = torch.Generator().manual_seed(seed)
        for weight in (model.stem.weight, model.head.weight):
            weight.data.copy_(torch.randn(weight.shape, generator=draw) * 0.1)
    return model


def batch(step: int, maps: int = 8):
    draw = torch.Generator().manual_seed(step)
    outcome = torch.randint(-1, 4, (maps, 20, 24), generator=draw, dtype=torch.int8)
    outcome[0] = -1  # a map without truth: the parts weigh differently
    return (
        torch.randn(maps, 10, 20, 24, generator=draw),
        torch.randn(maps, 3, 2, 20, 24, generator=draw),
        torch.randn(maps, 4, generator=draw),
        outcome,
        torch.rand(maps, generator=draw) + 0.5,
    )


def part_of(whole, rank: int, size: int):
    return tuple(field[rank::size] for field in whole)


def loss_of(model: nn.Module, part, group: Group = ALONE):
    x, guess, known, outcome, weight = part
    return ordinal_loss(model(x, guess, known), outcome, weight, group.total)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def alone():
    model = network().train()
    for step in range(2):
        model.zero_grad()
        loss = loss_of(model, batch(step))
        loss.backward()
    return model, loss.detach()


@pytest.mark.parametrize("size", [2, 4])
def test_the_gradients_of_some_processes_are_those_of_one_with_the_whole_batch(tmp_path, size):
    tests = str(Path(__file__).parents[1])
    port = free_port()
    children = [
        subprocess.Popen(
            [sys.executable, "-c", CHILD.format(tests=tests), str(tmp_path)],
            env={
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": str(size),
                "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "GLOO_SOCKET_IFNAME": "lo",
            },
        )
        for rank in range(size)
    ]
    assert [child.wait(timeout=180) for child in children] == [0] * size
    model, loss = alone()
    found = [torch.load(tmp_path / f"{rank}.pt") for rank in range(size)]
    for one in found:
        for name, weight in model.named_parameters():
            largest = float(weight.grad.abs().max())
            torch.testing.assert_close(
                one["gradients"][name], weight.grad, rtol=1e-4, atol=1e-5 * largest + 1e-8, msg=name
            )
        for name, buffer in model.named_buffers():
            torch.testing.assert_close(one["buffers"][name], buffer, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(one["loss"], loss, rtol=1e-5, atol=1e-6)
        assert one["most"] == 7 * (size - 1)
        assert one["told"] == {"rank": 0, "words": ["a"]}


def test_without_the_others_statistics_the_gradients_would_differ():
    """What the test above would miss if the batch norms looked at their own maps alone."""
    model, _ = alone()
    other = network().train()
    other.zero_grad()
    for rank in range(2):
        x, guess, known, outcome, weight = part_of(batch(1), rank, 2)
        cells = ((batch(1)[3] >= 0).float() * batch(1)[4].view(-1, 1, 1)).sum()
        ordinal_loss(other(x, guess, known), outcome, weight, lambda _, cells=cells: cells).backward()
    own, whole = other.fine.first.conv.weight.grad, model.fine.first.conv.weight.grad
    assert float((own - whole).abs().max() / whole.abs().max()) > 1e-2


def test_one_process_is_its_own_group():
    values = torch.ones(3)
    assert ALONE.total(values) is values
    assert ALONE.most(3) == 3
    assert ALONE.same({"a": 1}) == {"a": 1}
    assert ALONE.first


@pytest.mark.parametrize("half", [False, True])
def test_what_is_computed_again_has_the_same_gradients_and_statistics(half):
    model, lean = network(), network()
    compute_again(lean, (Block,))
    for one in (model, lean):
        one.train()
        for step in range(2):
            one.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                loss = loss_of(one, batch(step))
            loss.backward()
    for (name, a), (other, b) in zip(model.named_parameters(), lean.named_parameters(), strict=True):
        assert name == other
        assert torch.equal(a.grad, b.grad), name
    for (name, a), b in zip(model.named_buffers(), lean.buffers(), strict=True):
        assert torch.equal(a, b), name
    assert model.state_dict().keys() == lean.state_dict().keys()


def test_what_is_computed_again_keeps_less():
    def kept(lean: bool) -> int:
        model = network().train()
        if lean:
            compute_again(model, (Block,))
        held: dict[int, int] = {}

        def keep(tensor):
            held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            loss = loss_of(model, batch(0))
        total = sum(held.values())
        loss.backward()
        return total

    assert kept(lean=True) < 0.7 * kept(lean=False)


def test_a_network_that_computes_again_is_asked_as_any_other():
    import copy

    lean = network()
    compute_again(lean, (Block,))
    x, guess, known, _, _ = batch(0)
    own = copy.deepcopy(lean).eval()
    with torch.inference_mode():
        assert torch.equal(own(x, guess, known), network().eval()(x, guess, known))
    assert next(own.fine.parameters()) is not next(lean.fine.parameters())
    own.fine.first.conv.weight.data.zero_()
    with torch.inference_mode():  # the copy's own weights are what it computes with
        assert not torch.equal(own(x, guess, known), network().eval()(x, guess, known))
