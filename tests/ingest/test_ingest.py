"""Files into archives: what goes in, what is reported, what is left as it was."""

from __future__ import annotations

import shutil
from datetime import timedelta

import numpy as np
import pytest
from compare import same

from fastrain.archive.store import Archive
from fastrain.core.errors import ArchiveError, UsageError
from fastrain.core.levels import NOT_OBSERVED
from fastrain.ingest.info import describe
from fastrain.ingest.ingest import IngestSettings, ingest
from fastrain.sources import ReadOptions, read_frames


@pytest.fixture
def some(knmi, tmp_path):
    """A dozen files of the KNMI night, to be damaged."""
    folder = tmp_path / "some"
    folder.mkdir()
    for path in sorted(knmi.iterdir())[:12]:
        shutil.copy(path, folder)
    return folder


def test_good_files_go_in_and_each_bad_one_is_a_line(some, tmp_path):
    files = sorted(some.iterdir())
    files[1].write_bytes(files[1].read_bytes()[:3000])
    files[2].write_bytes(b"")
    files[3].write_bytes(b"<html>not found</html>")
    (some / "notes.txt").write_text("hello")
    report = ingest([some], tmp_path / "a", IngestSettings())
    assert report.counts["written"] == 9
    assert sorted(p.name for p in report.problems) == sorted([*(f.name for f in files[1:4]), "notes.txt"])
    assert all(p.name in p.reason and "\n" not in p.reason for p in report.problems)
    held = Archive.open(tmp_path / "a")
    assert held.observed(*held.span).sum() == 9


def test_again_is_no_change_and_more_files_only_add(some, tmp_path):
    files = sorted(some.iterdir())
    ingest(files[:5], tmp_path / "a", IngestSettings())
    again = ingest(files, tmp_path / "a", IngestSettings())
    assert (again.counts["written"], again.counts["unchanged"]) == (7, 5)
    ingest([some], tmp_path / "b", IngestSettings())
    assert same(tmp_path / "a", tmp_path / "b")


def test_two_processes_decode_to_the_same_archive(some, tmp_path):
    ingest([some], tmp_path / "a", IngestSettings(workers=1))
    ingest([some], tmp_path / "b", IngestSettings(workers=2))
    assert same(tmp_path / "a", tmp_path / "b")


def test_the_same_picture_gives_the_same_frame_whatever_comes_with_it(franktown, tmp_path):
    pictures = sorted(franktown.glob("XFT_PRECIP*"))
    ingest(pictures, tmp_path / "a", IngestSettings())
    again = ingest(pictures[2:3], tmp_path / "a", IngestSettings())
    assert again.counts["unchanged"] == 1
    assert not again.problems


def test_franktown_is_held_as_its_reader_reads_it(franktown, tmp_path):
    report = ingest([franktown], tmp_path / "a", IngestSettings())
    assert report.counts["written"] == 6
    archive = Archive.open(tmp_path / "a")
    assert archive.schema.axis.cadence == timedelta(minutes=10)
    assert archive.schema.average == "level"
    picture = franktown / "XFT_PRECIP_RAIN_2013_08_08_03_40.GIF"
    (frame,) = read_frames(picture, "eccc")
    slot, _ = archive.schema.axis.slot(frame.valid_time)
    held = archive.level(slot, slot + 1)[0]
    both = (held != NOT_OBSERVED) & (frame.level != NOT_OBSERVED)
    np.testing.assert_array_equal(held[both], frame.level[both])
    # The consensus of six pictures knows more of what is hidden than one picture can.
    assert (held == NOT_OBSERVED).mean() == pytest.approx((frame.level == NOT_OBSERVED).mean(), abs=0.01)


def test_pictures_of_many_radars_are_not_mixed(data, tmp_path):
    folder = data / "radar/eccc_2025-09-02/cappi"
    with pytest.raises(UsageError, match=r"Pictures of 23 radars.*--site"):
        ingest([folder], tmp_path / "a", IngestSettings())
    report = ingest([folder], tmp_path / "a", IngestSettings(reading=ReadOptions(site="casft")))
    assert report.counts["written"] == 3
    assert not report.problems
    with pytest.raises(UsageError, match="no such radar"):
        ingest([folder], tmp_path / "b", IngestSettings(reading=ReadOptions(site="CASXX")))


def test_another_radars_pictures_are_refused_one_by_one_and_leave_the_archive_alone(data, tmp_path):
    folder = data / "radar/eccc_2025-09-02/cappi"
    ingest(sorted(folder.glob("*CASFT*")), tmp_path / "a", IngestSettings())
    report = ingest(sorted(folder.glob("*CASWL*")), tmp_path / "a", IngestSettings())
    assert report.counts["written"] == 0
    assert len(report.problems) == 3
    assert all("its grid is centred at" in p.reason for p in report.problems)
    archive = Archive.open(tmp_path / "a")
    assert archive.observed(*archive.span).sum() == 3


def test_another_product_of_the_same_time_is_refused_unless_told_to_replace(data, tmp_path):
    folder = data / "radar/eccc_2025-09-02"
    ingest(sorted((folder / "cappi").glob("*CASFT*")), tmp_path / "a", IngestSettings())
    other = sorted((folder / "dpqpe").glob("*CASFT*"))
    refused = ingest(other, tmp_path / "a", IngestSettings())
    assert refused.counts["conflict"] == 3
    assert "--replace" in refused.problems[0].reason
    assert ingest(other, tmp_path / "a", IngestSettings(replace=True)).counts["replaced"] == 3


