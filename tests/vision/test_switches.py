"""Every switch of a recipe, against what it says worked out in the plainest way."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from blobs import CPU, blobs, dataset, small

from fastrain.engine.batches import Augmentation, Batch, Batches, normalised
from fastrain.engine.precision import fast_precision
from fastrain.nets.image_net import ImageNet, NetSettings
from fastrain.nets.whitening import Whitening
from fastrain.vision import train as module
from fastrain.vision.recipes import Averages, MuonRates, Recipe, SgdRates
from fastrain.vision.steering import average_of
from fastrain.vision.train import batches_of, loss_of, train


def highest_of_each_2x2(x):
    """Return it in so many words, a last odd row or column left out."""
    rows, columns = x.shape[-2] // 2, x.shape[-1] // 2
    corners = [x[..., i : i + 2 * rows : 2, j : j + 2 * columns : 2] for i in (0, 1) for j in (0, 1)]
    return torch.stack(corners).amax(dim=0)


BENT = {
    "gelu": lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)),
    "relu": lambda x: x.clamp(min=0),
    "silu": lambda x: x / (1 + torch.exp(-x)),
}


def by_hand(network, x, settings, *, training):
    """Return a network's logits from its weights alone, in float64."""
    held = {name: value.double() for name, value in network.state_dict().items()}
    x, bend = x.double(), BENT[settings.activation]

    def normed(y, name):
        mean, variance = held[f"{name}.running_mean"], held[f"{name}.running_var"]
        if training:
            mean, variance = y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0)
        y = (y - mean[:, None, None]) / (variance[:, None, None] + 1e-12).sqrt()
        return y + held[f"{name}.bias"][:, None, None]

    filters = held["stem.weight"]
    both = torch.cat([filters, -filters]) if settings.both_signs else filters
    x = F.conv2d(x, both, held["stem.bias"], stride=settings.stride, padding=settings.padding)
    if settings.project is not None:
        x = normed(torch.einsum("oc,bcyx->boyx", held["project.0.weight"][:, :, 0, 0], x), "project.1")
    x = bend(x)
    for g, (depth, pool) in enumerate(zip(settings.depths, settings.pools, strict=True)):
        x = highest_of_each_2x2(x) if pool == "before" else x
        first = x  # the group's first map, once there is one
        for i in range(depth):
            x = F.conv2d(x, held[f"groups.{g}.convolutions.{i}.weight"], padding=1)
            if i == 0 and pool == "after":
                x = highest_of_each_2x2(x)
            if i > 0 and i == depth - 1 and (settings.squeeze_excite or settings.excite_ratio):
                gate, of = f"groups.{g}.excite", first.mean((2, 3))
                of = of @ held[f"{gate}.squeeze.weight"].flatten(1).T + held[f"{gate}.squeeze.bias"]
                of = of.clamp(min=0) @ held[f"{gate}.excite.weight"].flatten(1).T + held[f"{gate}.excite.bias"]
                x = x / (1 + torch.exp(-of))[:, :, None, None]
            x = bend(normed(x, f"groups.{g}.norms.{i}"))
            first = x if i == 0 else first
        if settings.around and depth > 2:
            x = x + first
    scale = settings.head_scale if settings.head_scale is not None else 1 / settings.widths[-1]
    return x.flatten(2).max(dim=2).values @ held["head.weight"].T * scale


