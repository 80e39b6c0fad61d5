"""What check finds, and what repair does about it and never does."""

from __future__ import annotations

import contextlib
import shutil
from datetime import timedelta

import numpy as np
import pytest
import synthetic
from compare import same

from fastrain.archive.schema import Status
from fastrain.archive.store import Archive
from fastrain.archive.writer import writing
from fastrain.core.errors import ArchiveError, DamagedChunk
from fastrain.core.frame import Frame
from fastrain.core.levels import NOT_OBSERVED
from fastrain.ingest.calendar import draw_calendar
from fastrain.ingest.check import KINDS, check
from fastrain.ingest.ingest import IngestSettings, ingest
from fastrain.ingest.repair import repair


def rates(count=40):
    return synthetic.moving_rain(frames=count, size=40, seed=2)


def write(path, frames):
    with writing(path, synthetic.schema(40, 40, (2, 4))) as writer:
        writer.write(frames)
        writer.commit("all")


def kinds(report):
    return {kind: count for kind, count in report.counts.items() if count}


def test_an_archive_as_it_was_written_has_nothing_wrong(tmp_path):
    write(tmp_path / "a", synthetic.frames_of(rates()))
    report = check(tmp_path / "a")
    assert kinds(report) == {}
    assert (report.frames, report.slots, report.missing, report.gaps) == (40, 40, 0, 0)


def test_gaps_are_counted_in_runs(tmp_path):
    frames = synthetic.frames_of(rates())
    write(tmp_path / "a", [*frames[:5], *frames[8:20], *frames[21:]])
    report = check(tmp_path / "a")
    assert (report.missing, report.gaps, report.frames) == (4, 2, 36)


def with_faults():
    frames = synthetic.frames_of(rates())
    level = [f.level.copy() for f in frames]
    level[5][25:] = NOT_OBSERVED  # broken off
    level[9][:] = NOT_OBSERVED  # blank
    level[13] = level[12].copy()  # the same rain again
    times = [f.valid_time for f in frames]
    times[20:] = [t + timedelta(seconds=100) for t in times[20:]]  # the clock jumps by a third of the cadence
    made = [Frame(v, t, f.grid, f.table, f.name) for f, v, t in zip(frames, level, times, strict=True)]
    return frames, made


def test_broken_off_blank_repeated_and_jumping_frames_are_found_at_their_times(tmp_path):
    frames, made = with_faults()
    write(tmp_path / "a", made)
    report = check(tmp_path / "a")
    assert kinds(report) == {"broken_off": 1, "blank": 1, "repeated": 1, "clock_jump": 1}
    at = {finding.kind: finding.time for finding in report.findings}
    for kind, i in {"broken_off": 5, "blank": 9, "repeated": 13, "clock_jump": 20}.items():
        assert at[kind] == frames[i].valid_time
    assert "row 24" in next(f.said for f in report.findings if f.kind == "broken_off")


def test_repair_marks_what_is_suspect_and_changes_no_pixel(tmp_path):
    _, made = with_faults()
    write(tmp_path / "a", made)
    before = Archive.open(tmp_path / "a")
    level = before.level(*before.span)
    report = check(tmp_path / "a")
    repair(tmp_path / "a", report)
    after = Archive.open(tmp_path / "a")
    np.testing.assert_array_equal(after.level(*after.span), level)
    status = after.slots("status", *after.span)
    assert set(np.flatnonzero(status == Status.SUSPECT)) == {5, 9, 13}
    assert report.marked == 3
    assert not after.observed(*after.span)[[5, 9, 13]].any()


