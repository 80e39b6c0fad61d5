"""How long rain remembers: what is measured in a window is what was put into it, and the guesses follow from it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from fastrain.rain.fading import faded
from fastrain.rain.memory import remember
from fastrain.rain.scales import FADING, LIFE, LIFE_GROWS, LIFE_KM, bands_of, collapse, lives_of

STILL = torch.zeros(24, 2, 128, 128)
EVERYWHERE = torch.ones(128, 128, dtype=torch.bool)
LIVES = (10.0, 25.0, 60.0, 150.0, 400.0)  # minutes, of scales that each are twice as wide as the one before


def fading(seed, ages, lives=LIVES):
    """Fields (age, y, x), the latest first, whose scales fade as exp(−(minutes / life) ** FADING), 5 min apart."""
    draw = torch.Generator().manual_seed(seed)
    minutes = torch.tensor([5.0 * age for age in ages])
    out = torch.zeros(len(ages), 128, 128)
    for scale, life in enumerate(lives):
        apart = (minutes[:, None] - minutes).abs()
        chol = torch.linalg.cholesky(torch.exp(-((apart / life) ** FADING)).double() + 1e-9 * torch.eye(len(ages)))
        white = torch.randn(len(ages), 1, 128 >> scale, 128 >> scale, generator=draw)
        # Of each block of four nothing is left at the next scale: what is put in at one scale stays there.
        blocks = torch.nn.functional.avg_pool2d(white, 2)
        pure = white - torch.nn.functional.interpolate(blocks, scale_factor=2, mode="nearest")
        wide = torch.nn.functional.interpolate(pure, size=(128, 128), mode="nearest")[:, 0]
        out += torch.einsum("ab,byx->ayx", chol.float(), wide)
    return out


def told(rates, observed=None, **changed):
    """What a window without motion says of leads of 30 and 90 minutes."""
    observed = torch.ones(rates.shape, dtype=torch.bool) if observed is None else observed
    asked = {"periods": ((5, 6), (17, 18)), "thresholds": (0.1, 1.0, 5.0), "minutes": 5.0, "cell_km": 2.0}
    return remember(rates, observed, STILL, **(asked | changed))


def rain(field):
    """Rain rates, mm/h, over a third of the map, from a field of about −2 to 2."""
    return torch.where(field > 0.7, 10 ** (field - 1.2), 0.0)


def test_all_scales_together_are_the_field():
    field = torch.randn(3, 75, 101)
    known = torch.rand(75, 101) < 0.8
    bands = bands_of(field, known)
    whole = collapse(bands, torch.ones(len(bands), 3))
    mean = (field * known).sum((-2, -1)) / known.sum()
    torch.testing.assert_close(whole[:, known], (field - mean[:, None, None])[:, known], atol=1e-5, rtol=1e-5)


def test_the_life_of_each_scale_is_found():
    found = []
    for seed in range(6):
        field = fading(seed, (0, 2, 5))
        now, *before = [bands_of(f[None], EVERYWHERE) for f in field]
        found.append(lives_of(now, before, [10.0, 25.0], 2.0)[:, 0])
    found = torch.stack(found).median(dim=0).values
    # Scales are no filters of steep edges: each sees something of those beside it.
    for life, expected in zip(found[:4].tolist(), LIVES[:4], strict=True):
        assert expected / 1.9 < life < expected * 1.9
    assert (found.diff() >= 0).all()


def test_where_nothing_is_seen_lives_are_what_is_believed():
    nothing = bands_of(torch.zeros(1, 128, 128), EVERYWHERE)
    lives = lives_of(nothing, [nothing, nothing], [10.0, 25.0], 2.0)[:, 0]
    for scale, life in enumerate(lives.tolist()):
        assert life == pytest.approx(LIFE * (4 * 2**scale / LIFE_KM) ** LIFE_GROWS, rel=1e-3)


def test_rain_that_stays_is_believed_and_rain_that_does_not_is_the_mean():
    field = rain(fading(0, (0,))[0])
    stays = told(field.expand(6, -1, -1))
    reached = torch.stack([(field >= t).float() for t in (0.1, 1.0, 5.0)])
    assert (stays.chances[0, :, 0] - reached).abs().mean() < 0.02
    assert stays.past[:, :3].abs().max() < 0.01 and stays.past[:, 3:].abs().max() < 0.01
    draw = torch.Generator().manual_seed(1)
    noise = rain(torch.randn(6, 128, 128, generator=draw))
    area = (noise[0] >= 0.1).float().mean()
    gone = told(noise)
    assert gone.chances[:, 0].sub(area).abs().mean() < 0.05
    assert gone.past[:, 0].mean() > 0.5  # hardly any of what was carried is there


def test_the_doubt_keeps_the_area_of_the_rain():
    """Under the doubt, as much of the map exceeds each threshold as now."""
    field = rain(fading(3, (0, 1, 2, 3, 4, 5)))
    found = told(field)
    for k, threshold in enumerate((0.1, 1.0, 5.0)):
        now = float((field[0] >= threshold).float().mean())
        assert found.chances[:, k, 1].mean((-2, -1)).tolist() == pytest.approx([now, now], abs=0.02)


def test_fading_by_scale_beats_the_best_smoothing():
    """On rain of known lives its Brier score is below that of every width of smoothing."""
    over = {minutes: [] for minutes in (30.0, 90.0)}
    for seed in range(4):
        # The truth of two leads first, then the window.
        field = rain(fading(10 + seed, (0, 12, 18, 19, 20, 21, 22, 23)))
        outcome = {30.0: field[1] >= 0.1, 90.0: field[0] >= 0.1}
        window = field[2:]
        now = (window[0] >= 0.1).float()
        chances = told(window).chances[:, 0, 0]
        for lead, chance in zip((30.0, 90.0), chances, strict=True):
            smoothed = [_around(now, radius) for radius in (1, 2, 4, 8, 16, 32)]
            best = min(float((s - outcome[lead].float()).square().mean()) for s in smoothed)
            over[lead].append(float((chance - outcome[lead].float()).square().mean()) / best)
    for ratios in over.values():
        assert np.mean(ratios) < 0.995


def _around(field, radius):
    taps = torch.exp(-0.5 * (torch.arange(-3 * radius, 3 * radius + 1) / radius) ** 2)
    taps = (taps / taps.sum()).view(1, 1, -1, 1)
    for _ in range(2):
        pad = (0, 0, 3 * radius, 3 * radius)
        field = torch.nn.functional.conv2d(torch.nn.functional.pad(field[None, None], pad, mode="replicate"), taps)
        field = field[0, 0].T
    return field


@pytest.mark.parametrize("hole", [False, True])
def test_at_a_place_fading_says_what_it_says_of_the_map_where_all_air_moves_alike(hole):
    window = rain(fading(6, (0, 1, 2, 3, 4, 5)))
    seen = torch.ones(window.shape, dtype=torch.bool)
    if hole:
        seen[:, 40:60, 50:90] = False
    track = torch.arange(1, 25)[:, None] * torch.tensor([2.0, -1.0])  # whole cells a frame: nothing between them
    travelled = track[:, :, None, None].expand(-1, -1, 128, 128)
    asked = {"periods": ((0, 6), (6, 12), (17, 18)), "thresholds": (0.1, 1.0, 5.0), "minutes": 5.0, "cell_km": 2.0}
    of_map = remember(window, seen, travelled, **asked).chances[:, :, 1]
    rows, columns = (20, 44, 61, 127), (0, 33, 70)
    left = faded(window, seen, track, **asked)
    for p, (a, b) in enumerate(asked["periods"]):
        found = left.chances(p, track[a:b], rows, columns)
        assert found.shape == (3, 4, 3)
        torch.testing.assert_close(found, of_map[p][:, rows][:, :, columns], atol=1e-4, rtol=1e-3)
    assert 0.02 < float(of_map[0, 0].mean()) < 0.9


def test_a_place_that_nothing_seen_comes_to_is_dry():
    window = rain(fading(7, (0, 1, 2)))
    seen = torch.ones(window.shape, dtype=torch.bool)
    track = torch.arange(1, 7)[:, None] * torch.tensor([0.0, 40.0])
    asked = {"periods": ((3, 6),), "thresholds": (0.1,), "minutes": 5.0, "cell_km": 2.0}
    found = faded(window, seen, track, **asked).chances(0, track[3:6], (64,), (20, 64))
    assert (found == 0).all()
    dry = faded(torch.zeros(3, 128, 128), seen, track * 0, **asked).chances(0, track[3:6] * 0, (64,), (64,))
    assert float(dry) == 0


def test_it_moves_with_the_rain():
    """Frames that travel, told how, say at the period what frames that stand still say at the issue."""
    field = rain(fading(5, (0, 1, 2)))
    window = torch.stack([torch.roll(field[age], -age, dims=1) for age in range(3)])
    travelled = torch.zeros(24, 2, 128, 128)
    travelled[:, 1] = torch.arange(1, 25).view(24, 1, 1)  # a column eastward a frame
    seen = torch.ones(window.shape, dtype=torch.bool)
    asked = {"periods": ((5, 6),), "thresholds": (0.1, 1.0), "minutes": 5.0, "cell_km": 2.0}
    moving = remember(window, seen, travelled, **asked)
    still = remember(field, seen, STILL, **asked)
    inside = slice(8, 120)
    # The map's edge brings in what is not known: the rest is the same, six columns on.
    apart = moving.chances[0, :, :, :, 14:120] - still.chances[0, :, :, :, 8:114]
    assert apart[:, :, inside].abs().mean() < 0.02


def test_of_a_period_it_is_the_highest_chance_that_passes():
    """Steady rain that travels: what single moments say, the highest of it."""
    field = torch.where(fading(6, (0,))[0] > 3.5, 2.0, 0.0)
    travelled = torch.zeros(24, 2, 128, 128)
    travelled[:, 1] = torch.arange(1, 25).view(24, 1, 1)  # a column eastward a frame
    window = torch.stack([torch.roll(field, -age, dims=1) for age in range(4)])

    def chances(*periods):
        seen = torch.ones(window.shape, dtype=torch.bool)
        return remember(window, seen, travelled, periods, (0.1,), minutes=5.0, cell_km=2.0).chances[:, 0, 0]

    moments = chances(*((step - 1, step) for step in range(3, 9)))
    highest, found = moments.amax(dim=0), chances((2, 8))[0]
    assert (found <= highest + 0.05).all()  # all that fades does so by the middle of the period
    inside = slice(24, 128)
    # Rain two cells on is looked at, not every cell on the way: of wide rain hardly anything is missed.
    assert found[:, inside].mean() == pytest.approx(float(highest[:, inside].mean()), rel=0.2)
    assert found[:, inside].mean() > 1.8 * moments[:, :, inside].mean()


def test_what_is_not_observed_says_nothing_and_nothing_is_no_number():
    draw = torch.Generator().manual_seed(2)
    field = rain(fading(7, (0, 1, 2, 3)))
    seen = torch.rand(field.shape, generator=draw) < 0.7
    found = told(field, seen)
    other = told(torch.where(seen, field, 77.0), seen)
    for a, b in ((found.chances, other.chances), (found.past, other.past)):
        torch.testing.assert_close(a[..., seen[0]], b[..., seen[0]])
    for rates, observed in (
        (torch.zeros_like(field), None),
        (field, torch.zeros_like(seen)),
        (torch.full_like(field, 1e-3), None),
        (torch.full_like(field, math.inf).clamp(max=300.0), None),
    ):
        some = told(rates, observed)
        assert torch.isfinite(some.chances).all() and torch.isfinite(some.past).all()
        assert (some.chances >= 0).all() and (some.chances <= 1).all()
    assert told(torch.zeros_like(field)).chances.abs().max() < 1e-6
