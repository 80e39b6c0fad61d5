"""Frames in their slots: late, double, conflicting, out of order; and what readers see meanwhile."""

from __future__ import annotations

import subprocess
import sys
from datetime import timedelta

import numpy as np
import pytest
import synthetic

import fastrain
from fastrain.archive.repository import write_lock
from fastrain.archive.schema import Status
from fastrain.archive.store import Archive
from fastrain.archive.writer import Fate, writing
from fastrain.core.errors import ArchiveBusy, ArchiveError, GridMismatch
from fastrain.core.frame import Frame
from fastrain.core.levels import NOT_OBSERVED

RATES = synthetic.moving_rain(frames=30, size=31, seed=1)
FRAMES = synthetic.frames_of(RATES)
SCHEMA = synthetic.schema(31, 31, coarseness=(2, 3))


def offer(path, frames, **options):
    with writing(path, SCHEMA) as writer:
        verdicts = writer.write(frames, **options)
        writer.commit("test")
    return [verdict.fate for verdict in verdicts]


def content(path):
    """Everything an archive says, as plain arrays."""
    archive = Archive.open(path)
    start, stop = archive.span
    arrays = {"level": archive.level(start, stop), "span": np.array([start, stop])}
    for name in ("status", "time_offset", "digest", "wet_pixels", "observed_pixels"):
        arrays[name] = archive.slots(name, start, stop)
    for c in archive.schema.coarseness:
        arrays |= {f"{c}/{k}": v for k, v in archive.blocks(c, start, stop).items()}
    return arrays


def assert_same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_what_goes_in_comes_out(tmp_path):
    assert offer(tmp_path / "a", FRAMES) == [Fate.WRITTEN] * 30
    held = content(tmp_path / "a")
    np.testing.assert_array_equal(held["level"], np.stack([f.level for f in FRAMES]))
    assert (held["status"] == Status.OBSERVED).all()
    seen = held["level"] != NOT_OBSERVED
    np.testing.assert_array_equal(held["observed_pixels"], seen.sum(axis=(1, 2)))
    wet = (synthetic.TABLE.decode(held["level"]) >= 0.1).sum(axis=(1, 2))
    np.testing.assert_array_equal(held["wet_pixels"], wet)


def test_frames_in_any_order_and_in_any_pieces_make_the_same_archive(tmp_path):
    offer(tmp_path / "a", FRAMES)
    draw = np.random.default_rng(0)
    shuffled = [FRAMES[i] for i in draw.permutation(30)]
    for piece in np.array_split(np.arange(30), 7):
        offer(tmp_path / "b", [shuffled[i] for i in piece])
    assert_same(content(tmp_path / "a"), content(tmp_path / "b"))


def test_the_same_frame_twice_is_no_change(tmp_path):
    offer(tmp_path / "a", FRAMES)
    before = content(tmp_path / "a")
    assert offer(tmp_path / "a", FRAMES) == [Fate.UNCHANGED] * 30
    assert_same(before, content(tmp_path / "a"))


def test_a_different_frame_of_the_same_time_is_refused_unless_told_to_replace(tmp_path):
    offer(tmp_path / "a", FRAMES)
    other = Frame(FRAMES[3].level[::-1].copy(), FRAMES[7].valid_time, FRAMES[7].grid, synthetic.TABLE, "other")
    assert offer(tmp_path / "a", [other]) == [Fate.CONFLICT]
    np.testing.assert_array_equal(content(tmp_path / "a")["level"][7], FRAMES[7].level)
    assert offer(tmp_path / "a", [other], replace=True) == [Fate.REPLACED]
    np.testing.assert_array_equal(content(tmp_path / "a")["level"][7], other.level)
    np.testing.assert_array_equal(content(tmp_path / "a")["level"][6], FRAMES[6].level)


def test_of_two_frames_in_one_slot_the_nearer_stays_whichever_comes_first(tmp_path):
    near = Frame(FRAMES[5].level, FRAMES[5].valid_time + timedelta(seconds=30), FRAMES[5].grid, synthetic.TABLE, "near")
    far = Frame(FRAMES[9].level, FRAMES[5].valid_time - timedelta(seconds=90), FRAMES[5].grid, synthetic.TABLE, "far")
    assert offer(tmp_path / "a", [FRAMES[0], near, far]) == [Fate.WRITTEN, Fate.WRITTEN, Fate.FARTHER]
    assert offer(tmp_path / "b", [FRAMES[0], far]) == [Fate.WRITTEN, Fate.WRITTEN]
    assert offer(tmp_path / "b", [near]) == [Fate.REPLACED]
    assert_same(content(tmp_path / "a"), content(tmp_path / "b"))
    assert content(tmp_path / "a")["time_offset"][5] == 30


def test_of_two_equally_near_the_earlier_stays_whichever_comes_first(tmp_path):
    early, late = (
        Frame(FRAMES[i].level, FRAMES[5].valid_time + timedelta(seconds=s), FRAMES[5].grid, synthetic.TABLE, "x")
        for i, s in ((3, -60), (4, 60))
    )
    offer(tmp_path / "a", [FRAMES[0], early, late])
    offer(tmp_path / "b", [FRAMES[0], late, early])
    assert_same(content(tmp_path / "a"), content(tmp_path / "b"))
    assert content(tmp_path / "a")["time_offset"][5] == -60


def test_a_gap_stays_missing_and_not_observed(tmp_path):
    offer(tmp_path / "a", [FRAMES[0], FRAMES[20]])
    held = content(tmp_path / "a")
    assert held["status"].tolist() == [1] + [0] * 19 + [1]
    assert (held["level"][1:20] == NOT_OBSERVED).all()
    assert (held["2/max"][1:20] == NOT_OBSERVED).all()
    assert (held["2/observed"][1:20] == 0).all()