SMALL = NetSettings(widths=(8, 16, 16))
SETTINGS = {
    "as it is": SMALL,
    "widths": replace(SMALL, widths=(16, 8, 24)),
    "depths": replace(SMALL, depths=(1, 2, 3)),
    "halved before": replace(SMALL, pools=("after", "before", "after")),
    "not halved": replace(SMALL, pools=("after", "none", "after")),
    "kernel": replace(SMALL, kernel=3),
    "kernel, stride": replace(SMALL, kernel=4, stride=2, pools=("none", "after", "after")),
    "padding": replace(SMALL, kernel=3, padding=1),
    "directions": replace(SMALL, directions=8),
    "one sign": replace(SMALL, both_signs=False),
    "project": replace(SMALL, project=8),
    "ReLU": replace(SMALL, activation="relu"),
    "SiLU": replace(SMALL, activation="silu"),
    "squeeze-and-excite": replace(SMALL, squeeze_excite=4),
    "squeeze-and-excite, by ratio": replace(SMALL, excite_ratio=8, depths=(2, 1, 3)),
    "around": replace(SMALL, depths=(3, 2, 3), around=True),
    "head's scale": replace(SMALL, head_scale=0.7),
    "channels first": replace(SMALL, channels_last=False),
}


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("name", SETTINGS)
def test_a_network_is_what_its_settings_say(name, training):
    settings = SETTINGS[name]
    torch.manual_seed(3)
    network = ImageNet(3, 5, settings)
    x = torch.randn(6, 3, 33, 30).contiguous(memory_format=torch.channels_last)
    network.stem.fit(x)
    with torch.no_grad():  # what starts at nothing would not be told from what is left out
        for part, value in network.named_parameters():
            if value.ndim == 1 and value.requires_grad:
                value.normal_(std=0.3)
            elif "excite" in part:
                value.normal_(std=0.5)
        for part, value in network.named_buffers():
            if "running" in part:
                value.uniform_(0.5, 1.5).sub_(1.0 if part.endswith("mean") else 0.0)
    expected = by_hand(network, x, settings, training=training)
    network.train(training)
    torch.testing.assert_close(network(x).double(), expected, atol=2e-3, rtol=2e-3)
    assert expected.std() > 0.01


def test_the_compression_is_a_number_or_a_ratio():
    fixed, ratio = (ImageNet(3, 5, replace(SMALL, **gate)) for gate in ({"squeeze_excite": 6}, {"excite_ratio": 4}))
    assert [group.excite.squeeze.weight.shape[0] for group in fixed.groups] == [6, 6, 6]
    assert [group.excite.squeeze.weight.shape[0] for group in ratio.groups] == [2, 4, 4]


