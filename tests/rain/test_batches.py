"""Batches of the map's network: told by their number alone, every map once before any again, in bounded memory."""

from __future__ import annotations

import threading
import time
from datetime import timedelta

import numpy as np
import pytest
import synthetic
import torch

from fastrain.archive.store import Archive
from fastrain.core.errors import TooShort
from fastrain.core.levels import LevelTable
from fastrain.core.memory import available_bytes
from fastrain.engine.leaving import Interrupted, Leaving
from fastrain.rain import batches as module
from fastrain.rain.batches import BATCH, Batches, crop_of, steps_of
from fastrain.rain.inputs import Inputs
from fastrain.rain.radar import Radar, happened
from fastrain.rain.survey import learnable, survey
from fastrain.rain.windows import Window, Windows
from fastrain.samples.frames import load_frames, stretches, window_slots
from fastrain.samples.layout import FrameLayout
from fastrain.samples.truth import wet_share

TABLE = LevelTable.binned()
LAYOUT = FrameLayout(6, ((0, 2), (2, 4), (4, 6)), 6)


class Marked(Windows):
    """Windows whose every number tells which window and period it is of."""

    def __init__(self):
        self.made: list[int] = []
        self.told: list[tuple[int, float]] = []
        self.radar = Radar(TABLE, "rain_rate", timedelta(minutes=5), 4.0, (0.1,), LAYOUT)

    def __getitem__(self, issue: int) -> Window:
        self.made.append(issue)
        mark = torch.tensor([[issue, period] for period in range(3)]).float()
        x = mark[:, :, None, None].expand(3, 2, 10, 12).half()
        guess = torch.zeros(3, 1, 1, 10, 12).half()
        return Window(Inputs(x, guess, mark), np.zeros((3, 10, 12), np.int8))

    def varied(self, issue: int, draw: np.random.Generator) -> Window:
        self.told.append((issue, draw.random()))
        made = self[issue]
        self.made.pop()
        return made


def drawn(count: int, seed: int = 0, **more) -> Batches:
    box = slice(1, 9), slice(0, 12)
    return Batches(Marked(), np.arange(count), np.ones(count), box, seed=seed, **more)


def marks(batch) -> list[tuple[int, int]]:
    return [(int(a), int(b)) for a, b in batch[2]]


