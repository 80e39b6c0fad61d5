"""A run for other programs: ONNX and safetensors, each with a model card, and checked to say the same."""

from __future__ import annotations

import contextlib
import html
import io
import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from fastrain.core.errors import RunError, SettingError, first_line
from fastrain.core.files import require_folder, write_whole
from fastrain.core.shapes import Float, UInt8
from fastrain.engine.batches import normalised
from fastrain.nets.image_net import ImageNet
from fastrain.vision.judge import Views, over_views
from fastrain.vision.run import ImageRun, net_of

FORMATS = ("onnx", "safetensors")
MODEL = {"onnx": "model.onnx", "safetensors": "model.safetensors"}
CARD = "README.md"
OURS = "library_name: fastrain"  # by which a card is known again
OPSET = 18
CHECKED = 16  # images on which the exported model must agree
# Of the chances' logarithms, so that a chance near one hides nothing; float32 against float32, other orders of summing.
AGREE, LEAST = 1e-3, 1e-6


class Whole(nn.Module):
    """All that comes between an image's bytes and its chances, as one module: in float32, for any batch.

    Args:
        network: see there.
        mean: of each channel, of values 0 to 1.
        spread: of each channel.
        views: that are averaged.
        temperature: of the chances.
    """

    def __init__(
        self, network: ImageNet, mean: list[float], spread: list[float], views: Views, temperature: float
    ) -> None:
        super().__init__()
        self.network, self.views, self.temperature = network, views, temperature
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("spread", torch.tensor(spread))
        self.mean: Tensor
        self.spread: Tensor

    def forward(self, images: UInt8[Tensor, "image y x channel"]) -> Float[Tensor, "image class"]:
        """Return the chances of the classes."""
        x = normalised(images, self.mean, self.spread)
        return torch.softmax(over_views(self.network, x, self.views) / self.temperature, dim=1)


def whole_of(run: ImageRun) -> Whole:
    """Return a run as one module."""
    facts = run.facts
    return Whole(run.network, facts["mean"], facts["spread"], facts["recipe"]["views"], facts["temperature"]).eval()


@dataclass(frozen=True)
class Apart:
    """How far the chances of an exported model are from the run's, on images it was checked on.

    Attributes:
        relative: largest relative difference from the run's network in float32, of chances above a millionth.
        from_predict: largest difference from what the run says by itself, in bfloat16 where that is fast.
    """

    relative: float
    from_predict: float


def export(run: ImageRun, folder: Path, formats: tuple[str, ...] = FORMATS) -> dict[str, Apart]:
    """Write a run's model and its card into a folder, and return by format how far its chances are from the run's own.

    Args:
        run: see there.
        folder: is made if need be; a model of the same format there is replaced.
        formats: onnx (bytes of images in, chances out) and safetensors (weights, with all settings in its header).

    Raises:
        SettingError: an unknown format, or what writes it is not installed.
        RunError: what was written does not say the same as the run; or the folder holds a card that is not of ours, or
            a model that would not be of this card.
    """
    for name in formats:
        if name not in FORMATS:
            raise SettingError(f"--format {name}: expected {' or '.join(FORMATS)}.")
    writers = {"onnx": _onnx, "safetensors": _safetensors}
    require_folder(folder, "--to")
    folder.mkdir(parents=True, exist_ok=True)
    _refuse_others(folder, formats)
    images = _probe(run)
    with torch.no_grad():
        exact, own = whole_of(run)(images), torch.from_numpy(run.chances(images.numpy()))
    apart = {}
    for name in formats:
        unfinished = folder / f".{MODEL[name]}.unfinished"
        try:
            said = writers[name](run, unfinished, images)
            relative = float(((said + LEAST).log() - (exact + LEAST).log()).abs().max())
            apart[name] = Apart(relative, float((said - own).abs().max()))
            if not relative <= AGREE:
                raise RunError(f"{folder / MODEL[name]}: its chances are {relative:.2%} off the run's; not kept.")
            unfinished.replace(folder / MODEL[name])
        except OSError as error:
            if error.filename is None:  # a write that fails does not tell of what
                error.filename = str(folder / MODEL[name])
            raise
        finally:
            unfinished.unlink(missing_ok=True)
    write_whole(folder / CARD, _card(run, formats))
    return apart


def _refuse_others(folder: Path, formats: tuple[str, ...]) -> None:
    """Refuse a folder that holds something that a card written now would replace, or would say wrong things of."""
    card = folder / CARD
    if card.exists() and OURS not in card.read_bytes()[:200].decode("utf-8", "replace"):
        raise RunError(f"{card}: is not a model card of ours; name another --to.")
    for name in FORMATS:
        if name not in formats and (folder / MODEL[name]).exists():
            raise RunError(f"{folder / MODEL[name]}: is of an earlier export; export {name} too, or name another --to.")


