"""People's own images: read, trained on, judged, asked, and taken elsewhere."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from colours import COLOURS, draw, folder_of
from images import images, write_parquet
from PIL import Image
from program import BARE, PROGRAM, call

from fastrain.core.errors import DamagedFile, RunError, SourceError, TooBig, TooShort, UsageError
from fastrain.engine.fit import FitSettings
from fastrain.engine.precision import fast_precision
from fastrain.engine.threads import choose_threads
from fastrain.nets.image_net import ImageNet
from fastrain.vision.datasets import Dataset, open_dataset
from fastrain.vision.export import whole_of
from fastrain.vision.folders import passed_over
from fastrain.vision.images import Reading, picture
from fastrain.vision.judge import calibration_error, chances_at, judged, log_loss, temperature_of
from fastrain.vision.plan import Probe
from fastrain.vision.predict import pictures_under
from fastrain.vision.recipes import AIRBENCH94, CPU, RECIPES
from fastrain.vision.run import open_image_run, train_run
from fastrain.vision.settle import settled
from fastrain.vision.splits import Split


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder of images, and a run made from it by the command line."""
    path = tmp_path_factory.mktemp("own")
    folder_of(path / "colours")
    bare = [sys.executable, "-c", BARE]  # where the radar half's libraries are not installed
    done = call("vision", "train", path / "colours", "--run", path / "run", "--epochs", "20", "--json", program=bare)
    assert done.returncode == 0, done.stderr
    return path, json.loads(done.stdout), done.stderr


def test_the_command_trains_on_a_folder_and_tells_its_classes_apart(trained):
    path, facts, said = trained
    assert facts["classes"] == ["blue", "green", "red"]
    assert facts["held_out"]
    assert facts["images"] == {"train": [24, 16, 10], "test": [6, 4, 2]}
    assert facts["judged"]["accuracy"] > 0.9
    assert "about" in said and "of memory" in said
    assert json.loads((path / "run" / "run.json").read_text()) == facts


def test_the_report_shows_curve_confusion_and_words_of_caution(trained):
    path, facts, _ = trained
    page = (path / "run" / "report.html").read_text()
    assert page.count("<svg") == 3
    of_accuracy = page[page.index("<title>Accuracy by epoch") :].split("</svg>")[0]
    assert max(float(x) for x in re.findall(r">([\d.]+)</text>", of_accuracy)) <= 100
    for i, row in enumerate(facts["judged"]["confusion"]):
        assert f"<th><span class='name' title='{facts['classes'][i]}'>" in page
        assert sum(row) == facts["images"]["test"][i]
    assert "Only 12 test images" in page
    assert "http://" not in page.replace("http://www.w3.org/2000/svg", "")  # nothing comes from elsewhere


def test_predict_says_what_the_run_says(trained, tmp_path):
    path, facts, _ = trained
    asked = [draw("red", 900 + i) for i in range(3)]
    for i, image in enumerate(asked):
        image.save(tmp_path / f"{i}.png")
    draw("green", 5).resize((32, 32), Image.Resampling.NEAREST).save(tmp_path / "large.png")
    draw("blue", 6, mode="L").save(tmp_path / "grey.png")
    done = call("vision", "predict", path / "run", tmp_path, "--json")
    assert done.returncode == 0, done.stderr
    said = {one["file"].split("/")[-1]: one for one in json.loads(done.stdout)["pictures"]}
    run = open_image_run(path / "run")
    chances = run.chances(np.stack([np.asarray(image) for image in asked]))
    for i in range(3):
        one = said[f"{i}.png"]
        assert list(one["chances"]) == facts["classes"]
        np.testing.assert_allclose(list(one["chances"].values()), chances[i], atol=1e-2)  # bf16, other batch
        assert sum(one["chances"].values()) == pytest.approx(1, abs=1e-6)
        assert one["class"] == "red" and one["chance"] == max(one["chances"].values())
        assert not one["scaled"]
    assert said["large.png"]["scaled"] and said["large.png"]["class"] == "green"
    assert "grey.png" in said
    assert "1 of 5 pictures were cut and scaled" in done.stderr


def test_predict_writes_a_table(trained, tmp_path):
    path, facts, _ = trained
    draw("blue", 1).save(tmp_path / "a, b.png")
    done = call("vision", "predict", path / "run", tmp_path / "a, b.png", "--to", tmp_path / "out.csv")
    assert done.returncode == 0, done.stderr
    rows = list(csv.DictReader(io.StringIO((tmp_path / "out.csv").read_text())))
    assert len(rows) == 1 and rows[0]["file"].endswith("a, b.png")
    assert rows[0]["class"] == max(facts["classes"], key=lambda name: float(rows[0][f"chance of {name}"]))


