"""The task of one place: what its networks see, what they begin from, and that a run of a place is a run."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import timedelta
from functools import partial
from types import SimpleNamespace

import numpy as np
import pytest
import synthetic
import torch

from fastrain.archive.store import Archive
from fastrain.archive.writer import writing
from fastrain.core.errors import PlaceError, RunError, SettingError, TooBig, TooShort, UsageError
from fastrain.core.levels import LevelTable
from fastrain.engine.fit import FitSettings
from fastrain.engine.optimizers import AdamW
from fastrain.motion import displacements
from fastrain.nets.ancestor_net import AncestorNet
from fastrain.nets.place_net import PlaceNet
from fastrain.rain.batches import turn
from fastrain.rain.forecast import at_place, forecast_grid
from fastrain.rain.hindcast import Reference, baseline, hindcasts
from fastrain.rain.inputs import CONDITIONS, make_inputs, signal
from fastrain.rain.new_run import TrainSettings
from fastrain.rain.place import windows
from fastrain.rain.place.batches import Looker, turned_motion
from fastrain.rain.place.guesses import Swept, _travelled, chances_around, sweep, tracks
from fastrain.rain.place.hindcast import cases, place_baseline
from fastrain.rain.place.prepare import FOLDER, Prepared, Wanted
from fastrain.rain.place.recipes import RECIPES
from fastrain.rain.place.views import ANCESTOR_EDGES, APART, EDGE, Foveal, Rings, ages
from fastrain.rain.place.windows import GUESSES
from fastrain.rain.radar import Radar, happened, rain_rates
from fastrain.rain.smoothing import GUESS_SPREAD, exceedance_chance
from fastrain.rain.straight import StraightLine
from fastrain.rain.train import train
from fastrain.rain.verify import verify
from fastrain.samples.frames import Frames, block_pixels, load_frames, window_slots
from fastrain.samples.layout import FrameLayout
from fastrain.samples.rows import Rows
from fastrain.samples.split import split_archive

TABLE = LevelTable.binned()
LAYOUT = FrameLayout(6, ((0, 3), (3, 6)), 3)


def radar_of(cell_km: float = 4.0, thresholds: tuple[float, ...] = (0.1, 1.0)) -> Radar:
    return Radar(TABLE, "rain_rate", timedelta(minutes=10), cell_km, thresholds, LAYOUT)


def frames_of(rates: np.ndarray) -> Frames:
    """Return frames of rates in mm/h; NaN is not observed; every block's mean is its maximum."""
    level = TABLE.encode(rates.astype(float))
    seen = (level != 255).astype(np.uint8)
    shape = rates.shape[1:]
    return Frames(np.arange(len(rates)), level, (level > 0).astype(np.uint8) * 255, seen, block_pixels(shape, 1))


@pytest.fixture(scope="module")
def rain() -> Frames:
    return frames_of(synthetic.moving_rain(12, size=80, seed=3))


# --- first guesses ----------------------------------------------------------------------------------------------------


def test_the_track_to_a_cell_is_that_of_the_whole_map():
    y, x = torch.meshgrid(torch.arange(20.0), torch.arange(24.0), indexing="ij")
    flow = torch.stack([0.7 + 0.03 * x, -0.4 + 0.02 * y])[None]
    whole = displacements(flow, 9)[0, :, :, 12, 9]
    np.testing.assert_allclose(_travelled(flow, (12, 9), 9, 1)[0], whole, atol=1e-4)


def test_the_chances_around_a_cell_are_those_of_the_whole_map():
    draw = np.random.default_rng(0)
    rates = draw.gamma(0.3, 4.0, (70, 90)).astype(np.float32)
    known = draw.random((70, 90)) < 0.9
    reached = sum((rates >= t * (1 - 1e-6)).astype(int) for t in (0.1, 1.0))
    rows, columns = (30, 41), (35, 44, 52)
    for radius in (0.2, 1.0, 2.7, 8.0):
        whole = exceedance_chance(torch.from_numpy(rates), torch.from_numpy(known), (0.1, 1.0), radius)
        few = chances_around(Swept(reached, known), 2, radius, rows, columns)
        np.testing.assert_allclose(few, whole.numpy()[:, rows][:, :, columns], atol=1e-5)


def test_a_cell_beyond_the_map_has_no_chance():
    swept = Swept(np.full((8, 8), 1), np.ones((8, 8), bool))
    found = chances_around(swept, 1, 2.0, (-3, 4), (4, 9))[0]
    np.testing.assert_allclose(found, [[0, 0], [1, 0]], atol=1e-6)