def test_choices_that_contradict_the_archive_are_refused(some, tmp_path):
    ingest([some], tmp_path / "a", IngestSettings())
    for settings in (
        IngestSettings(coarseness=(5,)),
        IngestSettings(cadence=timedelta(minutes=10)),
        IngestSettings(average="level"),
    ):
        with pytest.raises(ArchiveError, match="This archive was made with"):
            ingest([some], tmp_path / "a", settings)


def test_one_frame_asks_for_a_cadence(some, tmp_path):
    one = sorted(some.iterdir())[:1]
    with pytest.raises(UsageError, match="--cadence"):
        ingest(one, tmp_path / "a", IngestSettings())
    assert ingest(one, tmp_path / "a", IngestSettings(cadence=timedelta(minutes=5))).counts["written"] == 1


def test_nothing_readable_makes_no_archive_and_a_line_for_each_file(franktown, tmp_path):
    folder = tmp_path / "x"
    folder.mkdir()
    for path in sorted(franktown.iterdir())[:3]:
        (folder / path.name).write_bytes(path.read_bytes()[:900])
    (folder / "notes.txt").write_text("hello")
    report = ingest([folder], tmp_path / "a", IngestSettings())
    assert len(report.problems) == 4
    assert report.counts["written"] == 0
    assert not (tmp_path / "a").exists()
    only = ingest([folder / "notes.txt"], tmp_path / "a", IngestSettings())
    assert [p.name for p in only.problems] == ["notes.txt"]
    with pytest.raises(UsageError, match="no such file"):
        ingest([tmp_path / "nowhere"], tmp_path / "a", IngestSettings())


def test_two_radars_are_not_mixed_even_with_one_centre_for_both(data, tmp_path):
    pictures = [next((data / "radar/eccc_2025-09-02/cappi").glob(f"*0142*{code}*")) for code in ("CASAG", "CASGO")]
    reading = ReadOptions(centre=(45.0, -75.0))
    with pytest.raises(UsageError, match="Pictures of 2 radars"):
        ingest(pictures, tmp_path / "a", IngestSettings(reading=reading, cadence=timedelta(minutes=6)))


def test_the_same_choices_again_are_no_contradiction(some, tmp_path):
    settings = IngestSettings(coarseness=(), cadence=timedelta(minutes=5), average="rain_rate")
    for unchanged in (0, 12):
        assert ingest([some], tmp_path / "a", settings).counts["unchanged"] == unchanged
    assert Archive.open(tmp_path / "a").schema.coarseness == ()


def test_a_frame_from_the_future_is_left_out(franktown, tmp_path):
    for name in ("XFT_2099_01_01_00_00.GIF", "XFT_2013_08_08_03_30.GIF", "XFT_2013_08_08_03_40.GIF"):
        shutil.copy(franktown / "XFT_2012_06_03_17_00.GIF", tmp_path / name)
    report = ingest(sorted(tmp_path.glob("*.GIF")), tmp_path / "a", IngestSettings())
    assert report.counts["written"] == 2
    assert "lies in the future" in report.problems[0].reason


def test_info_counts_what_is_held(night, knmi):
    info = describe(night)
    levels = [next(iter(read_frames(p, "knmi"))) for p in sorted(knmi.iterdir())]
    wet = sum(int(((f.level != NOT_OBSERVED) & (f.table.decode(f.level) >= 0.1)).sum()) for f in levels)
    seen = sum(int((f.level != NOT_OBSERVED).sum()) for f in levels)
    assert (info.frames, info.slots, info.gaps) == (92, 92, ())
    assert info.wet_share == pytest.approx(wet / seen)
    assert info.observed_share == pytest.approx(seen / (92 * 320 * 320))
    assert info.cadence_minutes == 5


def test_info_names_the_gaps_longest_first(some, tmp_path):
    files = sorted(some.iterdir())
    for i in (2, 5, 6, 7):
        files[i].unlink()
    ingest([some], tmp_path / "a", IngestSettings())
    info = describe(tmp_path / "a")
    assert [gap.frames for gap in info.gaps] == [3, 1]
    assert info.gaps[1].start.minute == 10


def test_an_archive_inside_the_folder_that_is_ingested_is_passed_over(some):
    ingest([some], some / "archive", IngestSettings())
    again = ingest([some], some / "archive", IngestSettings())
    assert (again.counts["unchanged"], again.problems) == (12, [])


def test_hostile_names_are_files_like_others(some, tmp_path, capsys):
    from fastrain.cli.show import say

    bad = some / "a\n\x1b[31mb.h5"
    bad.write_bytes(b"\x89HDF\r\n\x1a\n" + b"x" * 50)
    report = ingest([some], tmp_path / "a", IngestSettings())
    assert report.counts["written"] == 12
    (problem,) = report.problems
    say(problem.reason)
    shown = capsys.readouterr().err
    assert shown.count("\n") == 1
    assert "\x1b" not in shown


def test_two_cadences_in_one_archive_are_told_in_a_line(some, tmp_path):
    """Files every ten minutes, then those between: the archive has no time for them, and says so."""
    files = sorted(some.iterdir())
    assert ingest(files[::2], tmp_path / "a", IngestSettings()).notes == []
    report = ingest(files, tmp_path / "a", IngestSettings())
    assert report.counts["unchanged"] == 6
    assert report.notes[0].startswith("5 frames were for a time that another frame was for, too")
    assert "this archive holds one every 10 min" in report.notes[0]
    assert len(report.notes) == 1 + 5  # the last one has a time of its own