def test_pictures_that_cannot_be_read_are_named_and_the_others_are_told(trained, tmp_path):
    path, *_ = trained
    draw("red", 1).save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n rest")
    done = call("vision", "predict", path / "run", tmp_path, "--json")
    assert done.returncode == 1
    assert [one["file"] for one in json.loads(done.stdout)["broken"]] == [str(tmp_path / "bad.png")]
    assert len(json.loads(done.stdout)["pictures"]) == 1
    (tmp_path / "good.png").unlink()
    done = call("vision", "predict", path / "run", tmp_path)
    assert done.returncode == 1 and "None of 1 pictures" in done.stderr


def test_names_that_are_no_text_break_neither_table_nor_screen(trained, tmp_path):
    path, *_ = trained
    draw("blue", 1).save(tmp_path / "a.png")
    (tmp_path / "a.png").rename(tmp_path / os.fsdecode(b"b\xff\x1b[2J.png"))
    for more in ((), ("--to", tmp_path / "out.csv"), ("--to", tmp_path / "out.json"), ("--json",)):
        done = call("vision", "predict", path / "run", tmp_path, *more)
        assert done.returncode == 0, done.stderr
        assert "\x1b" not in done.stdout + done.stderr
    assert "b?" in (tmp_path / "out.csv").read_text()


@pytest.mark.parametrize(
    ("format", "left", "said"),
    [("onnx,safetensors", "README.md", "not a model card of ours"), ("safetensors", "model.onnx", "earlier export")],
)
def test_export_replaces_nothing_that_is_not_its_own(trained, tmp_path, format, left, said):
    path, *_ = trained
    (tmp_path / left).write_text("# My project")
    done = call("vision", "export", path / "run", "--to", tmp_path, "--format", format)
    assert done.returncode == 1 and said in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == [left] and (tmp_path / left).read_text() == "# My project"


def test_the_report_names_rare_classes_and_all_that_was_left_out(tmp_path):
    folder = folder_of(tmp_path / "colours", counts=(60, 60, 10))
    for i in range(3):
        (folder / "blue" / f"{i:03d}.png").write_bytes(b"<no picture>")
    done = call(
        "vision", "train", folder, "--run", tmp_path / "run", "--epochs", "1", "--recipe", "airbench94", "--skip-broken"
    )
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "run" / "report.html").read_text()
    assert "1 of 3 classes have under 10 test images (red)" in page
    assert all(f"blue/{i:03d}.png: " in page for i in range(3))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--to", "x.txt"), "expected a name that ends in .csv or .json"),
        (("--to", "nowhere/x.csv"), "there is no folder"),
    ],
)
def test_wrong_usage_of_predict_is_one_line_and_status_2(trained, more, said):
    path, *_ = trained
    done = call("vision", "predict", path / "run", path / "colours", *more)
    assert done.returncode == 2 and said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_what_is_exported_agrees_with_the_run(trained, tmp_path):
    import onnxruntime
    from safetensors.torch import load_file

    path, facts, _ = trained
    done = call("vision", "export", path / "run", "--to", tmp_path / "out", "--json")
    assert done.returncode == 0, done.stderr
    apart = json.loads(done.stdout)["apart"]
    assert set(apart) == {"onnx", "safetensors"}
    run = open_image_run(path / "run")
    from fastrain.vision.export import _probe

    checked = _probe(run).numpy()
    made = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    own = np.abs(made.run(None, {"images": checked})[0] - run.chances(checked)).max()
    assert apart["onnx"]["from_predict"] == pytest.approx(own, rel=1e-3)
    assert 0 <= apart["onnx"]["relative"] < 1e-3
    images = np.stack([np.asarray(draw(c, 70 + i)) for i, c in enumerate([*COLOURS] * 3)])
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert json.loads(session.get_modelmeta().custom_metadata_map["classes"]) == facts["classes"]
    said = session.run(None, {"images": images})[0]
    np.testing.assert_allclose(said, run.chances(images), atol=0.03)  # the run may compute in bfloat16
    with torch.no_grad():
        np.testing.assert_allclose(said, whole_of(run)(torch.from_numpy(images)).numpy(), rtol=1e-3, atol=1e-6)
    network = ImageNet(3, 3, run.network.settings)
    network.load_state_dict(load_file(tmp_path / "out" / "model.safetensors"))
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\n") and "| green |" in card
    assert f"{facts['judged']['accuracy']:.2%} told right" in card


