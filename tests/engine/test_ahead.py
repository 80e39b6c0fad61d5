"""The next batch is ready while a step is taken, and the same as if it were not."""

from __future__ import annotations

import threading
from dataclasses import replace

import pytest
import torch
from blobs import CPU, dataset, small

from fastrain.engine import ahead
from fastrain.engine.ahead import Ahead
from fastrain.engine.batches import Augmentation, Batches, Skipping
from fastrain.vision.recipes import recipe_of
from fastrain.vision.train import train


@pytest.fixture(autouse=True)
def spare_core(monkeypatch):
    monkeypatch.setattr(ahead, "cores", lambda: torch.get_num_threads() + 1)


def drawn(skipping):
    values = torch.randint(0, 256, (40, 12, 12, 3), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    return Batches(
        values, torch.arange(40), size=10, steps=40, seed=3, augmentation=Augmentation("random", 2), skipping=skipping
    )


def test_a_batch_is_drawn_by_another_thread_before_it_is_asked_for():
    began = [threading.Event() for _ in range(6)]
    by = []

    def draw(step):
        began[step].set()
        by.append((step, threading.current_thread() is threading.main_thread()))
        return step

    with Ahead(draw, 5, lambda step: step != 3, CPU) as batches:
        for step in range(5):
            assert batches(step) == step
            assert began[step + 1].wait(0.1 if step in (2, 4) else 30) == (step not in (2, 4))
    assert by == [(0, True), (1, False), (2, False), (3, True), (4, False)]


def test_after_a_jump_the_batch_is_the_one_that_is_asked_for():
    with Ahead(lambda step: step, 100, lambda _: True, CPU) as batches:
        assert [batches(step) for step in (0, 1, 7, 8, 8, 3)] == [0, 1, 7, 8, 8, 3]


def test_what_goes_wrong_is_told_when_the_batch_is_asked_for():
    def draw(step):
        if step == 1:
            raise ValueError("no such batch")
        return step

    with Ahead(draw, 5, lambda _: True, CPU) as batches:
        assert batches(0) == 0
        with pytest.raises(ValueError, match="no such batch"):
            batches(1)


def test_where_all_cores_train_nothing_is_drawn_ahead(monkeypatch):
    monkeypatch.setattr(ahead, "cores", torch.get_num_threads)
    asked = []
    with Ahead(lambda step: asked.append(step) or step, 5, lambda _: True, CPU) as batches:
        assert batches(0) == 0 and asked == [0] and batches.pool is None


@pytest.mark.parametrize("skipping", [None, Skipping(keep=0.5, start=0.2, end=0.6)])
def test_batches_are_the_same_though_the_loss_of_the_last_step_is_told_late(skipping):
    plain, other = drawn(skipping), drawn(skipping)
    with Ahead(other.batch, 40, other.alone, CPU) as batches:
        for step in range(40):
            a, b = plain.batch(step), batches(step)
            assert torch.equal(a.chosen, b.chosen) and torch.equal(a.values, b.values)
            losses = torch.rand(10, generator=torch.Generator().manual_seed(step))
            plain.saw(a, losses)
            other.saw(b, losses)


def test_a_run_is_the_same(monkeypatch):
    recipe = replace(small(recipe_of("airbench94")), epochs=3.0, skipping=Skipping(keep=0.5, start=0.3, end=0.8))

    def weights():
        trained = train(dataset(), recipe, seed=1, device=CPU, precision="float32")
        return torch.cat([value.flatten() for value in trained.network.state_dict().values()])

    ahead_of_time = weights()
    monkeypatch.setattr(ahead, "cores", torch.get_num_threads)
    assert torch.equal(ahead_of_time, weights())


def test_on_a_gpu_each_queue_waits_for_the_other(monkeypatch):
    """With queues that only take note: there is no card here. A batch is used after it is made, and made when memory
    that an earlier step used is free again.
    """
    noted = []

    class Queue:
        def __init__(self, name):
            self.name = name

        def wait_stream(self, other):
            noted.append(f"{self.name} waits for {other.name}")

        def __enter__(self):
            self.thread = threading.current_thread()

        def __exit__(self, *_):
            pass

    steps, batches_queue = Queue("steps"), Queue("batches")
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: batches_queue)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: steps)
    monkeypatch.setattr(torch.cuda, "stream", lambda queue: queue)
    with Ahead(lambda step: noted.append(f"batch {step}") or step, 3, lambda _: True, torch.device("cuda")) as batches:
        for step in range(3):
            assert batches(step) == step
            batches.pool.submit(int).result()  # what was begun before is done
    assert batches_queue.thread is not threading.main_thread()
    assert noted == [
        "batch 0",
        *("batches waits for steps", "batch 1"),
        *("steps waits for batches", "batches waits for steps", "batch 2"),
        "steps waits for batches",
    ]