def _probe(run: ImageRun) -> UInt8[Tensor, "image y x channel"]:
    """Return images to compare on: noise that is smooth in some and rough in others."""
    height, width, channels = run.shape
    generator = torch.Generator().manual_seed(0)
    rough = torch.rand((CHECKED, channels, height, width), generator=generator)
    smooth = nn.functional.interpolate(rough[:, :, : (height + 3) // 4, : (width + 3) // 4], size=(height, width))
    mixed = torch.where((torch.arange(CHECKED) % 2 == 0)[:, None, None, None], rough, smooth)
    return (mixed * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _onnx(run: ImageRun, path: Path, images: UInt8[Tensor, "image y x channel"]) -> Float[Tensor, "image class"]:
    """Write the model, and return what it says of images."""
    try:
        import onnx
        import onnxruntime
        import onnxscript  # noqa: F401  what torch writes ONNX with
    except ImportError as error:
        raise SettingError(f"--format onnx: {error.name} is not installed: pip install 'fastrain[export]'.") from None
    model = whole_of(run)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            model,
            (images[:2],),
            dynamo=True,
            opset_version=OPSET,
            input_names=["images"],
            output_names=["chances"],
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1, max=65536)}},
            verbose=False,
        )
    made = cast(Any, program).model_proto
    for key, value in (("classes", json.dumps(run.classes)), ("card", CARD), ("source", "fastrain")):
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    onnx.checker.check_model(made)
    path.write_bytes(made.SerializeToString())
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    # The number of images is free: one alone, and the rest.
    said = [session.run(None, {"images": part.numpy()})[0] for part in (images[:1], images[1:])]
    return torch.from_numpy(np.concatenate(said))


def _safetensors(run: ImageRun, path: Path, images: UInt8[Tensor, "image y x channel"]) -> Float[Tensor, "image class"]:
    """Write the weights, and return what a network that is built from the file alone says of images."""
    try:
        from safetensors import safe_open
        from safetensors.torch import load_file, save
    except ImportError:
        raise SettingError(
            "--format safetensors: safetensors is not installed: pip install 'fastrain[export]'."
        ) from None
    facts = {key: run.facts[key] for key in ("classes", "shape", "mean", "spread", "temperature", "recipe")}
    state = {name: value.contiguous() for name, value in run.network.state_dict().items()}
    path.write_bytes(save(state, metadata={"fastrain": json.dumps(facts), "format": "pt"}))
    with safe_open(str(path), "pt") as file:
        kept = json.loads(file.metadata()["fastrain"])
    again = ImageNet(kept["shape"][2], len(kept["classes"]), net_of(kept["recipe"]["net"]))
    try:
        again.load_state_dict(load_file(str(path)))
    except RuntimeError as error:
        raise RunError(f"{path}: cannot be read again ({first_line(error)}).") from None
    other = Whole(again, kept["mean"], kept["spread"], kept["recipe"]["views"], kept["temperature"]).eval()
    with torch.no_grad():
        out: Tensor = other(images)
    return out


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's own talk, which is of its insides, off the user's screen."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


def _in_markdown(text: str) -> str:
    """Return a name as Markdown shows it, on one line of a table, whatever it holds."""
    plain = "".join(c if c.isprintable() else " " for c in text)
    return "".join(f"\\{c}" if c in "\\`*_[]|#" else html.escape(c) for c in plain)


def _card(run: ImageRun, formats: tuple[str, ...]) -> str:
    facts = run.facts
    height, width, channels = run.shape
    said = facts["judged"]
    trained, tested = (sum(facts["images"][which]) for which in ("train", "test"))
    rows = "\n".join(
        f"| {_in_markdown(name)} | {facts['images']['train'][i]} | {facts['images']['test'][i]} | "
        f"{'–' if said['recall'][i] is None else format(said['recall'][i], '.1%')} |"
        for i, name in enumerate(run.classes)
    )
    files = {
        "onnx": f"- `{MODEL['onnx']}`: in: `images`, bytes (image, {height}, {width}, {channels}), values 0 to 255, "
        f"{'grey' if channels == 1 else 'red, green, blue'}; out: `chances` (image, {len(run.classes)}) in the order "
        "of the table below. Normalising, the averaged views and the calibration are inside.",
        "safetensors": f"- `{MODEL['safetensors']}`: the weights; its header (`fastrain`) holds the settings, mean and "
        "spread of the channels, and the temperature that the logits are divided by.",
    }
    listed = "\n".join(files[name] for name in formats)
    held = "held out" if facts["held_out"] else "the data set's own"
    return f"""---
{OURS}
pipeline_tag: image-classification
tags: [image-classification]
---

# {_in_markdown(facts["data"])}: {len(run.classes)} classes

A small-image network, trained by [fastrain](https://pypi.org/project/fastrain/) {facts["fastrain"]} on {trained} images
of {width}×{height} pixels in {facts["seconds"]:.0f} s.

{listed}

## How right it is

On {tested} test images ({held}): {said["accuracy"]:.2%} told right, {said["balanced_accuracy"]:.2%} as the mean over
the classes; log loss {said["log_loss"]:.3f}; its chances are {said["calibration_error"]:.2%} off the share that comes
true.

| class | trained on | tested on | found of these |
|---|---|---|---|
{rows}

## What it is not for

It knows images like those it was trained on, and nothing else: every picture is given one of its classes. Its chances
are honest for pictures like the test images only. `fastrain vision predict` computes in bfloat16 where the processor is
fast at it, these files in float32: chances differ by what is rounded.

Recipe: {facts["recipe"]["epochs"]:.3g} epochs in batches of {facts["recipe"]["batch"]}, seed {facts["seed"]};
images {facts["data_identity"]}.
"""
