"""Batches of bytes: drawn, moved, flipped and mixed as the slow and obvious way does it."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from fastrain.engine.batches import Augmentation, Batches, Skipping, moments, normalised, passes, shrunk

N, EDGE = 40, 12


def values(seed=0):
    return torch.randint(0, 256, (N, EDGE, EDGE, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def batches(augmentation, **more):
    settings = {"size": 10, "steps": 40, "seed": 3, **more}
    return Batches(values(), torch.arange(N), augmentation=augmentation, **settings)


PLAIN = Augmentation(flip=None, translate=0)


def test_an_epoch_shows_each_sample_once_and_the_next_in_another_order():
    drawn = batches(PLAIN)
    first = torch.cat([drawn.batch(step).labels for step in range(4)])
    second = torch.cat([drawn.batch(step).labels for step in range(4, 8)])
    assert sorted(first.tolist()) == list(range(N)) == sorted(second.tolist())
    assert first.tolist() != second.tolist()


def test_a_step_draws_the_same_whenever_it_is_asked():
    augmentation = Augmentation(flip="random", translate=2, cutmix=3, cutmix_from=0.0)
    one, other = batches(augmentation), batches(augmentation)
    for step in range(9):
        one.batch(step)
    a, b = one.batch(6), other.batch(6)
    assert torch.equal(a.values, b.values) and torch.equal(a.labels, b.labels) and torch.equal(a.others, b.others)
    c = batches(augmentation, seed=4).batch(6)
    assert not torch.equal(a.values, c.values)


def test_what_is_normalised_has_mean_0_and_spread_1_and_lies_channels_last():
    mean, spread = moments(values())
    x = values().double() / 255
    torch.testing.assert_close(mean, x.mean((0, 1, 2)).float())
    torch.testing.assert_close(spread, x.std((0, 1, 2), correction=0).float())
    out = normalised(values(), mean, spread)
    assert out.shape == (N, 3, EDGE, EDGE)
    assert out.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)


def test_a_map_is_moved_as_a_cut_from_its_mirrored_surroundings():
    drawn = batches(Augmentation(flip=None, translate=2))
    batch = drawn.batch(1)
    x = normalised(values(), drawn.mean, drawn.spread)
    wide = F.pad(x, (2, 2, 2, 2), "reflect")
    shifts = set()
    for got, label in zip(batch.values, batch.labels.tolist(), strict=True):
        cuts = {(r, c): wide[label, :, r : r + EDGE, c : c + EDGE] for r in range(5) for c in range(5)}
        found = [shift for shift, cut in cuts.items() if torch.equal(cut, got)]
        assert len(found) == 1
        shifts.add(found[0])
    assert len(shifts) > 3


def test_flips_alternate_from_epoch_to_epoch():
    drawn = batches(Augmentation(flip="alternating", translate=0))
    x = normalised(values(), drawn.mean, drawn.spread)
    flipped = {}
    for step in range(12):
        batch = drawn.batch(step)
        for got, label in zip(batch.values, batch.labels.tolist(), strict=True):
            assert torch.equal(got, x[label]) or torch.equal(got, x[label].flip(-1))
            flipped.setdefault(label, []).append(torch.equal(got, x[label].flip(-1)))
    assert all(seen in ([True, False, True], [False, True, False]) for seen in flipped.values())
    assert 5 < sum(seen[0] for seen in flipped.values()) < 35


def test_a_square_of_another_map_is_mixed_in_from_the_asked_share_of_the_run_on():
    drawn = batches(Augmentation(flip=None, translate=0, cutmix=4, cutmix_from=0.5))
    assert drawn.batch(19).others is None
    batch = drawn.batch(20)
    x = normalised(values(), drawn.mean, drawn.spread)
    assert batch.mixed == 16 / EDGE**2
    for got, own, other in zip(batch.values, batch.labels.tolist(), batch.others.tolist(), strict=True):
        changed = (got != x[own]).any(dim=0)
        if own != other:
            rows, columns = torch.nonzero(changed, as_tuple=True)
            assert int(rows.max() - rows.min()) < 4 and int(columns.max() - columns.min()) < 4
            torch.testing.assert_close(got[:, changed], x[other][:, changed])


def test_maps_that_begin_small_keep_their_mean():
    drawn = batches(PLAIN, share=lambda step: 2 / 3 if step < 5 else 1.0)
    assert drawn.batch(4).values.shape == (10, 3, 8, 8)
    assert drawn.batch(5).values.shape == (10, 3, EDGE, EDGE)
    flat = torch.full((2, 3, 12, 12), 0.7)
    torch.testing.assert_close(shrunk(flat, (7, 7)), torch.full((2, 3, 7, 7), 0.7))


SKIPPING = Skipping(keep=0.5, start=0.2, end=0.6)


def walked(drawn, steps, learned):
    """Walk over some steps with a loss of each sample that falls with the times it is seen, and more for later ones."""
    for step in steps:
        batch = drawn.batch(step)
        learned.append(sorted(batch.chosen.tolist()))
        drawn.saw(batch, batch.labels.float() / (1 + step))
    return learned


def test_passes_that_begin_in_the_asked_part_of_the_run_are_shorter():
    # 40 samples in batches of 10, 40 steps: passes of 4 until step 8, of 2 until 24, of 4 again.
    starts = [0, 4, *range(8, 24, 2), *range(24, 40, 4)]
    assert passes(40, 10, 40, SKIPPING) == [(start, 20 if 8 <= start < 24 else 40) for start in starts]
    assert passes(40, 10, 8, None) == [(0, 40), (4, 40)]
    assert passes(7, 10, 2, SKIPPING) == [(0, 7), (1, 7)]  # fewer than a batch: all of them


def test_what_is_learned_is_passed_over_by_the_loss_when_it_was_last_seen():
    drawn = batches(PLAIN, skipping=SKIPPING)
    losses = {}
    for start, shown in passes(N, 10, 40, SKIPPING):
        hardest = set(sorted(losses, key=losses.get)[-shown:]) if losses else set(range(N))
        seen = []
        for step in range(start, start + shown // 10):
            batch = drawn.batch(step)
            assert torch.equal(batch.labels, batch.chosen)  # each sample's label is its number
            value = torch.rand(10, generator=torch.Generator().manual_seed(step))
            drawn.saw(batch, value)
            losses |= dict(zip(batch.chosen.tolist(), value.tolist(), strict=True))
            seen += batch.chosen.tolist()
        assert len(seen) == shown and set(seen) == hardest


def test_a_killed_run_passes_over_what_it_would_have_passed_over():
    whole = walked(batches(PLAIN, skipping=SKIPPING), range(40), [])
    for killed in (0, 9, 10, 17, 30):  # within a pass, between two, before and after
        first = batches(PLAIN, skipping=SKIPPING)
        learned = walked(first, range(killed), [])
        again = batches(PLAIN, skipping=SKIPPING)
        again.load_state_dict(first.state_dict())
        assert walked(again, range(killed, 40), learned) == whole
    assert batches(PLAIN).state_dict() == {}
