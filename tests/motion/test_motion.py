"""Optical flow and advection: known motions, and what must hold for any."""

from __future__ import annotations

import sys

import pytest
import synthetic
import torch

from fastrain.motion import advect, displacements, estimate_motion, signal_of
from fastrain.motion.advect import sample
from fastrain.rain.baselines import advected_rates, blocked, motion_of, steadied


def frames(speed, count=3, size=96, seed=5):
    return torch.from_numpy(synthetic.moving_rain(count, size=size, seed=seed, speed=speed))


@pytest.mark.parametrize("speed", [(0.0, 0.0), (0.4, 0.9), (-1.5, 2.5), (3.0, 0.0)])
def test_a_shift_of_the_window_is_found_as_motion_the_other_way(speed):
    if min(speed) < 0:
        rates = frames((abs(speed[0]), speed[1])).flip(-2)
        expected = (abs(speed[0]), -speed[1])
    else:
        rates = frames(speed)
        expected = (-speed[0], -speed[1])
    signal = signal_of(rates)[None]
    flow = estimate_motion(signal, torch.ones_like(signal, dtype=torch.bool))[0]
    inner = flow[:, 16:-16, 16:-16]
    assert inner.mean((1, 2)).tolist() == pytest.approx(expected, abs=0.12)
    assert float((inner - torch.tensor(expected)[:, None, None]).abs().median()) < 0.15


def test_no_motion_is_the_identity():
    field = torch.rand(1, 2, 20, 30)
    seen = torch.rand(1, 2, 20, 30) > 0.3
    travelled = displacements(torch.zeros(1, 2, 20, 30), 3)
    assert (travelled == 0).all()
    for order in ("linear", "nearest"):
        moved, known = advect(field, seen, travelled[:, -1], order=order)
        assert torch.equal(known, seen)
        torch.testing.assert_close(moved[seen], field[seen], rtol=0, atol=1e-5)


def test_one_cell_travels_as_far_as_it_is_told_south_and_east():
    field = torch.zeros(1, 1, 20, 20)
    field[0, 0, 5, 6] = 1.0
    flow = torch.zeros(1, 2, 20, 20)
    flow[:, 0], flow[:, 1] = 2.0, 1.0
    moved, known = advect(field, torch.ones_like(field, dtype=torch.bool), displacements(flow, 3)[:, -1])
    assert moved[0, 0].argmax() == (5 + 6) * 20 + (6 + 3)
    assert not known[0, 0, :6].any()
    assert not known[0, 0, :, :3].any()


def test_what_flows_in_from_outside_or_from_the_unseen_is_not_observed():
    field = torch.ones(1, 1, 10, 10)
    seen = torch.ones_like(field, dtype=torch.bool)
    seen[..., :5] = False
    flow = torch.zeros(1, 2, 10, 10)
    flow[:, 1] = 2.0
    moved, known = advect(field, seen, displacements(flow, 1)[:, 0])
    assert not known[..., :7].any()
    assert known[..., 7:].all()
    assert (moved[known] == 1).all()


def test_solid_rotation_brings_a_field_back():
    size = 41
    y, x = torch.meshgrid(torch.arange(size) - 20.0, torch.arange(size) - 20.0, indexing="ij")
    angle = 2 * torch.pi / 48
    flow = torch.stack([angle * x, -angle * y])[None]
    field = torch.exp(-((y + 8) ** 2 + x**2) / 8)[None, None]
    moved, _ = advect(field, torch.ones_like(field, dtype=torch.bool), displacements(flow, 48)[:, -1])
    assert abs(int(moved.argmax()) - int(field.argmax())) in (0, 1, size)
    assert float(moved.max()) > 0.9


@pytest.mark.parametrize("kind", ["dry", "unseen", "one echo", "one frame wet"])
def test_dry_unseen_and_single_echoes_all_work(kind):
    rates = torch.zeros(3, 40, 40)
    if kind == "unseen":
        rates[:] = torch.nan
    if kind == "one echo":
        rates[:, 20, 20] = 5.0
    if kind == "one frame wet":
        rates[-1] = 3.0
    out = advected_rates(rates, 4, cell_km=4.0, minutes=5)
    assert out.shape == (4, 40, 40)
    assert not torch.isinf(out).any()
    if kind == "unseen":
        assert torch.isnan(out).all()
    if kind == "one echo":
        assert float(torch.nan_to_num(out)[3, 18:23, 18:23].sum()) == pytest.approx(5.0, rel=0.05)