@pytest.mark.parametrize("count", [5, 32, 71])
def test_every_map_comes_once_before_any_comes_again(count):
    with drawn(count) as draw:
        steps = -(-2 * count * 3 // BATCH)
        seen = [mark for step in range(steps) for mark in marks(draw.batch(step))][: 2 * count * 3]
    first, second = seen[: count * 3], seen[count * 3 :]
    assert sorted(first) == sorted(second) == [(w, p) for w in range(count) for p in range(3)]
    assert first != second


def test_a_batch_is_told_by_its_number_alone():
    with drawn(71) as one, drawn(71, makers=0) as other, drawn(71, makers=3) as many, drawn(71, seed=1) as else_:
        in_order = [one.batch(step) for step in range(40)]
        for step in (39, 3, 17, 16, 0, 28):
            for draw in (other, many):
                for a, b in zip(in_order[step], draw.batch(step), strict=True):
                    assert torch.equal(a, b)
        assert any(marks(else_.batch(step)) != marks(in_order[step]) for step in range(4))


def test_maps_of_a_window_are_spread_over_a_block_and_made_once():
    with drawn(64, makers=0) as draw:
        spread = [{w for w, _ in marks(draw.batch(step))} for step in range(24)]
        assert np.mean([len(windows) for windows in spread]) > 6  # of eight maps
        assert all(draw.windows.made.count(w) <= 1 for w in range(64))


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_a_share_of_the_windows_is_varied_each_time_another_way(share):
    def told():
        with drawn(60, makers=0, varied=share) as draw:
            seen = [mark for step in range(90) for mark in marks(draw.batch(step))]
            return draw.windows, seen

    windows, seen = told()
    assert len(windows.told) + len(windows.made) == 4 * 60  # four passes
    assert len(windows.told) == pytest.approx(share * 240, abs=0 if share in (0, 1) else 35)
    assert len({how for _, how in windows.told}) == len(windows.told)
    again, as_before = told()
    assert (again.told, again.made) == (windows.told, windows.made)
    assert as_before == seen


def test_no_more_than_two_blocks_are_held(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 4)
    with drawn(40) as draw:
        for step in range(30):
            draw.batch(step)
            assert len(draw._made) <= 3  # a batch may lie on the border of two, and the next one is being made


def test_a_windows_weight_goes_with_every_map_and_cell_of_it():
    weights = 1 + np.arange(20) / 10
    with Batches(Marked(), np.arange(20), weights, (slice(1, 9), slice(0, 12)), seed=0) as draw:
        for step in range(10):
            _, _, mark, _, weight = draw.batch(step)
            np.testing.assert_allclose(weight, weights[mark[:, 0].int()], rtol=1e-6)
        _, mark, _, weight = draw.scattered()
        assert len(set(mark[:, 0].tolist())) > 5
        np.testing.assert_allclose(weight, weights[mark[:, 0].int()], rtol=1e-6)


class Placed(Marked):
    """Windows whose every cell holds its own number, in input, guess and truth."""

    def __getitem__(self, issue: int) -> Window:
        number = torch.arange(10 * 12).view(10, 12)
        x, guess = number.expand(3, 2, 10, 12).half(), number.expand(3, 1, 1, 10, 12).half()
        return Window(Inputs(x, guess, torch.zeros(3, 2)), np.repeat(number.numpy()[None].astype(np.int8), 3, axis=0))


def test_maps_are_turned_all_ways_and_what_belongs_together_alike():
    ways = set()
    with Batches(Placed(), np.arange(20), np.ones(20), (slice(1, 9), slice(0, 12)), seed=0) as draw:
        for step in range(80):
            x, guess, _, outcome, _ = draw.batch(step)
            assert torch.equal(x[:, 0], guess[:, 0, 0]) and torch.equal(x[:, 0].int(), outcome.int())
            assert torch.equal(x[:, 1], x[:, 0])
            steps = x[0, 0, 0, 1] - x[0, 0, 0, 0], x[0, 0, 1, 0] - x[0, 0, 0, 0]
            ways.add(tuple(int(step) for step in steps))
    # Along a row of the batch the numbers rise or fall by one cell or by one row of twelve, and down it the other way.
    assert ways == {(a, b) for one in (1, -1) for row in (12, -12) for a, b in ((one, row), (row, one))}


@pytest.mark.parametrize("of", [2, 3])
def test_the_parts_of_some_processes_make_the_whole(of):
    with drawn(20) as whole:
        wanted = [marks(whole.batch(step)) for step in range(10)]
    parts = []
    for mine in range(of):
        with drawn(20, part=(mine, of)) as draw:
            parts.append([marks(draw.batch(step)) for step in range(10)])
    for step in range(10):
        assert sorted(mark for part in parts for mark in part[step]) == sorted(wanted[step])
        assert parts[1][step] == wanted[step][1::of]


def test_a_training_that_is_to_leave_does_not_wait_for_windows():
    class Slow(Marked):
        def __getitem__(self, issue):
            time.sleep(0.5 if issue < 100 else 0)
            return super().__getitem__(issue)

    draw = drawn(71)
    draw.windows = Slow()
    with Leaving() as leaving, pytest.raises(Interrupted):
        threading.Timer(0.3, lambda: setattr(leaving, "asked", 2)).start()
        began = time.monotonic()
        with draw:
            draw.batch(0)
    assert time.monotonic() - began < 3


def test_what_a_thread_met_with_is_told():
    class Broken(Marked):
        def __getitem__(self, issue):
            raise OSError("the disk is gone")

    draw = drawn(9)
    draw.windows = Broken()
    with draw, pytest.raises(OSError, match="the disk is gone"):
        draw.batch(0)


def test_steps_follow_the_cells():
    assert crop_of((300, 50)) == (96, 50)
    assert steps_of(10, (96, 96), 8 * 96 * 96 * 100) == 100
    assert steps_of(10, (96, 96), None) == round(4_000_000 / (8 * 96 * 96))  # the fewest
    assert steps_of(10**6, (96, 96), None) == round(60_000_000 / (8 * 96 * 96))  # the most
    assert steps_of(1, (4, 4), 1) == 40


# --- one look over the training time ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def archive(moving):
    return Archive.open(moving)


def test_a_survey_counts_what_there_is(archive):
    radar = Radar.of(archive.schema, 2, (0.1, 1.0, 5.0), LAYOUT)
    start = archive.span[0]
    issues = np.arange(start + 6, start + 50)
    found = survey(archive, 2, issues, radar, 2**20)
    frames = load_frames(archive, 2, window_slots(issues, LAYOUT))
    outcome = np.stack([happened(frames, int(i), radar) for i in issues])  # (issue, period, y, x)
    for k in range(3):
        np.testing.assert_array_equal(found.reached[:, k], (outcome > k).sum(axis=(0, 2, 3)))
    np.testing.assert_array_equal(found.cells, (outcome >= 0).sum(axis=(0, 2, 3)))
    ever = (outcome >= 0).any(axis=(0, 1))
    assert (found.box[0].start, found.box[0].stop) == (np.where(ever.any(1))[0][0], np.where(ever.any(1))[0][-1] + 1)
    np.testing.assert_allclose(found.wet, [wet_share(frames, int(i), LAYOUT, radar.table) for i in issues])
    np.testing.assert_allclose(found.climatology, found.reached / found.cells[:, None])


def test_a_survey_of_a_long_time_looks_at_some_of_it(archive, monkeypatch):
    monkeypatch.setattr("fastrain.rain.survey.MOST_WINDOWS", 10)
    radar = Radar.of(archive.schema, 2, (0.1,), LAYOUT)
    start = archive.span[0]
    found = survey(archive, 2, np.arange(start + 6, start + 50), radar, 2**20)
    assert len(found.issues) == 10
    assert found.issues[0] == start + 6
    assert found.issues[-1] == start + 49


def test_thresholds_that_are_seldom_reached_are_left_out_and_said(archive, monkeypatch):
    radar = Radar.of(archive.schema, 2, (0.1, 1.0, 5.0), LAYOUT)
    start = archive.span[0]
    found = survey(archive, 2, np.arange(start + 6, start + 50), radar, 2**20)
    counts = found.reached.sum(axis=0)
    monkeypatch.setattr("fastrain.rain.survey.FEWEST_EVENTS", int(counts[1]))
    said: list[str] = []
    fewer, kept = learnable(found, radar, said.append, keep=False)
    assert kept.thresholds == (0.1, 1.0)
    assert fewer.reached.shape == (3, 2)
    assert len(said) == 1
    assert "5 mm/h is left out" in said[0]
    assert learnable(found, radar, said.append, keep=True)[1].thresholds == radar.thresholds
    monkeypatch.setattr("fastrain.rain.survey.FEWEST_EVENTS", int(counts[0]) + 1)
    with pytest.raises(TooShort, match="too dry"):
        learnable(found, radar, said.append, keep=True)


def test_no_more_frames_are_read_at_a_time_than_fit(archive, monkeypatch):
    start = archive.span[0]
    issues = np.arange(start + 6, start + 60)
    a_frame = 3 * 32 * 32
    held, read = [], []
    for part, frames in stretches(archive, 2, issues, LAYOUT, 20 * a_frame):
        held.append(frames.maximum.nbytes * 3)
        read += part.tolist()
    assert read == issues.tolist()
    assert max(held) <= 20 * a_frame
    (one, frames), *_ = stretches(archive, 2, issues, LAYOUT, 1)  # a single window is read whatever it takes
    assert len(one) == 1
    assert len(frames.slots) == 12


# --- what is free -----------------------------------------------------------------------------------------------------


def test_the_limits_of_control_groups_are_respected(tmp_path, monkeypatch):
    free = available_bytes()
    monkeypatch.setattr("fastrain.core.memory.CONTROL_GROUPS", tmp_path)
    for folder, limit, used in (
        (tmp_path, "memory.max", "memory.current"),
        (tmp_path / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        folder.mkdir(exist_ok=True)
        (folder / limit).write_text("max\n")
        (folder / used).write_text("1000\n")
    assert available_bytes() > free / 2
    (tmp_path / "memory.max").write_text("5000000\n")
    (tmp_path / "memory.current").write_text("4000000\n")
    (tmp_path / "memory" / "memory.limit_in_bytes").write_text("5000000\n")
    (tmp_path / "memory" / "memory.usage_in_bytes").write_text("4000000\n")
    assert available_bytes() == 1_000_000
    for folder in (tmp_path, tmp_path / "memory"):
        (folder / "memory.stat").write_text("cache 7\ninactive_file 500000\n")
    assert available_bytes() == 1_500_000  # files that were read count as used until somebody needs their place


def test_an_archive_of_nothing_is_refused(tmp_path):
    rates = np.full((40, 16, 16), np.nan, np.float32)
    synthetic.write_archive(tmp_path / "a", rates)
    archive = Archive.open(tmp_path / "a")
    radar = Radar.of(archive.schema, 2, (0.1,), LAYOUT)
    start = archive.span[0]
    with pytest.raises(TooShort, match="no cell"):
        survey(archive, 2, np.arange(start + 6, start + 20), radar, 2**20)


def test_windows_are_read_for_themselves_alone(archive, monkeypatch):
    """However long the archive, making a window reads its own frames and no others."""
    read = []
    whole = load_frames

    def noted(held, coarseness, slots, memory=None):
        read.append(len(slots))
        return whole(held, coarseness, slots, memory)

    monkeypatch.setattr("fastrain.rain.windows.load_frames", noted)
    windows = Windows(archive, 2, Radar.of(archive.schema, 2, (0.1,), LAYOUT))
    start = archive.span[0]
    for issue in range(start + 10, start + 14):
        windows[issue]
    assert read == [LAYOUT.length] * 4
