"""The engine: it fits, it averages, and a killed run goes on to the same weights."""

from __future__ import annotations

import contextlib
import signal

import pytest
import torch
from torch import nn

from fastrain.engine import checkpoint
from fastrain.engine.averaging import Average, MovingAverage
from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.leaving import Left
from fastrain.engine.optimizers import SGD, Steering, adamw
from fastrain.engine.schedule import triangle


def model():
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 1))


def draw(step):
    generator = torch.Generator().manual_seed(step)
    x = torch.randn(32, 4, generator=generator)
    return x, x[:, :1] * 2 - x[:, 1:2]


def loss(network, batch):
    return (network(batch[0]).float() - batch[1]).square().mean()


SETTINGS = FitSettings(steps=80, clip=1.0, checkpoint_seconds=0.0)


def fitted_by_adamw(network, settings=SETTINGS, learning_rate=0.02, span=10, loss=loss, **more):
    steering = adamw(network, settings.steps, learning_rate=learning_rate)
    return fit(network, draw, loss, steering, settings, average=Average(network, span), **more)


def test_it_learns_what_can_be_learned():
    fitted = fitted_by_adamw(model())
    assert float(loss(fitted, draw(9999))) < 0.3
    assert not fitted.training


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", [1, 37, 79])
def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, at):
    whole = fitted_by_adamw(model())

    def kill(done, total, value):
        if done == at + 1:
            raise Killed

    with pytest.raises(Killed):
        fitted_by_adamw(model(), state=tmp_path / "state.pt", progress=kill)
    again = fitted_by_adamw(model(), state=tmp_path / "state.pt")
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_checkpoint_of_other_settings_is_not_gone_on_with(tmp_path):
    fitted_by_adamw(model(), state=tmp_path / "state.pt")
    steps = []
    fitted_by_adamw(
        model(), learning_rate=0.01, state=tmp_path / "state.pt", progress=lambda done, *_: steps.append(done)
    )
    assert steps[0] == 1


def test_a_failed_write_leaves_the_last_checkpoint(tmp_path):
    path = tmp_path / "state.pt"
    checkpoint.save(path, {"x": torch.ones(3)})

    class Unwritable:
        def __reduce__(self):
            raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(path, {"x": Unwritable()})
    assert torch.equal(checkpoint.load(path)["x"], torch.ones(3))


def test_a_damaged_checkpoint_is_passed_over_for_the_one_before(tmp_path):
    whole = fitted_by_adamw(model())

    def kill(done, total, value):
        if done == 40:
            raise Killed

    path = tmp_path / "state.pt"
    with pytest.raises(Killed):
        fitted_by_adamw(model(), state=path, progress=kill)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1  # one bit, among the weights
    path.write_bytes(data)
    said, steps = [], []
    again = fitted_by_adamw(model(), state=path, say=said.append, progress=lambda done, *_: steps.append(done))
    assert steps[0] == 39
    assert said[0].endswith("does not agree with what it holds); training goes on from the one before.")
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_where_no_checkpoint_can_be_read_training_begins_anew_and_says_so(tmp_path):
    path = tmp_path / "state.pt"
    path.write_bytes(b"no checkpoint")
    said, steps = [], []
    fitted_by_adamw(model(), state=path, say=said.append, progress=lambda done, *_: steps.append(done))
    assert steps[0] == 1
    assert "begins anew" in said[0]


