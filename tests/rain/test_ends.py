"""Trainings that cannot come to anything end early, and say what and why; full disks end nothing."""

from __future__ import annotations

import errno
import json

import numpy as np
import pytest
import synthetic
import torch
from program import refused

from fastrain.core.errors import RunError, TooShort
from fastrain.core.files import write_whole
from fastrain.engine import checkpoint
from fastrain.engine.fit import FitSettings, fit
from fastrain.engine.journal import Journal, read_journal
from fastrain.engine.optimizers import adamw
from fastrain.rain.budget import Allowed
from fastrain.rain.new_run import TrainSettings
from fastrain.rain.train import train

SMALL = TrainSettings(cells=900_000, width=12)


def rains(share: float, frames: int = 96, size: int = 48) -> np.ndarray:
    """Return frames of which a share of the cells is always wet, by 20 mm/h."""
    draw = np.random.default_rng(0)
    return np.where(draw.random((frames, size, size)) < share, 20.0, 0.0).astype(np.float32)


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        (rains(0.0), "too dry"),
        (rains(1.0), "one class only"),
        (np.full((96, 48, 48), np.nan, np.float32), "no cell of the training time is observed"),
        (rains(0.5, frames=19), "training needs about"),
    ],
    ids=["dry", "one class", "nothing observed", "one window"],
)
def test_what_cannot_be_learned_from_is_refused_in_a_line(tmp_path, rates, words):
    synthetic.write_archive(tmp_path / "a", rates)
    said = refused(1, "train", tmp_path / "a", "--run", tmp_path / "r", "--from", "nothing", "--threads", "1")
    assert words in said
    assert len([line for line in said.splitlines() if line.startswith("fastrain:")]) == 1
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize(
    ("rates", "words"),
    [
        (rains(1.0), "one class only"),
        (rains(0.0), "too dry"),
        (np.full((96, 48, 48), np.nan, np.float32), "does not observe the place"),
        (rains(1.0, size=5), "are needed. Ingest more pictures of this radar, and see"),
    ],
    ids=["one class", "dry", "nothing observed", "few windows"],
)
def test_a_place_that_cannot_be_learned_is_refused_and_leaves_nothing_behind(tmp_path, monkeypatch, rates, words):
    if rates.shape[1] == 5:
        monkeypatch.setattr("fastrain.rain.place.train.FEWEST_EVENTS", 100_000)
    synthetic.write_archive(tmp_path / "a", rates)
    middle = rates.shape[1] // 2
    settings = TrainSettings(recipe="place", place=(middle, middle), width=8)
    for _ in range(2):  # the second try finds nothing of the first
        with pytest.raises(TooShort, match=words):
            train(tmp_path / "a", tmp_path / "r", settings)
        assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("cell", [None, (3, 4)])
def test_where_nothing_can_be_judged_verify_says_so(tmp_path, cell):
    rates = np.zeros((30, 48, 48), np.float32)
    rates[:, :24, :24] = np.nan
    if cell is None:
        rates[:] = np.nan
    synthetic.write_archive(tmp_path / "a", rates)
    asked = ("--pixel", "3,4") if cell else ()
    said = refused(
        1, "verify", "base", "--archive", tmp_path / "a", "--issues", "2", "--report", tmp_path / "r", *asked
    )
    assert f"enough observed {'at the place' if cell else 'anywhere'}" in said
    assert said.count("fastrain: ") == 1
    assert not (tmp_path / "r").exists()


def test_a_loss_that_is_no_number_ends_it_and_says_what_to_do(moving, tmp_path, monkeypatch):
    steps = []

    def loss(model, batch, group=None):
        steps.append(1)
        x, guess, known, _, _ = batch
        return model(x, guess, known).mean() * (float("nan") if len(steps) > 5 else 1.0)

    monkeypatch.setattr("fastrain.rain.train.loss_of", loss)
    with pytest.raises(RunError, match=r"astray, the loss became nan at step 5; try another --seed"):
        train(moving, tmp_path / "r", TrainSettings(cells=900_000, width=8, threads=1))