def test_an_exported_model_that_disagrees_is_not_kept(trained, tmp_path, monkeypatch):
    from fastrain.vision import export

    monkeypatch.setattr(export, "AGREE", -1.0)
    path, *_ = trained
    with pytest.raises(RunError, match="off the run's; not kept"):
        export.export(open_image_run(path / "run"), tmp_path / "out", ("safetensors",))
    assert not list((tmp_path / "out").glob("*model*"))


def test_a_finished_run_is_not_written_over(trained):
    path, *_ = trained
    done = call("vision", "train", path / "colours", "--run", path / "run")
    assert done.returncode == 1 and "holds a finished run" in done.stderr


def test_a_run_that_is_damaged_or_none_is_refused_in_one_line(trained, tmp_path):
    path, facts, _ = trained
    with pytest.raises(RunError, match="no run is here"):
        open_image_run(tmp_path)
    for text, said in (
        ("{", "cannot be read"),
        ('{"fastrain_run": 1}', "a run of the rain task"),
        ('{"fastrain_image_run": 1}', "lacks classes"),
    ):
        (tmp_path / "run.json").write_text(text)
        with pytest.raises(RunError, match=said):
            open_image_run(tmp_path)
    (tmp_path / "run.json").write_text(json.dumps(facts))
    (tmp_path / "weights.pt").write_bytes((path / "run" / "weights.pt").read_bytes()[:5000])
    with pytest.raises(RunError, match="weights cannot be read"):
        _ = open_image_run(tmp_path).network


def test_a_killed_run_goes_on_to_the_same_network(tmp_path, monkeypatch):
    folder_of(tmp_path / "colours", counts=(40, 40, 40))
    command = [*PROGRAM, "vision", "train"]
    more = [str(tmp_path / "colours"), "--epochs", "16", "--recipe", "airbench94"]
    # Checkpoints every moment, so that a kill leaves one.
    quick = f"import fastrain.engine.fit as f, dataclasses as d; old = f.FitSettings.__init__\n{_EAGER}"
    command[2] = f"{quick}\n{command[2]}"
    for name in ("whole", "killed"):
        begun = [*command, *more, "--threads", "1", "--run", str(tmp_path / name)]
        process = subprocess.Popen(begun, stderr=subprocess.DEVNULL)
        if name == "whole":
            assert process.wait(timeout=300) == 0
            continue
        for _ in range(3000):
            if (tmp_path / name / "curve.jsonl").exists() and len(
                (tmp_path / name / "curve.jsonl").read_text().splitlines()
            ) > 5:
                break
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        with pytest.raises(RunError, match="training is not finished"):
            open_image_run(tmp_path / name)
        other = call("vision", "train", *more[:2], "30", "--recipe", "airbench94", "--run", tmp_path / name)
        assert other.returncode == 1 and "of other images or settings" in other.stderr
        done = subprocess.run(
            [*command, *more, "--run", str(tmp_path / name)], capture_output=True, text=True, check=True
        )
        assert "goes on from step" in done.stderr and ", with 1 thread." in done.stderr
        # What is planned is what is left, and nothing is said within the table.
        step, whole = map(int, re.search(r"goes on from step (\d+) of (\d+)", done.stderr).groups())
        assert re.search(r"(\d+) steps of", done.stderr)[1] == str(whole - step)
        assert done.stderr.index("goes on") < done.stderr.index("steps of") < done.stderr.index("epoch │")
    runs = [open_image_run(tmp_path / name) for name in ("whole", "killed")]
    for a, b in zip(*(run.network.state_dict().values() for run in runs), strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=0)
    curves = [[e["epoch"] for e in run.facts["epochs"]] for run in runs]
    assert curves[0] == curves[1]
    assert sorted(e["seconds"] for e in runs[1].facts["epochs"]) == [e["seconds"] for e in runs[1].facts["epochs"]]
    assert sorted(path.name for path in (tmp_path / "killed").iterdir()) == ["report.html", "run.json", "weights.pt"]


def quick_run(path, epochs=2.0, **more):
    folder_of(path / "colours", counts=(8, 8, 8))
    data = open_dataset(path / "colours")
    recipe = replace(settled(AIRBENCH94, len(data.train.labels), (16, 16)), epochs=epochs)
    return lambda **given: train_run(
        data, path / "run", recipe, seed=0, device=torch.device("cpu"), threads=1, **more, **given
    )