@pytest.mark.parametrize("share", [0.1, 0.4])
def test_the_norms_keep_the_asked_share_of_a_steps_statistics(share):
    torch.manual_seed(0)
    network = ImageNet(3, 5, replace(SMALL, norm_share=share)).train()
    x = torch.randn(8, 3, 16, 16)
    network.stem.fit(x)
    seen = []
    network.groups[0].convolutions[0].register_forward_hook(lambda _, given, out: seen.append(given[0]))
    network.groups[0].convolutions[0].halved = lambda x: None  # so that the convolution's map is seen
    network(x)
    y = highest_of_each_2x2(F.conv2d(seen[0], network.groups[0].convolutions[0].weight, padding=1))
    norm = network.groups[0].norms[0]
    torch.testing.assert_close(norm.running_mean, share * y.mean((0, 2, 3)), atol=1e-4, rtol=1e-3)
    expected = (1 - share) + share * y.var((0, 2, 3))
    torch.testing.assert_close(norm.running_var, expected, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("floor", [1e-3, 0.2])
@pytest.mark.parametrize(("kernel", "channels"), [(2, 3), (3, 1), (4, 2)])
def test_the_whitenings_floor_is_a_share_of_the_largest_variance(kernel, channels, floor):
    torch.manual_seed(0)
    sample = F.avg_pool2d(torch.randn(40, channels, 22, 22), 5, stride=1)  # neighbours say nearly the same
    count = channels * kernel**2
    stem = Whitening(channels, count, kernel)
    stem.fit(sample, floor)
    patches = F.unfold(sample, kernel).transpose(1, 2).flatten(0, 1).double().numpy()
    variances = np.sort(np.linalg.eigvalsh(np.cov(patches.T)))[::-1]
    out = F.conv2d(sample, stem.weight).transpose(0, 1).flatten(1).double().numpy()
    found = np.cov(out)
    expected = variances / (variances + floor * variances[0])
    np.testing.assert_allclose(np.diag(found), expected, rtol=2e-3)
    assert np.abs(found - np.diag(np.diag(found))).max() < 1e-3


def test_a_sample_of_many_parts_whitens_as_one(monkeypatch):
    torch.manual_seed(0)
    sample = F.avg_pool2d(torch.randn(23, 3, 22, 22), 5, stride=1) + 2
    whole, parts = Whitening(3, 12), Whitening(3, 12)
    whole.fit(sample)
    monkeypatch.setattr("fastrain.nets.whitening.PATCHES", 5 * 3 * 18 * 18 * 4)
    parts.fit(sample)
    torch.testing.assert_close(parts.weight, whole.weight, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(parts.bias, whole.bias, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("last", [True, False])
def test_maps_lie_as_they_are_told_and_teach_the_same(last, one_thread):
    found = []
    for settings in (replace(SMALL, channels_last=last), SMALL):
        torch.manual_seed(3)
        network = ImageNet(3, 5, settings).train()
        x = torch.randn(32, 3, 33, 30).contiguous(memory_format=torch.channels_last)
        network.stem.fit(x)
        seen = []
        for layer in (network.groups[1].convolutions[1], network.groups[2].convolutions[1]):
            layer.register_forward_hook(lambda _, given, out, seen=seen: seen.extend((given[0], out)))
        network(x).square().sum().backward()
        found.append(torch.cat([p.grad.flatten() for p in network.parameters() if p.grad is not None]))
        if settings.channels_last == last:
            layout = torch.channels_last if last else torch.contiguous_format
            assert len(seen) == 4 and all(y.is_contiguous(memory_format=layout) for y in seen)
    assert (found[0] - found[1]).norm() < 1e-3 * found[1].norm()


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_run_computes_in_what_its_recipe_says(precision, monkeypatch):
    seen = set()
    logits = ImageNet._logits
    monkeypatch.setattr(
        ImageNet, "_logits", lambda net, x: seen.add((net.training, logits(net, x).dtype)) or logits(net, x)
    )
    train(dataset(), replace(small(Recipe()), precision=precision, epochs=0.2), seed=0, device=CPU)
    assert (True, getattr(torch, precision)) in seen
    assert Recipe(precision=precision).precision_on(CPU) == precision
    assert Recipe().precision_on(CPU) == fast_precision("cpu")


class Given(torch.nn.Module):
    """Says the logits it was given."""

    def __init__(self, logits):
        super().__init__()
        self.logits = logits

    def forward(self, x):
        return self.logits


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("scale", [1.0, 0.5])
@pytest.mark.parametrize("mixed", [0.0, 0.3])
def test_the_loss_is_the_cross_entropy_with_smoothed_and_mixed_labels_summed_and_scaled(smoothing, scale, mixed):
    draw = np.random.default_rng(0)
    logits, labels, others = draw.normal(size=(9, 4)), draw.integers(0, 4, 9), draw.integers(0, 4, 9)
    wanted = (1 - mixed) * np.eye(4)[labels] + mixed * np.eye(4)[others]
    wanted = (1 - smoothing) * wanted + smoothing / 4
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    expected = -scale * (wanted * logs).sum()
    batch = Batch(
        torch.zeros(9, 3, 4, 4),
        torch.from_numpy(labels),
        torch.arange(9),
        torch.from_numpy(others) if mixed else None,
        mixed,
    )
    seen = []
    network = Given(torch.from_numpy(logits).float())
    loss = loss_of(network, batch, smoothing=smoothing, scale=scale, saw=lambda _, each: seen.append(each))
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    # By its own label as it is, unsmoothed.
    np.testing.assert_allclose(seen[0].numpy(), -logs[np.arange(9), labels], rtol=1e-5)


def test_a_run_takes_smoothing_scale_batch_and_epochs_from_its_recipe(monkeypatch):
    asked, sizes = [], []
    loss, forward = module.loss_of, ImageNet.forward

    def spy(network, batch, **more):
        asked.append((more["smoothing"], more["scale"]))
        return loss(network, batch, **more)

    def count(network, x):
        if network.training:
            sizes.append(len(x))
        return forward(network, x)

    monkeypatch.setattr(module, "loss_of", spy)
    monkeypatch.setattr(ImageNet, "forward", count)
    recipe = replace(small(Recipe()), smoothing=0.1, loss_scale=0.25, batch=40, epochs=1.5)
    trained = train(dataset(), recipe, seed=0, device=CPU)
    assert set(asked) == {(0.1, 0.25)}
    assert sizes == [40] * 23  # of 600 images 15 batches an epoch, one and a half times, rounded up
    assert [round(epoch.epoch, 2) for epoch in trained.epochs] == [1.0, 1.53]


def test_a_view_is_one_look():
    data = dataset()
    recipe = replace(small(Recipe()), epochs=1.0, views="one")
    trained = train(data, recipe, seed=0, device=CPU)
    x = normalised(torch.from_numpy(data.test.images), trained.mean, trained.spread)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16, enabled=False):
        found = trained.network.eval()(x).argmax(dim=1).numpy()
    share = np.mean(found == data.test.labels)
    assert trained.accuracy_views == trained.accuracy == pytest.approx(share, abs=0.02)  # bfloat16 may tell a few apart


@pytest.mark.parametrize("copy_back", [False, True])
@pytest.mark.parametrize("power", [None, 3.0])
def test_an_average_starts_when_it_is_told_and_forgets_as_it_is_told(copy_back, power):
    """Of a network of one weight, told by its step, the average is worked out by hand."""
    network = torch.nn.Linear(1, 1, bias=False)
    per_epoch, steps = 5, 40
    averages = Averages(decay=0.8, every=3, start=2.0, power=power, copy_back=copy_back)
    average = average_of(network, averages, steps, per_epoch)
    mine = None
    for step in range(steps):
        weight = float(network.weight.detach()) + 1.0 + 0.1 * step  # a step of some optimiser
        with torch.no_grad():
            network.weight.fill_(weight)
        average.update(network)
        if step == 10:
            mine = weight
        elif step > 10 and (step - 10) % 3 == 0:
            kept = 0.8 if power is None else 0.8 * ((step + 1) / steps) ** power
            mine = kept * mine + (1 - kept) * weight
            weight = mine if copy_back else weight
        assert average.started == (step >= 10)
        assert float(network.weight.detach()) == pytest.approx(weight, rel=1e-5)
        if mine is not None:
            assert float(average.model.weight) == pytest.approx(mine, rel=1e-5)
    assert average_of(network, None, steps, per_epoch) is None


def test_flips_at_random_are_of_every_other_image_anew():
    split = blobs(200, 5, edge=12)
    values, labels = torch.from_numpy(split.images), torch.arange(200)
    settings = {"size": 100, "steps": 20, "seed": 1}
    drawn = Batches(values, labels, augmentation=Augmentation(flip="random", translate=0), **settings)
    x = normalised(values, drawn.mean, drawn.spread)
    flipped = torch.zeros(10, 200)
    for step in range(20):
        batch = drawn.batch(step)
        for got, label in zip(batch.values, batch.labels.tolist(), strict=True):
            mirrored = torch.equal(got, x[label].flip(-1))
            assert mirrored or torch.equal(got, x[label])
            flipped[step // 2, label] = mirrored
    assert 0.45 < flipped.mean() < 0.55
    # Anew in each pass: hardly any image is flipped in all ten, or in every other one.
    assert ((flipped.sum(dim=0) == 0) | (flipped.sum(dim=0) == 10)).float().mean() < 0.05
    assert (flipped[1:] == flipped[:-1]).float().mean() == pytest.approx(0.5, abs=0.05)


def test_a_recipes_augmentation_is_what_its_batches_do():
    split = blobs(120, 5)
    recipe = replace(
        Recipe(), batch=40, augmentation=Augmentation(flip="random", translate=3, cutmix=5, cutmix_from=0.5)
    )
    drawn = batches_of(recipe, torch.from_numpy(split.images), torch.from_numpy(split.labels), 30, seed=2)
    assert drawn.augmentation == recipe.augmentation and drawn.size == 40 and drawn.skipping is None
    assert drawn.batch(14).others is None and drawn.batch(15).mixed == 25 / 16**2


def test_every_switch_is_one_that_is_tested():
    """A new field of a recipe wants a test: here, or where the comment says."""
    tested = {
        Recipe: {
            *("net", "rates", "augmentation"),  # below
            *("epochs", "batch", "smoothing", "loss_scale", "averages", "views"),  # here
            "precision",  # here
            *("stem_bias_epochs", "first_group_until", "edges", "skipping", "compile"),  # test_speedrun, test_batches
        },
        NetSettings: {
            *("widths", "depths", "pools", "kernel", "stride", "padding", "directions", "both_signs"),  # here
            *("whitening_floor", "project", "activation", "norm_share", "squeeze_excite", "excite_ratio"),  # here
            *("around", "head_scale", "channels_last"),  # here
            *("dirac", "head_spread"),  # test_image_net, test_speedrun
        },
        Augmentation: {"flip", "translate", "cutmix", "cutmix_from"},  # here, test_batches
        Averages: {"decay", "every", "start", "power", "copy_back"},  # here
        MuonRates: {"filters", "filters_momentum", "biases", "head", "momentum", "decay"},  # test_speedrun
        SgdRates: {"weights", "biases", "momentum", "decay", "peak_at", "end", "until"},  # test_speedrun
    }
    for settings, names in tested.items():
        assert set(settings.__dataclass_fields__) == names
