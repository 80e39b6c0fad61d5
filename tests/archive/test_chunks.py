"""Chunks compressed by us are the ones zarr makes, and workers' chunks are the ones a writer makes."""

from __future__ import annotations

import numpy as np
import pytest
import synthetic
import zarr
from zarr.codecs import ZstdCodec

from fastrain.archive import chunks
from fastrain.archive.chunks import LEVEL, encode_chunk
from fastrain.archive.pack import pack
from fastrain.archive.store import Archive
from fastrain.archive.writer import Fate, writing
from fastrain.core.errors import GridMismatch


@pytest.mark.parametrize(("shape", "plane"), [((12, 40, 50), (40, 50)), ((3, 70, 33), (32, 32))])
def test_a_chunk_is_what_zarr_would_store(shape, plane, monkeypatch):
    monkeypatch.setattr(chunks, "MOST_IN_CHUNK", 40 * 50)
    monkeypatch.setattr(chunks, "PART", 32)
    values = np.random.default_rng(0).integers(0, 20, shape).astype(np.uint8)
    store = zarr.storage.MemoryStore()
    array = zarr.create_array(
        store,
        shape=(5 * shape[0], *shape[1:]),
        chunks=(shape[0], *plane),
        dtype="uint8",
        fill_value=255,
        compressors=[ZstdCodec(level=LEVEL, checksum=True)],
    )
    array[2 * shape[0] : 3 * shape[0]] = values
    ours = encode_chunk(values, "1/level", 2)
    theirs = {f"1/level/{key}": value.to_bytes() for key, value in store._store_dict.items() if key.startswith("c/")}
    assert ours == theirs


def frames(count=30, size=24):
    return synthetic.frames_of(synthetic.moving_rain(frames=count, size=size, seed=1))


def test_packed_elsewhere_or_written_here_the_archive_is_the_same(tmp_path):
    made = frames()
    schema = synthetic.schema(24, 24, (2, 3))
    with writing(tmp_path / "here", schema) as writer:
        writer.write(made)
        writer.commit("all")
    with writing(tmp_path / "packed", schema) as writer:
        for start in range(0, 30, 12):
            verdicts = writer.write_packed(pack(made[start : start + 12], schema))
            assert {v.fate for v in verdicts} == {Fate.WRITTEN}
        writer.commit("all")
    here, packed = Archive.open(tmp_path / "here"), Archive.open(tmp_path / "packed")
    assert here.span == packed.span
    for name in ("status", "digest", "time_offset", "wet_pixels", "observed_pixels", "1/level", "2/max", "3/mean"):
        np.testing.assert_array_equal(here.array(name, *here.span), packed.array(name, *packed.span))


def test_a_packed_chunk_that_meets_other_frames_is_handed_back_and_one_that_is_held_is_unchanged(tmp_path):
    made = frames(24)
    schema = synthetic.schema(24, 24)
    with writing(tmp_path / "a", schema) as writer:
        writer.write(made[:3])
        writer.commit("three")
        assert writer.write_packed(pack(made[:12], schema)) is None
        verdicts = writer.write_packed(pack(made[:3], schema))
        assert [v.fate for v in verdicts] == [Fate.UNCHANGED] * 3
        verdicts = writer.write_packed(pack(made[12:24], schema))
        assert [v.fate for v in verdicts] == [Fate.WRITTEN] * 12


def test_what_is_no_chunk_of_time_is_not_packed():
    made = frames(24)
    schema = synthetic.schema(24, 24)
    assert pack(made[10:14], schema) is None
    assert pack([made[0], made[0]], schema) is None
    with pytest.raises(GridMismatch):
        pack(frames(2, size=20), schema)