def test_a_run_counts_as_finished_only_when_its_report_is_written(tmp_path):
    train = quick_run(tmp_path)

    def full(*_):
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        train(report=full)
    with pytest.raises(RunError, match="not finished"):
        open_image_run(tmp_path / "run")
    seen = []
    run, found, chances = train(report=lambda *judged: seen.append(judged))
    assert [judged[1] for judged in seen] == [found] and seen[0][2] is chances
    assert open_image_run(tmp_path / "run").facts == json.loads(json.dumps(run.facts))


@pytest.mark.parametrize(
    ("name", "said"),
    [("training.json", "its training.json cannot be read; remove the folder"), ("training.pt", "cannot be read")],
)
def test_a_checkpoint_that_is_damaged_is_named_and_left_as_it_is(tmp_path, monkeypatch, name, said):
    import fastrain.vision.train as module

    monkeypatch.setattr(module, "FitSettings", lambda *a, **b: FitSettings(*a, **b, checkpoint_seconds=0.0))

    class Killed(Exception):
        pass

    def kill(epoch):
        if epoch.epoch >= 3:
            raise Killed

    train = quick_run(tmp_path, epochs=6.0)
    with pytest.raises(Killed):
        train(progress=kill)
    path = tmp_path / "run" / name
    (tmp_path / "run" / "training.before.pt").unlink()
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", None):
        if damaged is None and name == "training.json":
            path.unlink()
        elif damaged is None:
            continue
        else:
            path.write_bytes(damaged)
        with pytest.raises(RunError, match=said):
            train()
    path.write_bytes(whole)
    lines = []
    # As if gone on with on a machine that is fast at something else.
    began_in = fast_precision("cpu")
    other = "float32" if began_in == "bfloat16" else "bfloat16"
    monkeypatch.setattr("fastrain.vision.recipes.fast_precision", lambda _: other)
    run, _, _ = train(say=lines.append)
    assert "goes on from step" in lines[0]
    assert run.facts["precision"] == began_in


@pytest.mark.parametrize(
    ("error", "kind", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), TooBig, "more memory than there is"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory"), TooBig, "more memory than there is"),
        (FloatingPointError("the loss became nan at step 3"), RunError, "went astray"),
    ],
)
def test_what_befalls_a_training_is_told_in_our_words(tmp_path, monkeypatch, error, kind, said):
    import fastrain.vision.run as module

    def broken(*_):
        raise error

    monkeypatch.setattr(module, "_test_logits", broken)
    with pytest.raises(kind, match=said):
        quick_run(tmp_path)()
    assert not (tmp_path / "run" / "run.json").exists()


def test_images_whose_mirrors_are_something_else_are_not_mirrored(tmp_path):
    folder_of(tmp_path / "colours", counts=(8, 8, 8))
    done = call(
        "vision", "train", tmp_path / "colours", "--run", tmp_path / "run", "--epochs", "1", "--no-mirror", "--json"
    )
    assert done.returncode == 0, done.stderr
    recipe = json.loads(done.stdout)["recipe"]
    assert recipe["augmentation"]["flip"] is None and recipe["views"] == "one"


@pytest.mark.parametrize(
    "wrong",
    [("--epochs", "nan"), ("--epochs", "inf"), ("--hold-out", "nan"), ("--seed", "-1"), ("--seed", "99999999999")],
)
def test_numbers_that_are_none_are_wrong_usage(tmp_path, wrong):
    folder_of(tmp_path / "colours", counts=(4, 4, 4))
    done = call("vision", "train", tmp_path / "colours", "--run", tmp_path / "run", *wrong)
    assert done.returncode == 2 and wrong[0].lstrip("-") in done.stderr and "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()


_EAGER = """
def eager(self, *given, **named):
    old(self, *given, **{**named, "checkpoint_seconds": 0.0})
f.FitSettings.__init__ = eager
"""


def test_what_is_held_out_is_a_share_of_every_class_and_twins_stay_together(tmp_path):
    folder = folder_of(tmp_path / "colours", counts=(20, 10, 5))
    for i in range(10):  # of every second one a twin under another name
        (folder / "blue" / f"twin{i}.png").write_bytes((folder / "blue" / f"{2 * i:03d}.png").read_bytes())
    data = open_dataset(folder, Reading(hold_out=0.2))
    assert data.held_out
    assert {name.split("/")[0] for name in data.test.names} == set(COLOURS)
    held = {image.tobytes() for image in data.test.images}
    assert not held & {image.tobytes() for image in data.train.images}
    assert len(data.train.labels) + len(data.test.labels) == 45
    again = open_dataset(folder, Reading(hold_out=0.2))
    assert again.identity == data.identity
    assert open_dataset(folder, Reading(hold_out=0.4)).identity != data.identity