def test_without_motion_what_passes_is_what_is_there():
    reached = np.array([[0, 1, 2], [2, 0, 1]])
    observed = np.array([[True, True, True], [True, True, False]])
    swept = sweep(reached, observed, np.zeros((4, 2)), 0, 4)
    np.testing.assert_array_equal(swept.reached, np.where(observed, reached, 0))
    np.testing.assert_array_equal(swept.known, observed)


def test_what_passes_comes_from_upstream_and_from_outside_nothing_is_known():
    reached = np.array([[2, 0, 0, 0]])
    track = np.array([[0.0, 1.0], [0.0, 2.0]])  # a cell eastward a step
    swept = sweep(reached, np.ones((1, 4), bool), track, 0, 2)
    np.testing.assert_array_equal(swept.reached, [[0, 2, 2, 0]])
    np.testing.assert_array_equal(swept.known, [[False, False, True, True]])  # of the first two a half or none


def test_a_jump_off_the_map_leaves_nothing():
    swept = sweep(np.ones((4, 4), int), np.ones((4, 4), bool), np.array([[-9.0, 0.0]]), 0, 1)
    assert not swept.reached.any()
    assert not swept.known.any()


# --- what is seen -----------------------------------------------------------------------------------------------------


def test_the_finest_map_is_the_radar_around_the_cell(rain):
    radar = radar_of()
    view = Foveal(radar, (40, 37))
    assert view.scales == (1, 2, 4)
    x = view.inputs(view.records(rain, np.array([5, 4, 3, 2, 1, 0]))[None], np.zeros(1, int), 0)
    assert x.shape == (1, view.channels, EDGE, EDGE)
    highest, mean, _ = rain_rates(rain, np.array([5]), radar)
    box = slice(40 - EDGE // 2, 40 + EDGE // 2 + 1), slice(37 - EDGE // 2, 37 + EDGE // 2 + 1)
    np.testing.assert_allclose(x[0, 0], signal(highest[0])[box], atol=0.5 / 120 + 1e-6)
    np.testing.assert_allclose(x[0, 1], signal(mean[0])[box], atol=0.5 / 120 + 1e-6)


def test_a_coarser_map_holds_the_maxima_and_means_of_its_blocks(rain):
    radar = radar_of()
    view = Foveal(radar, (40, 37))
    x = view.inputs(view.records(rain, np.array([5, 4, 3, 2, 1, 0]))[None], np.zeros(1, int), 0)
    highest, mean, _ = rain_rates(rain, np.array([5]), radar)
    at = 2 * 6 + 1  # channels of a map
    middle = slice(39, 41), slice(36, 38)  # the block of two that the place's cell lies in
    assert x[0, at, EDGE // 2, EDGE // 2] == pytest.approx(float(signal(highest[0][middle]).max()), abs=0.005)
    assert x[0, at + 1, EDGE // 2, EDGE // 2] == pytest.approx(float(signal(mean[0][middle].mean())), abs=0.005)


def test_looking_from_beside_is_looking_from_there(rain):
    radar = radar_of()
    wide = Foveal(radar, (40, 40), reach=2)
    assert tuple(wide.nearby[0]) == (40, 40)
    slots = np.arange(5, -1, -1)
    records = wide.records(rain, slots)[None]
    for number in (0, 3, 11, 24):
        there = Foveal(radar, tuple(int(c) for c in wide.nearby[number]))
        own = there.inputs(there.records(rain, slots)[None], np.zeros(1, int), 0)
        np.testing.assert_array_equal(wide.inputs(records, np.array([number]), 0), own)
    assert {abs(int(c) - 40) for c in wide.nearby.ravel()} == {0, APART * 4, 2 * APART * 4}


def test_what_is_not_observed_shows_no_rain_and_says_so(rain):
    rates = synthetic.moving_rain(6, size=80, seed=3)
    rates[:, :, 50:] = np.nan
    view = Foveal(radar_of(), (40, 45))
    records = view.records(frames_of(rates), np.arange(5, -1, -1))[None]
    x = view.inputs(records, np.zeros(1, int), 0)[0]
    first = EDGE // 2 + 5  # the column of the finest map that shows column 50
    seen = 2 * 6
    assert (x[:seen, :, first:] == 0).all()
    assert (x[seen, :, first:] == 0).all()
    assert (x[seen, :, :first] == 1).all()


def test_turned_maps_and_turned_motion_belong_together():
    motion = torch.tensor([[2.0, 5.0]])  # southward, eastward
    field = torch.zeros(1, 1, 7, 7)
    field[0, 0, 3 + 2, 3 + 1] = 1.0  # where a short step along (2, 1) ends
    for way in range(8):
        y, x = (int(c[0]) - 3 for c in torch.nonzero(turn(way, field)[0][0, 0], as_tuple=True))
        dy, dx = turned_motion(torch.tensor([[2.0, 1.0]]), way)[0].tolist()
        assert (y, x) == (dy, dx)
    assert turned_motion(motion, 0).tolist() == [[2.0, 5.0]]


def test_no_age_lies_before_the_history():
    for history in range(2, 31):
        layout = FrameLayout(history, LAYOUT.periods, 3)
        shown = ages(Radar(TABLE, "rain_rate", timedelta(minutes=10), 4.0, (0.1,), layout))
        assert shown[0] == 0 and shown[-1] < history
        assert len(shown) == min(history, 6)


def test_the_ages_shown_are_ten_minutes_apart_whatever_the_cadence():
    assert ages(radar_of()).tolist() == [0, 1, 2, 3, 4, 5]
    fast = Radar(TABLE, "rain_rate", timedelta(minutes=5), 4.0, (0.1,), FrameLayout(12, LAYOUT.periods, 3))
    assert ages(fast).tolist() == [0, 2, 4, 6, 8, 10]


def test_of_a_radar_that_scans_often_the_motion_at_a_place_is_a_frames_too(tmp_path):
    synthetic.write_archive(tmp_path / "a", synthetic.drifting_rain(24))
    archive = Archive.open(tmp_path / "a")
    start, stop = archive.span
    radar = Radar.of(archive.schema, 1, (0.1, 1.0), FrameLayout(15, ((0, 2), (2, 4)), 15))
    radar = replace(radar, cadence=timedelta(minutes=2))
    frames = load_frames(archive, 1, np.arange(start, stop))
    travelled = tracks(frames, np.array([start + 20]), radar, (32, 30))
    np.testing.assert_allclose(travelled[0, :4], np.arange(1, 5)[:, None] * np.array([-0.12, -0.2]), atol=0.1)


# --- the ancestor's ---------------------------------------------------------------------------------------------------


def test_the_rings_deal_every_block_to_one_of_thirty_four_modules():
    view = Rings(radar_of(), (60, 70), (120, 120))
    assert sum(module.shape[0] for module in view.modules) == 34
    *around, tripwire = view.modules
    dealt = np.concatenate([module.reshape(-1, 2) for module in around])
    assert len(np.unique(dealt, axis=0)) == len(dealt)
    y, x = np.mgrid[:120, :120]
    within = np.hypot(y - 59.5, x - 59.5) * 4 < 240
    assert len(dealt) == within.sum()
    assert (np.hypot(*(tripwire[0] - (60, 70)).T) * 4 < 25).all()


def test_octants_that_share_a_network_list_their_blocks_turned_onto_each_other():
    view = Rings(radar_of(), (60, 60), (120, 120))
    for module in view.modules[:8]:
        offsets = 2 * module - 119  # doubled, from the middle
        for k in range(3):
            turned = np.stack([offsets[k][:, 1], -offsets[k][:, 0]], axis=-1)
            np.testing.assert_array_equal(offsets[k + 1], turned)


def test_the_ancestors_numbers_let_heavy_rain_stand_out():
    rates = np.zeros((6, 12, 12), np.float32)
    rates[:, 6, 6:10] = (0.1, 1.5, 2.0, 250.0)  # levels 1, 2, 3 and 14
    view = Rings(radar_of(40.0), (6, 6), (12, 12))
    x = view.inputs(view.records(frames_of(rates), np.arange(6))[None], np.zeros(1, int), 0)
    blocks = np.concatenate([module.reshape(-1, 2) for module in view.modules])
    said = {tuple(b): float(v) for b, v in zip(blocks, x[0, 0, ::2], strict=True)}
    for column, number in zip(range(6, 10), (1 / 20, 2 / 20, 8 / 20, 19 / 20), strict=True):
        assert said[6, column] == pytest.approx(number, abs=0.5 / 255 + 1e-6)
    assert len(ANCESTOR_EDGES) == 14


@pytest.mark.parametrize("way", range(8))
def test_the_ancestor_sees_the_map_turned_about_the_place(way):
    """What it sees of a map one way is what it would see of the turned map, the place staying where it is."""
    draw = np.random.default_rng(5)
    size, cell = 25, (9, 14)
    rates = np.zeros((6, size, size), np.float32)
    # Rain where the turned map holds it, too; elsewhere both see nothing.
    near = np.s_[:, cell[0] - 8 : cell[0] + 9, cell[1] - 8 : cell[1] + 9]
    rates[near] = draw.choice([0.0, 0.3, 5.0, 250.0], (6, 17, 17))
    turned = rates.copy()
    turned[near] = turn(way, torch.from_numpy(rates[near].copy()))[0].numpy()
    assert way == 0 or (turned != rates).any()
    view = Rings(radar_of(20.0), cell, (size, size))
    seen, expected = (
        view.inputs(view.records(frames_of(field), np.arange(5, -1, -1))[None], np.zeros(1, int), how)
        for field, how in ((rates, way), (turned, 0))
    )
    assert torch.equal(seen, expected)
    assert (seen > 0).float().mean() > 0.1


def test_the_map_is_not_turned_so_that_the_rings_lie_beyond_it():
    middle = Rings(radar_of(), (60, 60), (120, 120))
    assert middle.ways == tuple(range(8))
    # South of the middle: turned from left to right the rings see as much, otherwise little more than half.
    assert Rings(radar_of(), (90, 60), (120, 120)).ways == (0, 1)
    assert Rings(radar_of(), (63, 58), (120, 120)).ways == tuple(range(8))
    assert Foveal(radar_of(), (90, 60)).ways == tuple(range(8))


def test_the_oldest_frame_comes_first_to_the_ancestors_memory():
    rates = np.zeros((6, 12, 12), np.float32)
    rates[0] = 250.0
    view = Rings(radar_of(40.0), (6, 6), (12, 12))
    newest_first = view.records(frames_of(rates), np.arange(5, -1, -1) % 6)
    x = view.inputs(newest_first[None], np.zeros(1, int), 0)[0]
    assert x[0].max() > 0.9
    assert x[1:].max() == 0


def test_the_ancestors_network_is_as_large_as_it_was():
    """By hand: dense layers of 1000 and 5 for each kind, of 40 and 5 for the tripwire, LSTM, 200, 10."""
    network = AncestorNet([(4, 20, 1000), (4, 20, 1000), (1, 30, 1000), (1, 8, 40)], periods=5, thresholds=2)
    dense = 2 * (20 * 1000 + 1000 + 5005) + (30 * 1000 + 1000 + 5005) + (8 * 40 + 40 + 205)
    lstm = 4 * 6 * (50 + 6) + 2 * 4 * 6  # torch keeps two biases where Keras has one
    assert sum(p.numel() for p in network.parameters()) == dense + lstm + (6 * 200 + 200) + (200 * 10 + 10)
    x = torch.rand(3, 6, 4 * 20 + 4 * 20 + 30 + 8)
    assert network(x).shape == (3, 5, 2)


def test_the_ancestors_chances_are_its_own_as_far_as_they_fall():
    torch.manual_seed(0)
    network = AncestorNet([(4, 6, 10)], periods=2, thresholds=3)
    x = torch.rand(50, 6, 24) * 9
    straight, learned = network.parts(x)
    own = network(x).sigmoid().detach().cummin(dim=-1).values
    np.testing.assert_allclose((straight + learned).sigmoid().cumprod(dim=-1).detach(), own, atol=1e-4)


# --- our network ------------------------------------------------------------------------------------------------------


def test_at_the_start_the_network_is_the_mean_of_its_guesses():
    network = PlaceNet(39, edge=EDGE, periods=5, thresholds=3, guesses=2, conditions=6, width=8).eval()
    x, guess = torch.rand(4, 39, EDGE, EDGE), torch.randn(4, 5, 3, 2)
    out = network(x, guess, torch.rand(5, 6), torch.rand(4, 2))
    torch.testing.assert_close(out, guess.mean(dim=-1))


def test_a_network_of_one_place_learns_what_its_guesses_do_not_say():
    """A bright map means rain: after a few steps it is known."""
    torch.manual_seed(0)
    network = PlaceNet(3, edge=EDGE, periods=1, thresholds=1, guesses=1, conditions=1, width=4)
    bright = torch.rand(256) < 0.5
    x = torch.rand(256, 3, EDGE, EDGE) * 0.2 + bright[:, None, None, None]
    network.stem.fit(x)
    optimiser = AdamW(network.parameters(), lr=1e-2)
    batch = (x, torch.zeros(256, 1, 1, 1), torch.zeros(1, 1), torch.zeros(256, 2), bright[:, None].to(torch.int8))
    for _ in range(15):
        loss = RECIPES["place"].loss(network, (*batch, torch.ones(256)))
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss.item() < 0.2 < np.log(2)


# --- rows -------------------------------------------------------------------------------------------------------------


def test_rows_come_back_by_number_and_unfinished_ones_are_forgotten(tmp_path):
    rows = Rows(tmp_path / "a.rows", np.dtype(np.float32), (2, 3))
    values = np.arange(30, dtype=np.float32).reshape(5, 2, 3)
    rows.add(values)
    with (tmp_path / "a.rows").open("ab") as file:
        file.write(b"half a row")
    again = Rows(tmp_path / "a.rows", np.dtype(np.float32), (2, 3))
    assert len(again) == 5
    again.cut(3)
    again.add(values[4:])
    np.testing.assert_array_equal(again.read(np.array([[3, 0]])), values[[[4, 0]]])
    assert len(again) == 4
    with pytest.raises(ValueError, match="9 were expected"):
        again.cut(9)
    with pytest.raises(OSError, match="row 7"):
        again.read(np.array([7]))
    rows.close()
    again.close()


# --- windows on disk --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """A day of frames every five minutes, some of them missing: an hour of history, of which every other is shown."""
    path = tmp_path_factory.mktemp("long") / "archive"
    frames = synthetic.frames_of(synthetic.moving_rain(frames=330, size=32, seed=5))
    del frames[150:153]
    with writing(path, synthetic.schema(32, 32)) as writer:
        writer.write(frames)
        writer.commit("synthetic")
    return Archive.open(path)


def prepared_of(archive, folder, memory=2**28, progress=lambda *_: None):
    split = split_archive(archive)
    radar = Radar.of(archive.schema, 1, (0.1, 1.0), split.layout.frames(archive.schema.axis.cadence))
    assert radar.layout.history == 12
    prepared = Prepared(folder, Foveal(radar, (16, 12), reach=1), radar)
    issues = {"train": split.issues["train"], "calibrate": split.issues["calibrate"][::3]}
    draws = np.random.default_rng(0).random(len(issues["train"]))
    try:
        prepared.fill(archive, 1, Wanted(issues, draws, 0.5, 1.1), memory, progress)  # all are dry: half of them stay
    except BaseException:
        prepared.close()
        raise
    return prepared


def test_what_lies_on_disk_is_what_a_window_shows(long, tmp_path, monkeypatch):
    monkeypatch.setattr("fastrain.samples.frames.STRETCH", 7)
    with prepared_of(long, tmp_path / "a") as prepared:
        for block in ("train", "calibrate"):
            looker = Looker(prepared, block, 2)
            assert (looker.weights == (2 if block == "train" else 1)).all()
            shown = ages(prepared.radar)
            at = np.arange(looker.count) % looker.places
            x, guess, _, _, outcome, _ = looker.look(np.arange(looker.count), at)
            for number, issue in enumerate(looker.issues):
                frames = load_frames(long, 1, window_slots(np.array([issue]), prepared.radar.layout))
                here = Foveal(prepared.radar, tuple(int(c) for c in prepared.view.nearby[at[number]]))
                records = here.records(frames, np.sort(issue - shown))[::-1]
                torch.testing.assert_close(x[number], here.inputs(records[None], np.zeros(1, int), 0)[0])
                (row, column) = here.cell
                if 0 <= row < 32 and 0 <= column < 32:
                    truth = happened(frames, int(issue), prepared.radar)[:, row, column]
                    np.testing.assert_array_equal(outcome[number], truth)
                else:
                    assert (outcome[number] == -1).all()
            assert guess.shape[1:] == (len(prepared.radar.layout.periods), 2, GUESSES)


@pytest.mark.parametrize("what", ["slots", "windows"])
def test_a_stretch_that_was_cut_off_is_made_ready_again(long, tmp_path, monkeypatch, what):
    monkeypatch.setattr("fastrain.samples.frames.STRETCH", 20)
    with prepared_of(long, tmp_path / "whole") as whole:
        lookers = [Looker(whole, block, 2) for block in ("train", "calibrate")]
        expected = [looker.look(np.arange(looker.count), np.zeros(looker.count, int)) for looker in lookers]

    class Killed(BaseException):
        pass

    add = Rows.add
    calls = []

    def dying(self, rows):
        calls.append(self.path.name)
        if calls.count("train.rows") == 2 and self.path.name == ("slots.rows" if what == "slots" else "train.kept"):
            raise Killed
        add(self, rows)

    monkeypatch.setattr(Rows, "add", dying)
    with pytest.raises(Killed):
        prepared_of(long, tmp_path / "r")
    monkeypatch.setattr(Rows, "add", add)
    done = []
    # With another allowance of memory, too: stretches are then others.
    with prepared_of(long, tmp_path / "r", memory=2**17, progress=lambda at, *_: done.append(at)) as again:
        assert done[0] > 20  # what was ready was not made again
        for block, kept in zip(("train", "calibrate"), expected, strict=True):
            looker = Looker(again, block, 2)
            for mine, theirs in zip(
                looker.look(np.arange(looker.count), np.zeros(looker.count, int)), kept, strict=True
            ):
                torch.testing.assert_close(mine, theirs)


def test_a_place_that_is_never_seen_is_refused_before_training(tmp_path):
    rates = synthetic.moving_rain(96, seed=3)
    rates[:, 24:32, 8:16] = np.nan
    synthetic.write_archive(tmp_path / "a", rates)
    with pytest.raises(TooShort, match="does not observe the place"):
        train(tmp_path / "a", tmp_path / "r", SMALL)


def test_prepared_windows_of_another_plan_are_not_thrown_away(long, tmp_path):
    from dataclasses import replace

    class Killed(BaseException):
        pass

    def stop(done, total, text):
        raise Killed

    asked = replace(SMALL, place=(16, 12))
    with pytest.raises(Killed):
        train(long.path, tmp_path / "r", asked, progress=stop)
    with pytest.raises(RunError, match="unfinished run of other settings"):
        train(long.path, tmp_path / "r", replace(asked, seed=4))


def test_too_little_room_on_the_disk_is_said_before_anything_is_done(moving, tmp_path, monkeypatch):
    monkeypatch.setattr("fastrain.rain.place.train.shutil.disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(TooBig, match="GB of disk"):
        train(moving, tmp_path / "r", SMALL)


# --- beside the whole map ---------------------------------------------------------------------------------------------


def test_truth_and_baselines_of_a_place_are_those_of_the_map(rain):
    radar = radar_of()
    cell = (38, 41)
    view = Foveal(radar, cell)
    (case,) = cases(rain, np.array([5]), view, radar)
    reference = Reference(np.array([[0.3, 0.1], [0.3, 0.1]]), 0.3)
    inputs, moved = make_inputs(rain, 5, radar)
    np.testing.assert_array_equal(case.outcome, happened(rain, 5, radar)[:, *cell])
    assert (case.judged == (case.outcome >= 0)).all()
    for name in ("climatology", "persistence"):
        whole = baseline(name, rain, 5, inputs, moved, radar, reference)[..., *cell]
        np.testing.assert_allclose(place_baseline(name, case, view, radar, reference), whole)
    # The map follows every cell's own track and weighs four cells; the place moves all alike, by whole cells.
    whole = baseline("lagrangian", rain, 5, inputs, moved, radar, reference)[..., *cell]
    np.testing.assert_allclose(place_baseline("lagrangian", case, view, radar, reference), whole, atol=0.12)
    slopes = np.zeros((2, GUESSES + 1, CONDITIONS + 1))
    slopes[:, 1, -1], slopes[:, -1, -1] = 0.7, 0.1
    found = place_baseline("calibrated", case, view, radar, replace(reference, line=StraightLine(slopes)))
    conditional = 1 / (1 + np.exp(-(0.7 * case.guess[:, :, 1].astype(float) + 0.1)))
    np.testing.assert_allclose(found, conditional.cumprod(axis=1), atol=1e-5)
    # Of the map's two guesses by fading the place has the second, of rain rates with their doubt.
    of_map = inputs.guess[:, :, [*range(len(GUESS_SPREAD)), -1], *cell]
    np.testing.assert_allclose(case.guess, of_map.float(), atol=0.8)


def test_a_wide_map_fades_only_around_the_place_and_the_way_of_its_air(monkeypatch):
    frames, radar, cell = frames_of(synthetic.moving_rain(6, size=150, seed=3)), radar_of(2.0), (80, 70)
    track = np.arange(1, 7)[:, None] * np.array([1.5, -2.0])
    monkeypatch.setattr(windows, "tracks", lambda *_: track[None].astype(np.float32))
    monkeypatch.setattr(windows, "FADING_CELLS", 30)
    ((lead, _),) = windows.carried(frames, np.array([5]), radar, cell)
    # From the north-west of the place, 9 rows up and 12 columns to the right at most.
    assert lead.corner == (80 - 9 - 30, 70 - 30)
    assert lead.faded.known.shape == (30 + 9 + 1 + 30, 30 + 1 + 12 + 30)
    box = tuple(slice(at, at + size) for at, size in zip(lead.corner, lead.faded.known.shape, strict=True))
    ((alone, _),) = windows.carried(frames.cut(box), np.array([5]), radar, (39, 30))
    found = lead.faded_chances((76, 80), (66, 70, 74))
    assert found.shape == (2, 2, 2, 3)
    np.testing.assert_array_equal(found, alone.faded_chances((35, 39), (26, 30, 34)))
    assert 0 < found.mean() < 1


def test_air_from_beyond_the_map_leaves_a_box_on_it():
    track = np.array([[0.0, 0.0], [500.0, -500.0]])
    for box, size in zip(windows._box((3, 90), track, (40, 95), 4.0), (40, 95), strict=True):
        assert 0 <= box.start < box.stop <= size
    far = windows._box((-200, 400), track * 0, (40, 95), 4.0)
    assert [(s.start, s.stop) for s in far] == [(0, 1), (94, 95)]


# --- runs -------------------------------------------------------------------------------------------------------------

SMALL = TrainSettings(recipe="place", width=8, place=(28, 10), coarseness=1)


@pytest.fixture(scope="module")
def place_run(moving, tmp_path_factory):
    return train(moving, tmp_path_factory.mktemp("runs") / "place", SMALL)


def test_a_run_of_a_place_is_scored_at_its_cell(place_run):
    archive = place_run.archive()
    found = verify(place_run, archive)
    assert found.cell == (28, 10)
    assert found.wetness["network"].windows[1] == 0  # one cell is wet or dry
    assert sum(found.wetness["network"].windows) == found.issues
    assert found.tallies["network"].cells.max() <= found.issues
    assert np.isfinite(found.tallies["network"].brier).all()
    with pytest.raises(PlaceError, match="alone"):
        verify(place_run, archive, pixel=(3, 4))


def test_a_forecast_at_a_place_is_what_is_scored_there(place_run):
    from fastrain.rain.place.hindcast import place_hindcasts
    from fastrain.rain.place.run import place_parts, view_of
    from fastrain.rain.verify import held_out

    archive = place_run.archive()
    radar = place_run.radar(archive)
    issue = held_out(place_run, archive)[:1]
    view = view_of(place_run, archive, radar)
    (cast,) = place_hindcasts(
        load_frames(archive, 1, window_slots(issue, radar.layout)),
        issue,
        view,
        radar,
        Reference.from_attributes(place_run.facts["reference"]),
        against=(),
        parts=place_parts(place_run, radar, view),
        calibration=place_run.calibration,
    )
    chances = forecast_grid(place_run, archive, archive.schema.axis.time(int(issue[0])))
    np.testing.assert_allclose(chances["chance"].values, cast.chances["network"], rtol=1e-6)
    latitude, longitude = archive.schema.grid.place(28, 10)
    assert float(chances["y"][0]) == pytest.approx(latitude)
    assert float(chances["x"][0]) == pytest.approx(longitude)
    said = at_place(chances, archive.schema.grid, (28, 10))
    assert said.cell == (28, 10)
    assert next(iter(said.periods[0].chances.values())) == pytest.approx(
        float(cast.chances["network"][0, 0, 0, 0]), abs=1e-4
    )
    with pytest.raises(PlaceError, match="one place alone"):
        at_place(chances, archive.schema.grid, (10, 10))


def test_scores_of_a_map_at_a_place_are_those_of_its_cell(run):
    archive = run.archive()
    radar = run.radar(archive)
    found = verify(run, archive, against=("persistence",), pixel=(40, 41))
    coarseness = run.coarseness_on(archive)
    cell = (40 // coarseness, 41 // coarseness)
    from fastrain.rain.hindcast import Network
    from fastrain.rain.verify import held_out

    issues = held_out(run, archive)
    frames = load_frames(archive, coarseness, window_slots(issues, radar.layout))
    reference = Reference.from_attributes(run.facts["reference"])
    squared = []
    for cast in hindcasts(frames, issues, radar, reference, against=(), network=Network.of(run, radar)):
        if cast.judged[0, *cell]:
            squared.append((cast.chances["network"][0, 0, *cell] - cast.event()[0, 0, *cell]) ** 2)
    assert found.tallies["network"].brier[0, 0] == pytest.approx(np.mean(squared))
    assert found.tallies["network"].cells[0, 0] == len(squared)


@pytest.mark.parametrize("stage", ["made ready", "loss"])
def test_a_killed_training_of_a_place_ends_with_the_same_weights(place_run, moving, tmp_path, stage, monkeypatch):
    class Killed(BaseException):
        pass

    monkeypatch.setattr("fastrain.samples.frames.STRETCH", 10)
    monkeypatch.setattr("fastrain.rain.fitting.FitSettings", partial(FitSettings, checkpoint_seconds=0.0))
    seen = []

    def stop(done, total, text):
        seen.append((done, text))
        if stage in text and done >= (2 if stage == "made ready" else 20):
            raise Killed

    with pytest.raises(Killed):
        train(moving, tmp_path / "r", SMALL, progress=stop)
    assert (tmp_path / "r" / FOLDER).exists()
    with pytest.raises(RunError, match=r"not finished|no run is here"):
        from fastrain.rain.run import open_run

        open_run(tmp_path / "r")
    went_on = []
    finished = train(moving, tmp_path / "r", SMALL, progress=lambda done, total, text: went_on.append((done, text)))
    if stage == "loss":
        assert min(done for done, text in went_on if "loss" in text) >= 20
    assert finished.identity == place_run.identity
    assert sorted(p.name for p in (tmp_path / "r").iterdir()) == ["log.jsonl", "loss.png", "run.json", "weights.pt"]


def test_the_ancestor_trains_on_the_same_windows(place_run, moving, tmp_path, monkeypatch):
    from dataclasses import replace

    # Of its batches of 512 a step takes seconds.
    monkeypatch.setitem(RECIPES, "ancestor", replace(RECIPES["ancestor"], batch=32))
    made = train(moving, tmp_path / "r", replace(SMALL, recipe="ancestor"))
    assert made.facts["trained_on"] == place_run.facts["trained_on"]
    assert made.recipe == "ancestor"
    assert np.isfinite(verify(made, made.archive(), against=()).tallies["network"].brier).all()


def test_a_recipe_of_a_place_wants_one(moving, tmp_path):
    with pytest.raises(SettingError, match="give --place"):
        train(moving, tmp_path / "r", TrainSettings(recipe="place"))
    with pytest.raises(PlaceError, match="outside the picture of 64 rows"):
        train(moving, tmp_path / "r", TrainSettings(recipe="place", place=(64, 0)))
    with pytest.raises(SettingError, match="starts from nothing"):
        train(moving, tmp_path / "r", TrainSettings(recipe="place", place=(3, 3), start="base"))
    with pytest.raises(SettingError, match="--recipe nowhere: expected grid, place, ancestor"):
        train(moving, tmp_path / "r", TrainSettings(recipe="nowhere"))
    assert not (tmp_path / "r").exists()


def test_a_control_of_a_place_does_not_learn(place_run, moving, tmp_path):
    from dataclasses import replace

    control = train(moving, tmp_path / "r", replace(SMALL, shuffle_truth=True))

    def beside_frequency(made):
        tally = verify(made, made.archive()).tallies["network"]
        often = tally.events / tally.cells
        return (tally.brier / (often * (1 - often)))[0, 0]

    # Ten minutes ahead nearly all can be known, by what has not been trained on other windows' truth.
    assert beside_frequency(place_run) < 0.4
    assert beside_frequency(control) > 1


def test_there_is_no_map_of_a_place(place_run, tmp_path):
    from fastrain.cli.rain import forecast

    with pytest.raises(UsageError, match="there is no map"):
        forecast(place_run.path, to=tmp_path / "m.png")
    forecast(place_run.path, to=tmp_path / "m.json")
    assert json.loads((tmp_path / "m.json").read_text())["cell"] == [28, 10]