def damage(path, name, slot):
    """Overwrite, in the storage, the chunk of an array that holds a slot."""
    archive = Archive.open(path)
    number = (archive.span[0] + slot) // archive.schema.frames_per_chunk
    wanted = archive.array(name, archive.span[0] + slot, archive.span[0] + slot + 1)
    assert wanted.size
    chunks = {p: p.stat().st_size for p in (path / "chunks").iterdir()}
    for chunk in chunks:
        kept = chunk.read_bytes()
        chunk.write_bytes(kept[: len(kept) // 2] + b"\xff" * (len(kept) - len(kept) // 2))
        try:
            Archive.open(path).array(name, number * archive.schema.frames_per_chunk, archive.span[0] + slot + 1)
        except ArchiveError:
            return
        chunk.write_bytes(kept)
    raise AssertionError("no chunk of this array was found")


def test_a_damaged_coarse_group_is_made_anew_from_the_frames(tmp_path):
    write(tmp_path / "a", synthetic.frames_of(rates()))
    shutil.copytree(tmp_path / "a", tmp_path / "whole")
    damage(tmp_path / "a", "2/mean", 15)
    report = check(tmp_path / "a")
    assert set(kinds(report)) == {"coarse"}
    repair(tmp_path / "a", report)
    assert report.rebuilt == report.counts["coarse"] > 0
    assert kinds(check(tmp_path / "a")) == {}
    assert same(tmp_path / "a", tmp_path / "whole")


def test_damaged_frames_are_found_marked_and_taken_anew_from_the_files(knmi, tmp_path):
    path = tmp_path / "a"
    ingest([knmi], path, IngestSettings())
    shutil.copytree(path, tmp_path / "whole")
    damage(path, "1/level", 30)
    report = check(path)
    assert set(kinds(report)) == {"damaged"}
    count = report.counts["damaged"]
    repair(path, report)
    assert (report.marked, report.repaired) == (count, 0)
    again = check(path)
    repair(path, again, [knmi])
    assert (again.repaired, again.marked) == (count, 0)
    mended, whole = Archive.open(path), Archive.open(tmp_path / "whole")
    for name in ("1/level", "2/max", "3/mean", "4/observed", "digest"):
        np.testing.assert_array_equal(mended.array(name, *mended.span), whole.array(name, *whole.span))
    assert (mended.slots("status", *mended.span) == Status.REPAIRED).sum() == count
    assert mended.observed(*mended.span).all()
    assert kinds(check(path)) == {}


def test_a_repair_takes_no_frame_for_a_time_that_is_not_suspect_and_none_that_is_broken_too(knmi, tmp_path):
    path = tmp_path / "a"
    ingest([knmi], path, IngestSettings())
    before = Archive.open(path)
    report = check(path)
    repair(path, report, [knmi])
    assert report.repaired == 0
    after = Archive.open(path)
    np.testing.assert_array_equal(after.slots("status", *after.span), before.slots("status", *before.span))


def test_the_calendar_shows_each_slot_in_its_colour(tmp_path):
    from PIL import Image

    _, made = with_faults()
    write(tmp_path / "a", made)
    report = check(tmp_path / "a")
    draw_calendar(Archive.open(tmp_path / "a"), report, tmp_path / "c.png")
    with Image.open(tmp_path / "c.png") as image:
        pixels = np.array(image.convert("RGB")).reshape(-1, 3)
    red = (np.abs(pixels.astype(int) - (214, 38, 41)) < 12).all(axis=1).sum()
    assert red > 100


def test_every_kind_of_finding_is_explained():
    assert set(check.__globals__["SUSPECT"]) <= set(KINDS)


def test_a_repeated_frame_is_not_repaired_by_itself_and_the_nearer_of_two_files_is_taken(tmp_path, monkeypatch):
    from fastrain.ingest import repair as module

    frames = synthetic.frames_of(rates())
    stale = [*frames]
    stale[13] = Frame(frames[12].level, frames[13].valid_time, frames[13].grid, frames[13].table, "stale")
    write(tmp_path / "a", stale)

    def given(made):
        monkeypatch.setattr(module, "_frames", lambda *_: iter(made))
        report = check(tmp_path / "a")
        repair(tmp_path / "a", report, [tmp_path])
        return report

    report = given([stale[13]])
    assert (report.repaired, report.marked) == (0, 1)
    assert any("the very frame that is suspect" in note for note in report.notes)
    with writing(tmp_path / "a") as writer:
        assert writer.write([stale[13]])[0].fate.value == "unchanged"
    early = Frame(
        frames[20].level, frames[13].valid_time - timedelta(seconds=140), frames[13].grid, frames[13].table, "e"
    )
    report = given([early, frames[13]])
    assert (report.repaired, report.marked) == (1, 0)
    archive = Archive.open(tmp_path / "a")
    np.testing.assert_array_equal(archive.level(*archive.span)[13], frames[13].level)


def test_storage_that_cannot_be_reached_is_no_damage_and_nothing_is_overwritten(tmp_path, monkeypatch):
    write(tmp_path / "a", synthetic.frames_of(rates()))

    def unreachable(*_):
        raise ArchiveError("the network is down")

    monkeypatch.setattr(Archive, "array", unreachable)
    with pytest.raises(ArchiveError, match="network"):
        check(tmp_path / "a")


def test_a_missing_piece_marks_its_frames_and_overwrites_nothing_without_files(tmp_path):
    write(tmp_path / "a", synthetic.frames_of(rates()))
    before = Archive.open(tmp_path / "a").level(*Archive.open(tmp_path / "a").span)
    hidden = []
    for chunk in sorted((tmp_path / "a" / "chunks").iterdir()):
        chunk.rename(tmp_path / chunk.name)
        # Pieces have no telling names; one of what is known of the slots ends the check with a line.
        with contextlib.suppress(DamagedChunk):
            if check(tmp_path / "a").counts["damaged"]:
                hidden.append(chunk)
                break
        (tmp_path / chunk.name).rename(chunk)
    report = check(tmp_path / "a")
    repair(tmp_path / "a", report)
    assert report.marked == report.counts["damaged"] > 0
    (tmp_path / hidden[0].name).rename(hidden[0])
    after = Archive.open(tmp_path / "a")
    np.testing.assert_array_equal(after.level(*after.span), before)


def test_writing_into_a_damaged_chunk_is_a_line_that_says_how_to_mend_it(tmp_path):
    frames = synthetic.frames_of(rates())
    write(tmp_path / "a", frames[:7])
    damage(tmp_path / "a", "1/level", 3)
    with (
        writing(tmp_path / "a") as writer,
        pytest.raises(DamagedChunk, match=r"1/level is damaged .*check .* --repair"),
    ):
        writer.write(frames[7:9])


@pytest.mark.parametrize("count", [1])
def test_an_archive_of_one_frame_is_checked(tmp_path, count):
    write(tmp_path / "a", synthetic.frames_of(rates())[:count])
    assert kinds(check(tmp_path / "a")) == {}