def test_advection_beats_persistence_on_moving_rain():
    rates = torch.from_numpy(synthetic.moving_rain(16, size=96, seed=9))
    out = advected_rates(rates[:3], 12, cell_km=4.0, minutes=5)[11]
    truth = rates[14] >= 0.3
    known = torch.isfinite(out)

    def csi(f):
        hit, either = (f & truth & known).sum(), ((f | truth) & known).sum()
        return float(hit / either)

    assert csi(out >= 0.3) > csi(rates[2] >= 0.3) + 0.2


def test_a_batch_is_the_same_as_its_members():
    a, b = (signal_of(frames((0.5, 1.0), seed=s)) for s in (1, 2))
    seen = torch.ones(2, *a.shape, dtype=torch.bool)
    both = estimate_motion(torch.stack([a, b]), seen)
    for i, one in enumerate((a, b)):
        torch.testing.assert_close(both[i], estimate_motion(one[None], seen[:1])[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("order", ["linear", "nearest"])
@pytest.mark.parametrize("shared", [True, False])
def test_on_a_cpu_advection_is_what_it_is_elsewhere(order, shared, monkeypatch):
    """Beside torch's own sampling, which GPUs use: fields, what is known, far beyond the edges too."""
    monkeypatch.setattr(sys.modules["fastrain.motion.advect"], "LARGE", 1)
    draw = torch.Generator().manual_seed(1)
    field = torch.rand(1 if shared else 4, 2, 23, 31, generator=draw)
    seen = torch.rand(field.shape, generator=draw) > 0.3
    field[~seen] = torch.nan
    travelled = torch.randn(4, 2, 23, 31, generator=draw) * torch.tensor([0.3, 2.0, 10.0, 500.0]).view(4, 1, 1, 1)
    field, seen = field.expand(4, -1, -1, -1), seen.expand(4, -1, -1, -1)
    ours, known = advect(field, seen, travelled, order=order)
    clean = torch.nan_to_num(field)
    theirs = sample(torch.cat([clean, seen.float()], dim=1), -travelled, order=order)
    weight = theirs[:, 2:]
    sure = (weight - 0.5).abs() > 1e-4  # not where rounding alone tells whether half is known
    assert torch.equal(known[sure], (weight >= 0.5)[sure])
    torch.testing.assert_close(ours[known & sure], (theirs[:, :2] / weight)[known & sure], rtol=1e-3, atol=1e-4)
    assert 500 < int(known.sum()) < known.numel() // 2


def test_no_number_for_a_displacement_is_no_reason_to_look_beyond_memory(monkeypatch):
    monkeypatch.setattr(sys.modules["fastrain.motion.advect"], "LARGE", 1)
    flow = torch.full((1, 2, 8, 8), torch.nan)
    flow[..., 4:] = torch.inf
    _, known = advect(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 8, 8, dtype=torch.bool), flow)
    assert not known.any()


def test_sizes_that_do_not_agree_are_refused_not_read_beyond(monkeypatch):
    monkeypatch.setattr(sys.modules["fastrain.motion.advect"], "LARGE", 1)
    field = torch.ones(4, 1, 8, 8)
    carry = getattr(advect, "__wrapped__", advect)
    with pytest.raises(Exception, match=r"carried by|Type-check"):
        carry(field, field > 0, torch.zeros(1, 2, 8, 8))


@pytest.mark.parametrize("large", [2**30, 1])
def test_one_mask_for_all_channels_says_the_same_as_one_for_each(monkeypatch, large):
    monkeypatch.setattr(
        sys.modules["fastrain.motion.advect"], "LARGE", large
    )  # on the device, and by the kernel of our own
    draw = torch.Generator().manual_seed(4)
    field = torch.rand(2, 3, 40, 50, generator=draw)
    mask = torch.rand(2, 1, 40, 50, generator=draw) < 0.8
    shift = 3 * torch.randn(2, 2, 40, 50, generator=draw)
    carried, known = advect(field, mask, shift)
    for_each, known_each = advect(field, mask.expand_as(field).contiguous(), shift)
    assert known.shape == mask.shape
    assert torch.equal(known.expand_as(field), known_each)
    assert torch.equal(carried[known_each], for_each[known_each])


def test_flow_and_advection_stay_on_the_device_they_are_given():
    """On one that computes nothing: what would lie on another device could not be computed with."""
    meta = torch.device("meta")
    signal, observed = torch.zeros(2, 3, 70, 90, device=meta), torch.ones(2, 3, 70, 90, dtype=torch.bool, device=meta)
    flow = estimate_motion(signal, observed)
    assert flow.device == meta and flow.shape == (2, 2, 70, 90)
    travelled = displacements(flow, 3)
    carried, known = advect(signal[:, -1:], observed[:, -1:], travelled[:, -1])
    assert carried.device == known.device == meta and carried.shape == (2, 1, 70, 90)


def test_echoes_that_come_from_nowhere_hardly_mislead_the_flow():
    """Twelve stand in the last frame alone; without a lesser weight for what grew the flow is off by 0.9 and more."""
    off = []
    for seed in range(4):
        rates = frames((0.4, 0.9), seed=seed).clone()
        draw = torch.Generator().manual_seed(seed)
        for _ in range(12):
            y, x = (int(v) for v in torch.randint(8, 82, (2,), generator=draw))
            rates[2, y : y + 6, x : x + 6] += 20.0
        signal = signal_of(rates)[None]
        flow = estimate_motion(signal, torch.ones_like(signal, dtype=torch.bool))[0][:, 16:-16, 16:-16]
        off.append(float((flow - torch.tensor([-0.4, -0.9])[:, None, None]).square().sum(dim=0).sqrt().mean()))
    assert sum(off) / len(off) < 0.7


def test_blocks_are_means_of_what_is_observed_and_seen_where_half_of_them_is():
    draw = torch.Generator().manual_seed(1)
    rates = torch.rand(2, 7, 9, generator=draw) * 5
    rates[torch.rand(2, 7, 9, generator=draw) < 0.45] = torch.nan
    signal, seen = blocked(rates, 3)
    told = signal_of(torch.nan_to_num(rates))
    assert signal.shape == (2, 3, 3)
    few = 0
    for t in range(2):
        for i in range(3):
            for j in range(3):
                part = (t, slice(3 * i, 3 * i + 3), slice(3 * j, 3 * j + 3))
                there = torch.isfinite(rates[part])
                assert bool(seen[t, i, j]) == (there.float().mean() >= 0.5)
                few += not seen[t, i, j]
                if there.any():
                    assert float(signal[t, i, j]) == pytest.approx(float(told[part][there].mean()), abs=1e-5)
    assert few >= 2
    whole, all_seen = blocked(rates, 1)
    assert torch.equal(all_seen, torch.isfinite(rates))
    assert torch.equal(whole[all_seen], told[all_seen])


def test_the_smaller_a_map_the_more_alike_it_moves():
    draw = torch.Generator().manual_seed(4)
    flow = torch.randn(3, 2, 16, 25, generator=draw)
    mean = flow.mean((-2, -1), keepdim=True)
    # 20 m, 100 km, 1,000 km and 100,000 km wide
    for cell_km, share in ((1e-3, 1.0), (5.0, 0.55), (50.0, 0.1 + 0.9 / 101), (5e3, 0.1 * 0.011**2 + 0.9e-6)):
        found = steadied(flow, cell_km)
        torch.testing.assert_close(found, (1 - share) * flow + share * mean, atol=1e-3, rtol=1e-3)
    # What is sought on blocks is as wide as the map that they cover.
    rates = frames((0.4, 0.9), size=96)
    coarse = motion_of(rates, cell_km=1.0)
    signal, seen = blocked(rates, 4)
    torch.testing.assert_close(coarse, steadied(estimate_motion(signal[None], seen[None]), 4.0)[0])
