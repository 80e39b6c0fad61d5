"""What the calibration time settles, and that it is the calibration time which does."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic

from fastrain.archive.store import Archive
from fastrain.rain import train as training
from fastrain.rain.chances import Calibration
from fastrain.rain.hindcast import SPREADS, learn_spread
from fastrain.rain.new_run import TrainSettings
from fastrain.rain.radar import Radar
from fastrain.rain.run import RainNet
from fastrain.rain.settle import SHARES_KEPT, calibration_of, settle
from fastrain.rain.train import train
from fastrain.samples.layout import FrameLayout
from fastrain.samples.split import Split, split_archive


def windows(holds, seed=0):
    """Return parts and truth of windows in which a share of what was learned holds."""
    draw = np.random.default_rng(seed)
    parts, truth = [], []
    for _ in range(6):
        straight, learned = draw.normal(size=(2, 1, 1, 60, 60)) * 1.5
        chance = 1 / (1 + np.exp(-(straight + holds * learned)))
        parts.append((straight, learned))
        truth.append((draw.random((1, 60, 60)) < chance[0]).astype(np.int8))
    return parts, truth


@pytest.mark.parametrize("holds", SHARES_KEPT)
def test_as_much_of_what_was_learned_is_kept_as_holds(holds):
    share, calibration = settle(*windows(holds), long=False)
    assert share == holds
    assert calibration.temperature == pytest.approx(1, abs=0.1)
    assert calibration.knots is None


def test_a_long_time_calibrates_by_what_came_true_at_each_chance():
    parts, truth = windows(1.0)
    bent = [(np.sign(s + x) * np.abs(s + x) ** 0.5 * 2 + 0.7, 0 * x) for s, x in parts]
    share, calibration = settle(bent, truth, long=True)
    assert share == 1.0
    assert calibration.knots is not None
    chance = np.stack([calibration.chances(s + x)[:, 0] for s, x in bent])
    event = np.stack(truth) > 0
    for low in np.arange(0, 1, 0.2):
        within = (chance >= low) & (chance < low + 0.2)
        assert chance[within].mean() == pytest.approx(event[within].mean(), abs=0.02)
    assert calibration_of([s for s, _ in bent], truth, long=True) == calibration


def test_what_is_settled_is_settled_on_the_calibration_time_and_kept(moving, tmp_path, monkeypatch):
    asked, kept = {}, []

    def noting(name, at, tell=None):
        real = getattr(training, name)

        def noted(*given, **named):
            asked[name] = (given[at], named.get("long"))
            return tell(*given) if tell else real(*given, **named)

        monkeypatch.setattr(training, name, noted)

    def told(network: RainNet, *_: object):
        kept.append(network.head.weight.detach().clone())
        return 0.25, Calibration(1.7), Calibration(0.8)

    noting("calibrate", 2, told)
    noting("decide", 4)
    noting("learn_spread", 2)
    monkeypatch.setattr(Split, "is_long", lambda *_: True)
    run = train(moving, tmp_path / "r", TrainSettings(cells=50_000, width=8))
    wanted = split_archive(Archive.open(moving)).issues["calibrate"]
    for name, (issues, _) in asked.items():
        np.testing.assert_array_equal(issues, wanted, err_msg=name)
    assert sorted(asked) == ["calibrate", "decide", "learn_spread"]
    assert asked["calibrate"][1] is True
    assert run.facts["network"]["share_kept"] == 0.25
    assert run.calibration.temperature == 1.7
    assert run.facts["reference"]["calibration"]["temperature"] == 0.8
    np.testing.assert_array_equal(run.network.head.weight.detach().numpy(), 0.25 * kept[0].numpy())


def frames_that_change(how):
    """Return rain that stays as it is, or of which every frame is another."""
    draw = np.random.default_rng(2)
    still = synthetic.moving_rain(1, size=48, seed=3)[0]
    if how == "stays":
        return np.repeat(still[None], 40, axis=0)
    return np.where(draw.random((40, 48, 48)) < 0.3, 2.0, 0.0).astype(np.float32)


@pytest.mark.parametrize(("how", "best"), [("stays", min(SPREADS)), ("changes", max(SPREADS))])
def test_advection_is_smoothed_as_the_calibration_time_has_it(tmp_path, how, best):
    synthetic.write_archive(tmp_path / "a", frames_that_change(how))
    archive = Archive.open(tmp_path / "a")
    radar = Radar.of(archive.schema, 1, (0.1, 1.0), FrameLayout(6, ((0, 3), (3, 6)), 6))
    start, _ = archive.span
    assert learn_spread(archive, 1, start + np.arange(10, 30, 5), radar, 2**30) == best