def test_what_drops_out_after_a_kill_is_what_would_have_dropped_out(tmp_path):
    def dropping():
        torch.manual_seed(5)
        return torch.nn.Sequential(torch.nn.Dropout(0.5), *model())

    whole = fitted_by_adamw(dropping())

    def kill(done, total, value):
        if done == 30:
            raise Killed

    with pytest.raises(Killed):
        fitted_by_adamw(dropping(), state=tmp_path / "state.pt", progress=kill)
    torch.rand(100)  # whatever else was drawn meanwhile
    again = fitted_by_adamw(dropping(), state=tmp_path / "state.pt")
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_fit_that_is_told_to_leave_saves_its_last_step(tmp_path, number):
    whole = fitted_by_adamw(model())
    settings = FitSettings(steps=80, clip=1.0, checkpoint_seconds=1e9)
    before = signal.getsignal(number)

    def tell(done, total, value):
        if done == 33:
            signal.raise_signal(number)

    with pytest.raises(Left) as left:
        fitted_by_adamw(model(), settings, state=tmp_path / "state.pt", progress=tell)
    assert left.value.signal == number
    assert signal.getsignal(number) == before
    steps = []
    again = fitted_by_adamw(
        model(), settings, state=tmp_path / "state.pt", progress=lambda done, *_: steps.append(done)
    )
    assert steps[0] == 35  # the step under way was ended first
    for a, b in zip(whole.state_dict().values(), again.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_a_loss_that_is_no_number_stops_the_run():
    with pytest.raises(FloatingPointError, match="at step 0"):
        fitted_by_adamw(model(), loss=lambda m, b: loss(m, b) * float("nan"))


def test_the_average_is_the_mean_of_the_steps_until_its_span_is_full():
    network = nn.Linear(1, 1, bias=False)
    average = Average(network, span=4)
    for value in (1.0, 2.0, 3.0, 4.0):
        nn.init.constant_(network.weight, value)
        average.update(network)
    assert float(average.model.weight) == pytest.approx(2.5)
    nn.init.constant_(network.weight, 6.5)
    average.update(network)
    assert float(average.model.weight) == pytest.approx(2.5 + 4.0 / 4)


def test_the_learning_rate_rises_to_its_peak_and_falls_to_its_end():
    rates = [triangle(i, 100) for i in range(100)]
    assert max(rates) == pytest.approx(1.0)
    assert rates.index(max(rates)) == 19
    assert rates[-1] == pytest.approx(0.02)
    assert rates[:20] == sorted(rates[:20])
    assert rates[20:] == sorted(rates[20:], reverse=True)


def test_until_an_average_has_started_the_network_stands_for_itself():
    network = model()
    steering = adamw(network, 20, learning_rate=0.02)
    average = MovingAverage(network, lambda step: 0.9, start=50)
    fitted = fit(network, draw, loss, steering, FitSettings(steps=20), average=average)
    assert fitted is network


@pytest.mark.parametrize("span", [9, None])
def test_a_checkpoint_of_another_average_is_not_gone_on_with(tmp_path, span):
    state = tmp_path / "state.pt"
    fitted_by_adamw(model(), state=state)
    network, steps = model(), []
    average = Average(network, span) if span else None
    steering = adamw(network, SETTINGS.steps, learning_rate=0.02)
    more = {"state": state, "progress": lambda done, *_: steps.append(done)}
    fit(network, draw, loss, steering, SETTINGS, average=average, **more)
    assert steps[0] == 1


def test_a_look_at_many_steps_gives_their_mean_and_a_killed_run_the_same(tmp_path):
    def means(settings, kill_at=None):
        network, seen = model(), []

        def look(done, total, value):
            seen.append(value)
            if done == kill_at:
                raise Killed

        steering = adamw(network, settings.steps, learning_rate=0.02)
        state = tmp_path / f"{settings.look_every}.pt"
        with contextlib.suppress(Killed):
            fit(network, draw, loss, steering, settings, state=state, progress=look)
        return seen

    each = means(FitSettings(steps=30, checkpoint_seconds=1e9))
    settings = FitSettings(steps=30, checkpoint_seconds=0.0, look_every=10)
    whole = means(settings)
    checkpoint.remove(tmp_path / "10.pt")
    assert whole[0] < each[0] and len(whole) == 3
    assert means(settings, kill_at=20)[-1] == whole[1]
    assert means(settings)[-1] == whole[2]


def test_schedules_that_part_late_are_told_apart():
    weight = torch.nn.Parameter(torch.zeros(2))

    def of(late):
        sgd = SGD([weight], lr=1.0)
        return Steering([(sgd, [lambda step: 1.0 if step < 80 else late])]).identity(100)

    assert of(0.5) != of(0.1) and of(0.5) == of(0.5)