def test_every_image_is_cut_to_a_square_and_scaled_where_an_edge_is_asked_for(tmp_path):
    folder = folder_of(tmp_path / "colours")
    Image.new("RGB", (300, 100), (9, 200, 9)).save(folder / "green" / "wide.png")
    with pytest.raises(DamagedFile, match="a data set is of one size"):
        open_dataset(folder)
    data = open_dataset(folder, Reading(edge=20))
    assert data.train.images.shape[1:] == (20, 20, 3)


def test_an_image_on_its_side_stands_up_by_what_its_camera_says(tmp_path):
    image = Image.new("RGB", (40, 40), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 40, 20))  # the upper half is white
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    image.save(tmp_path / "a.jpg", exif=exif)
    pixels, scaled = picture(tmp_path / "a.jpg", (20, 20), 3)
    assert scaled and pixels[2, 10, 0] < 50 < 200 < pixels[17, 10, 0]

    image.convert("RGB").save(tmp_path / "b.png", exif=exif)
    pixels, scaled = picture(tmp_path / "b.png", (40, 40), 3)
    assert not scaled and pixels[2, 10, 0] == 0 and pixels[37, 10, 0] == 255


@pytest.mark.parametrize("mode", ["I;16", "1", "LA", "P", "RGBA", "L"])
def test_pictures_of_every_usual_kind_are_read_for_what_they_show(tmp_path, mode):
    shown = np.kron(np.eye(4, dtype=np.uint8) * 255, np.ones((4, 4), np.uint8))  # a black and white diagonal
    if mode == "I;16":
        Image.fromarray(shown.astype(np.uint16) * 257).save(tmp_path / "a.png")
    else:
        Image.fromarray(shown).convert(mode).save(tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as kept:
        assert kept.mode.startswith(mode)
    pixels, _ = picture(tmp_path / "a.png", (16, 16), 1)
    np.testing.assert_array_equal(pixels[:, :, 0], shown)


def test_a_file_of_another_kind_under_a_pictures_name_is_not_decoded(tmp_path):
    draw("red", 1).save(tmp_path / "a.tiff")
    (tmp_path / "a.tiff").rename(tmp_path / "a.png")
    with pytest.raises(DamagedFile, match=r"a.png: no picture that can be read"):
        picture(tmp_path / "a.png", (16, 16), 3)


def test_images_of_three_pixels_are_too_small(tmp_path):
    with pytest.raises(DamagedFile, match="3×3 pixels; expected 4 at least"):
        open_dataset(folder_of(tmp_path / "tiny", counts=(2, 2, 2), edge=3))


def test_hidden_files_and_files_of_other_kinds_are_no_images(tmp_path):
    folder = folder_of(tmp_path / "colours")
    (folder / "blue" / "._000.png").write_bytes(b"of a file manager")
    (folder / "blue" / "notes.txt").write_text("no picture")
    (folder / ".cache").mkdir()
    data = open_dataset(folder)
    assert len(data.train.labels) + len(data.test.labels) == 62 and data.classes == ("blue", "green", "red")


def test_broken_images_are_refused_or_left_out_by_name(tmp_path):
    folder = folder_of(tmp_path / "colours")
    for name in ("000.png", "001.png"):
        whole = (folder / "red" / name).read_bytes()
        (folder / "red" / name).write_bytes(whole[: len(whole) // 2])
        if name == "000.png":
            with pytest.raises(DamagedFile, match=r"colours: red/000.png: .* truncated\); mend or remove it, .*--skip"):
                open_dataset(folder)
    said = r"red/000.png: .* \(of 62 images 2 cannot be read: also red/001.png\); mend or remove them"
    with pytest.raises(DamagedFile, match=said):
        open_dataset(folder)
    for i in range(2, 9):
        (tmp_path / "many" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        (tmp_path / "many" / "ab"[i % 2] / f"{i}.png").write_bytes(b"no picture")
    draw("red", 0).save(tmp_path / "many" / "a" / "0.png")
    said = r"many: a/2.png: .* \(of 8 images 7 cannot be read: also a/4.png, a/6.png, a/8.png, b/3.png and 2 more\)"
    with pytest.raises(DamagedFile, match=said):
        open_dataset(tmp_path / "many")
    data = open_dataset(folder, Reading(skip_broken=True))
    assert [name for name, _ in data.broken] == ["red/000.png", "red/001.png"]
    assert len(data.train.labels) + len(data.test.labels) == 60
    assert all(len(s.names) == len(s.labels) == len(s.images) for s in (data.train, data.test))
    for split in (data.train, data.test):  # each image kept its own class
        for image, label in zip(split.images, split.labels, strict=True):
            nearest = min(COLOURS, key=lambda c: np.abs(image.reshape(-1, 3).mean(0) - COLOURS[c]).sum())
            assert data.classes[label] == nearest


def test_one_class_is_nothing_to_tell_apart(tmp_path):
    (tmp_path / "one" / "blue").mkdir(parents=True)
    draw("blue", 0).save(tmp_path / "one" / "blue" / "a.png")
    with pytest.raises(SourceError, match="one class, blue; expected a folder of images for each of two or more"):
        open_dataset(tmp_path / "one")
    write_parquet(tmp_path / "mine.parquet", images(40), np.zeros(40, int))
    with pytest.raises(SourceError, match="all images to train on are of one class"):
        open_dataset(tmp_path / "mine.parquet")


def test_huge_images_are_refused_with_what_brings_them_down(tmp_path):
    folder = folder_of(tmp_path / "large", counts=(2, 2, 2), edge=300)
    with pytest.raises(TooBig, match=r"300×300 pixels.*--edge 64"):
        open_dataset(folder)
    assert open_dataset(folder, Reading(edge=64)).train.images.shape[1:] == (64, 64, 3)
    bomb = folder / "red" / "bomb.png"
    bomb.write_bytes(_claims(60_000, 60_000))
    with pytest.raises(DamagedFile, match=r"bomb.png: no picture that can be read"):
        open_dataset(folder, Reading(edge=64))


def _claims(width, height):
    """A small PNG that claims to be huge."""
    import struct
    import zlib

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def test_a_parquet_file_alone_is_parted(tmp_path):
    write_parquet(tmp_path / "mine.parquet", images(40), np.arange(40) % 2)
    data = open_dataset(tmp_path / "mine.parquet", Reading(hold_out=0.25))
    assert data.held_out and len(data.test.labels) == 10 and len(data.train.labels) == 30


def test_predict_finds_pictures_in_folders_and_refuses_what_is_not_there(tmp_path):
    folder = folder_of(tmp_path / "colours")
    assert len(pictures_under([folder])) == 62
    assert pictures_under([folder / "red" / "000.png"]) == [folder / "red" / "000.png"]
    with pytest.raises(UsageError, match="no such file or folder"):
        pictures_under([tmp_path / "gone"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no picture"):
        pictures_under([tmp_path / "empty"])


@pytest.mark.parametrize("seed", range(4))
def test_the_temperature_makes_the_true_classes_most_likely(seed):
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 2, (4000, 5))
    labels = np.array([rng.choice(5, p=p) for p in chances_at(honest, 1.0)])
    factor = float(rng.uniform(0.3, 4))
    found = temperature_of(honest * factor, labels)
    grid = np.exp(np.linspace(np.log(0.1), np.log(15), 600))
    losses = [log_loss(chances_at(honest * factor, t), labels) for t in grid]
    assert found == pytest.approx(grid[int(np.argmin(losses))], rel=0.02)
    assert found == pytest.approx(factor, rel=0.1)


def test_the_temperature_keeps_from_certainty_where_every_image_is_told_right():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, 50)
    out = rng.normal(0, 1, (50, 3)) + 8 * np.eye(3)[labels]
    assert (out.argmax(axis=1) == labels).all()
    found = chances_at(out, temperature_of(out, labels)).max(axis=1)
    # Of fifty images the next may be the first that is wrong: about one in fifty-two.
    assert 1 - 3 / 52 < found.mean() < 1 - 0.5 / 52


def test_the_scores_are_what_they_are_called():
    rng = np.random.default_rng(3)
    out = rng.normal(0, 1.5, (301, 4))
    labels = rng.integers(0, 4, 301)
    found = judged(out, labels)
    guess = out.argmax(axis=1)
    for i in range(4):
        for j in range(4):
            assert found.confusion[i, j] == sum((a, b) == (i, j) for a, b in zip(labels, guess, strict=True))
    assert found.accuracy == pytest.approx(np.mean(guess == labels))
    recalls = [np.mean(guess[labels == i] == i) for i in range(4)]
    np.testing.assert_allclose(found.recall, recalls)
    assert found.balanced_accuracy == pytest.approx(np.mean(recalls))
    np.testing.assert_allclose(found.precision, [np.mean(labels[guess == i] == i) for i in range(4)])
    chances = chances_at(out, 1.0)
    torch.testing.assert_close(torch.from_numpy(chances), torch.softmax(torch.from_numpy(out), dim=1))
    assert log_loss(chances, labels) == pytest.approx(
        float(torch.nn.functional.cross_entropy(torch.from_numpy(out), torch.from_numpy(labels)))
    )
    error = 0.0
    for low in np.arange(15) / 15:
        inside = (chances.max(axis=1) >= low) & (chances.max(axis=1) < low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs(chances.max(axis=1)[inside].mean() - (guess == labels)[inside].mean())
    assert calibration_error(chances, labels) == pytest.approx(error)


def test_a_class_without_test_images_has_no_recall_and_spoils_no_mean():
    found = judged(np.eye(3)[[0, 1, 0, 1]] * 5.0, np.array([0, 1, 0, 1]))
    assert np.isnan(found.recall[2]) and found.balanced_accuracy == 1.0


@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("edge", [4, 8, 14, 28, 32, 48, 64, 100, 160, 256])
def test_a_settled_recipe_fits_images_of_any_size(name, edge):
    recipe = settled(RECIPES[name], 500, (edge, edge))
    network = ImageNet(1, 3, recipe.net)
    assert network.edge_left(edge) >= 1
    sample = torch.rand(40, 1, edge, edge)
    network.stem.fit(sample)
    assert network(sample).shape == (40, 3)
    assert torch.isfinite(network(sample)).all()


@pytest.mark.parametrize("edge", [64, 128])
def test_of_large_images_in_colour_no_direction_is_spared(edge):
    net = settled(CPU, 5000, (edge, edge)).net
    assert net.stride == edge // 32 and net.kernel == 4
    assert ImageNet(3, 10, net).stem.width == 2 * 3 * 4 * 4


def test_a_plan_takes_the_steps_with_and_without_the_first_group(monkeypatch):
    split = Split(np.zeros((100, 32, 32, 3), np.uint8), np.arange(100) % 2)
    data = Dataset("grey", ("a", "b"), split, split)
    recipe = replace(AIRBENCH94, batch=50, epochs=202.0, net=replace(AIRBENCH94.net, widths=(8, 8, 8)))
    for until, with_it in ((0.55, 222), (1.0, 404), (0.0, 0)):  # 0.55 of 404 steps is 222.2
        probe = Probe(replace(recipe, first_group_until=until), data, torch.device("cpu"))
        taken = []

        def step(at, probe=probe, taken=taken):
            probe.steering.prepare(at)
            taken.append(any(p.requires_grad for p in probe.network.groups[0].parameters()))

        monkeypatch.setattr(probe, "step", step)
        monkeypatch.setattr(probe, "_timed", lambda at, step=step, taken=taken: step(at) or (3.0 if taken[-1] else 2.0))
        monkeypatch.setattr(probe, "_around", lambda: 0.25)
        assert probe.plan().seconds == 3 * with_it + 2 * (404 - with_it) + 0.25


@pytest.mark.parametrize(("count", "edge", "batch"), [(1200, 32, 0), (60, 190, 0), (40, 64, 400)])
def test_a_plans_memory_is_what_a_training_takes(tmp_path, count, edge, batch):
    """Of small images, of large ones, and of few that are tested on many: judging and whitening take memory, too."""
    rng = np.random.default_rng(0)
    for i in range(count + batch):
        part = ("test" if i < batch else "train") if batch else "."
        path = tmp_path / "images" / part / "ab"[i % 2]
        path.mkdir(parents=True, exist_ok=True)
        noise = rng.normal(100 + 50 * (i % 2), 60, (edge, edge, 3))
        Image.fromarray(np.clip(noise, 0, 255).astype(np.uint8)).save(path / f"{i}.png")
    run = tmp_path / "run"
    done = call("vision", "train", tmp_path / "images", "--run", run, "--epochs", "1.5", "--threads", "1")
    assert done.returncode == 0, done.stderr
    said = re.search(r"about .* and ([\d.]+) ([MG]B) of memory, the libraries among it", done.stderr)
    planned = float(said[1]) * {"MB": 1e6, "GB": 1e9}[said[2]]
    taken = json.loads((run / "run.json").read_text())["peak_bytes"]
    assert 0.9 < planned / taken < 1.2


@pytest.mark.parametrize("count", [2, 31, 64, 500, 5000, 13_000, 50_000, 400_000])
def test_a_settled_recipe_has_batches_and_steps_enough(count):
    for recipe in (AIRBENCH94, CPU):
        here = settled(recipe, count, (32, 32))
        assert 1 <= here.batch <= min(count, recipe.batch)
        assert here.epochs * max(1, count // here.batch) >= 190
        assert 0 < here.net.norm_share <= recipe.net.norm_share
        # As it is, but for what people's own images do not bear.
        assert settled(recipe, 50_000, (32, 32)) == replace(recipe, skipping=None, views="mirrored and moved")
    with pytest.raises(TooShort):
        settled(AIRBENCH94, 1, (32, 32))


def test_a_run_keeps_the_threads_it_was_given(tmp_path):
    folder_of(tmp_path / "colours", counts=(8, 8, 8))
    data = open_dataset(tmp_path / "colours")
    recipe = replace(settled(AIRBENCH94, len(data.train.labels), (16, 16)), epochs=2.0)
    before = torch.get_num_threads()
    try:
        run, *_ = train_run(data, tmp_path / "run", recipe, seed=0, device=torch.device("cpu"), threads=2)
    finally:
        torch.set_num_threads(before)
    assert run.facts["threads"] == 2


def test_threads_are_added_only_where_they_gain():
    seen = []

    def step():
        seen.append(torch.get_num_threads())
        time.sleep(0.02 / torch.get_num_threads())

    before = torch.get_num_threads()
    assert choose_threads(step, most=2) == 2
    assert torch.get_num_threads() == before
    assert set(seen) == {1, 2}
    assert choose_threads(lambda: time.sleep(0.01), most=2) == 1


def test_a_folder_without_a_picture_is_no_class_and_said_to_be_none(tmp_path):
    for where in ("cats", "dogs"):
        (tmp_path / where).mkdir()
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(tmp_path / where / "a.png")
    for where in ("empty", ".hidden", "run", "test"):
        (tmp_path / where).mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    empty = [f"{tmp_path / name}: holds no picture; it is not taken for a class." for name in ("empty", "test")]
    assert passed_over([tmp_path]) == empty
    (tmp_path / "cats" / "b.HEIC").touch()
    (tmp_path / "empty" / "c.tiff").touch()
    (tmp_path / "empty" / "d.tiff").touch()
    assert "3 pictures of kinds that are not read (.tiff 2, .heic 1)" in passed_over([tmp_path])[-1]


def test_a_folder_that_cannot_be_looked_into_is_refused(trained, tmp_path):
    path, _, _ = trained
    folder_of(tmp_path / "colours", counts=(3, 3, 3))
    closed = next(folder for folder in (tmp_path / "colours").iterdir())
    closed.chmod(0)
    # Root may look everywhere, unless it gives that up.
    rights = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"] if os.geteuid() == 0 else []
    asked = (["train", tmp_path / "colours", "--run", tmp_path / "r"], ["predict", path / "run", tmp_path / "colours"])
    for command in asked:
        done = subprocess.run(
            [*rights, *PROGRAM, "vision", *map(str, command)], capture_output=True, text=True, check=False
        )
        assert done.returncode == 1, done.stderr
        assert done.stderr.startswith(f"fastrain: {closed}: cannot be looked into (Permission denied)")
    assert not (tmp_path / "r").exists()
    done = subprocess.run(
        [*rights, *PROGRAM, "vision", "predict", str(path / "run"), str(path), "--to", str(closed / "x.csv")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "may not be written into" in done.stderr


def test_what_is_called_like_a_picture_and_is_no_file_is_said_to_be_none(trained, tmp_path):
    path, _, _ = trained
    folder = folder_of(tmp_path / "colours", counts=(3, 3, 3))
    (folder / "red" / "a.png").mkdir()
    os.mkfifo(folder / "red" / "b.png")  # reading it would wait for ever
    with pytest.raises(DamagedFile, match=r"red/a.png: no picture that can be read .* also red/b.png"):
        open_dataset(folder)
    done = call("vision", "predict", path / "run", folder / "red" / "b.png")
    assert done.returncode == 1 and "no picture that can be read (no regular file)" in done.stderr