def test_a_frame_of_years_before_lands_without_shifting_any(tmp_path):
    offer(tmp_path / "a", FRAMES)
    old = Frame(FRAMES[0].level, FRAMES[0].valid_time - timedelta(days=3), FRAMES[0].grid, synthetic.TABLE, "old")
    offer(tmp_path / "a", [old])
    held = content(tmp_path / "a")
    np.testing.assert_array_equal(held["level"][-30:], np.stack([f.level for f in FRAMES]))
    np.testing.assert_array_equal(held["level"][0], old.level)


def test_nothing_is_seen_before_the_commit_and_nothing_stays_without_it(tmp_path):
    offer(tmp_path / "a", FRAMES[:10])
    with writing(tmp_path / "a") as writer:
        writer.write(FRAMES[10:])
        assert len(content(tmp_path / "a")["status"]) == 10
    assert len(content(tmp_path / "a")["status"]) == 10


def test_another_grid_or_table_is_refused_with_what_differs(tmp_path):
    offer(tmp_path / "a", FRAMES)
    bigger = synthetic.frames_of(synthetic.moving_rain(1, size=32))
    elsewhere = Frame(FRAMES[0].level, FRAMES[0].valid_time, synthetic.grid(31, 31, 2.0), synthetic.TABLE, "elsewhere")
    with pytest.raises(GridMismatch, match="32×32 pixels, but this archive holds 31×31"):
        offer(tmp_path / "a", bigger)
    with pytest.raises(GridMismatch, match="elsewhere: its grid"):
        offer(tmp_path / "a", [elsewhere])


def test_a_second_writer_is_refused_and_told_who_writes(tmp_path):
    offer(tmp_path / "a", FRAMES[:5])
    hold = (
        "import sys; from pathlib import Path; from fastrain.archive.writer import writing\n"
        "with writing(Path(sys.argv[1])): print('ready', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", hold, str(tmp_path / "a")], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout.readline() == b"ready\n"
        with pytest.raises(ArchiveBusy, match=f"process {other.pid} is writing"), write_lock(tmp_path / "a", 0.3):
            pass
        assert len(content(tmp_path / "a")["status"]) == 5
        other.stdin.close()
        other.wait(30)
    assert offer(tmp_path / "a", FRAMES) == [Fate.UNCHANGED] * 5 + [Fate.WRITTEN] * 25


def test_a_folder_that_is_no_archive_is_not_touched(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "letter.txt").write_text("mine")
    with pytest.raises(ArchiveError, match="exists and is no archive"):
        offer(tmp_path / "a", FRAMES)
    assert (tmp_path / "a" / "letter.txt").read_text() == "mine"
    with pytest.raises(ArchiveError, match="no archive is here"):
        Archive.open(tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_an_archive_opens_as_a_datatree_with_cf_coordinates(tmp_path):
    offer(tmp_path / "a", FRAMES)
    tree = fastrain.open_archive(tmp_path / "a")
    assert list(tree.children) == ["1", "2", "3"]
    level = tree["1/level"]
    assert level.dims == ("time", "y", "x")
    assert level.dtype == np.uint8
    np.testing.assert_array_equal(level.values, np.stack([f.level for f in FRAMES]))
    assert str(tree["time"].values[0]) == "2024-07-01T00:00:00.000000000"
    assert tree["2/max"].shape == (30, 16, 16)
    assert tree["2/max"].attrs["grid_mapping"] == "crs"
    assert tree["2/crs"].attrs["grid_mapping_name"] == "latitude_longitude"
    assert tree["2/y"].attrs["standard_name"] == "latitude"
    rates = tree["level_rate"].values[level.values[4]]
    np.testing.assert_allclose(rates, synthetic.TABLE.rates[FRAMES[4].level])
    # The same place, by the coordinates of the tree and by the grid.
    assert SCHEMA.grid.pixel(float(tree["1/y"][7]), float(tree["1/x"][3])) == (7, 3)


def test_every_chunk_is_checksummed_and_a_damaged_one_said_in_a_line(tmp_path):
    offer(tmp_path / "a", FRAMES)
    for chunk in (tmp_path / "a" / "chunks").iterdir():
        raw = bytearray(chunk.read_bytes())
        raw[len(raw) // 2] ^= 0xFF
        chunk.write_bytes(raw)
    with pytest.raises(ArchiveError, match="is damaged") as caught:
        content(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_a_truncated_archive_is_said_in_a_line(tmp_path):
    offer(tmp_path / "a", FRAMES)
    for folder in ("manifests", "chunks"):
        for file in (tmp_path / "a" / folder).iterdir():
            file.write_bytes(file.read_bytes()[:20])
    with pytest.raises(ArchiveError) as caught:
        content(tmp_path / "a")
    assert "\n" not in str(caught.value)


def test_an_answer_that_comes_late_is_waited_for_when_python_ends(tmp_path):
    """A thread that Python did not start, giving an answer to an event loop while the program ends."""
    late = """
import _thread, asyncio, threading, time
import fastrain.archive.repository

loop = asyncio.new_event_loop()
wake = loop._write_to_self

def slowly():
    wake()
    time.sleep(0.5)  # the interpreter's lock is given up, as while a socket is written
    print("home", flush=True)

loop._write_to_self = slowly

def answer():
    threading.current_thread()  # by which Python takes it for one of its own
    loop.call_soon_threadsafe(print, "answer")

_thread.start_new_thread(answer, ())
time.sleep(0.1)
"""
    done = subprocess.run([sys.executable, "-c", late], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout) == (0, "home\n"), done.stderr