def fitted(path, monkeypatch, full):
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    said = []
    if full:
        whole = checkpoint.save
        calls = []

        def save(*args, **kw):
            calls.append(1)
            if 3 <= len(calls) <= 30:
                raise OSError(errno.ENOSPC, "No space left on device")
            whole(*args, **kw)

        monkeypatch.setattr(checkpoint, "save", save)
    settings = FitSettings(steps=40, checkpoint_seconds=0.0)
    draw = torch.Generator()
    fit(
        model,
        lambda step: torch.randn(4, 3, generator=draw.manual_seed(step)),
        lambda m, x: m(x).square().mean(),
        adamw(model, 40),
        settings,
        state=path,
        say=said.append,
    )
    return model.weight.detach().clone(), said


def test_a_full_disk_ends_no_training_and_is_said_once(tmp_path, monkeypatch):
    whole, _ = fitted(tmp_path / "a.pt", monkeypatch, full=False)
    found, said = fitted(tmp_path / "b.pt", monkeypatch, full=True)
    assert torch.equal(whole, found)
    assert len(said) == 1
    assert "No space left on device" in said[0]
    assert "training goes on" in said[0]
    assert checkpoint.load(tmp_path / "b.pt")["step"] == 40


def test_what_a_full_disk_cut_off_does_not_stay(tmp_path, monkeypatch):
    path = tmp_path / "state.pt"
    checkpoint.save(path, {"step": 1})

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match=r"No space.*state\.pt"):
        checkpoint.save(path, {"step": 2})
    with pytest.raises(OSError, match=r"No space.*facts\.json"):
        write_whole(tmp_path / "facts.json", "{}")
    assert [p.name for p in tmp_path.iterdir()] == ["state.pt"]
    assert checkpoint.load(path)["step"] == 1


def test_a_log_on_a_full_disk_ends_nothing(tmp_path, monkeypatch):
    journal = Journal(tmp_path / "missing folder" / "log.jsonl", 8)
    assert "loss" in journal.note(1, 10, 0.5)


def test_a_log_with_a_line_cut_off_is_read_around_it(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(
        '{"step": 1, "loss": 2.0}\n{"step": 2, "lo{"step": 3, "loss": 1.0}\n{"step": 4, "loss": 0.5}\n"x"\n'
    )
    assert [line["step"] for line in read_journal(path)] == [1, 4]


def test_event_files_hold_what_the_log_holds(tmp_path):
    journal = Journal(tmp_path / "log.jsonl", 8, board=tmp_path / "board")
    journal.note(1, 10, 0.75)
    journal.note(10, 10, 0.5)
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    held = EventAccumulator(str(tmp_path / "board"))
    held.Reload()
    losses = [(event.step, event.value) for event in held.Scalars("loss")]
    assert losses == [(line["step"], line["loss"]) for line in read_journal(tmp_path / "log.jsonl")]
    assert losses[-1] == (10, 0.5)


def test_the_result_is_the_same_however_little_memory_there_is(run, moving, tmp_path, monkeypatch):
    ways = []

    def least(needs, memory):
        ways.append(1)
        return Allowed(lean=True, makers=0, kept=0)

    monkeypatch.setattr(Allowed, "within", staticmethod(least))
    lean = train(moving, tmp_path / "r", SMALL)
    assert ways
    assert lean.identity == run.identity


def test_threads_are_kept_with_a_run_that_is_gone_on_with(moving, tmp_path, monkeypatch):
    class Killed(Exception):
        pass

    def kill(done, total, text):
        if "loss" in text and done == 3:
            raise Killed

    asked = []

    def choose(step, **_):
        asked.append(1)
        return 1

    monkeypatch.setattr("fastrain.rain.train.choose_threads", choose)
    with pytest.raises(Killed):
        train(moving, tmp_path / "r", SMALL, progress=kill)
    assert json.loads((tmp_path / "r" / "plan.json").read_text())["threads"] == 1
    found = train(moving, tmp_path / "r", SMALL)
    assert asked == [1]
    assert found.facts["threads"] == 1
