"""Synthetic radar: what it promises of its rain, measured, and that no forecast is better than its best."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from fastrain.core.errors import DamagedFile, SettingError
from fastrain.sources import read_frames, recognise
from fastrain.sources.synthetic import KIND, SyntheticRadar, Weather, frames_of

STILL = Weather(rows=128, columns=128, frames=30, speed=0.0, swing=0.0, outer_km=60.0)


def run(weather, steps):
    radar = SyntheticRadar(weather)
    for i in range(steps):
        if i:
            radar.advance()
        yield radar


def decibel(rate):
    return 10 * np.log10(np.maximum(rate, 0.1) / 0.1)


def test_it_is_as_wet_and_as_strong_as_asked():
    weather = replace(STILL, wet=0.3, life_minutes=0.5, spread=8.0)
    rates = np.stack([radar.rain_rate() for radar in run(weather, 40)])
    assert (rates >= 0.1).mean() == pytest.approx(0.3, abs=0.03)
    # A Gaussian of 8 dB a standard deviation: the share of 1 mm/h lies 10 dB further out.
    from scipy.special import ndtr, ndtri

    assert (rates >= 1.0).mean() == pytest.approx(1 - ndtr(ndtri(0.7) + 10 / 8.0), abs=0.02)
    assert not ((rates > 0) & (rates < 0.1)).any()


def test_weather_comes_and_goes_and_the_long_run_is_as_asked():
    weather = replace(STILL, rows=32, columns=32, swing=1.0, swing_hours=0.2, life_minutes=0.5, wet=0.25)
    wet = np.array([(radar.rain_rate() >= 0.1).mean() for radar in run(weather, 600)])
    assert wet.mean() == pytest.approx(0.25, abs=0.04)
    assert wet.std() > 0.15


@pytest.mark.parametrize("slope", [2.0, 3.0])
def test_its_spectrum_has_the_slope_that_is_asked(slope):
    weather = replace(STILL, wet=0.999, slope=slope, life_minutes=0.5, rows=256, columns=256, outer_km=1000.0)
    power = 0.0
    for radar in run(weather, 12):
        field = decibel(radar.rain_rate())
        window = np.hanning(256)[:, None] * np.hanning(256)
        power = power + np.abs(np.fft.fft2((field - field.mean()) * window)) ** 2
    wave = np.hypot(np.fft.fftfreq(256)[:, None], np.fft.fftfreq(256))
    rings = np.logspace(np.log10(1 / 60), np.log10(1 / 8), 8)
    middle = [np.log(np.sqrt(a * b)) for a, b in itertools.pairwise(rings)]
    of_ring = [np.log(power[(wave >= a) & (wave < b)].mean()) for a, b in itertools.pairwise(rings)]
    assert -np.polyfit(middle, of_ring, 1)[0] == pytest.approx(slope, abs=0.35)


def test_waves_of_ten_kilometres_live_as_long_as_asked_and_longer_ones_longer():
    weather = replace(STILL, wet=0.999, life_minutes=20.0, life_exponent=1.5, rows=160, columns=160)
    fields = np.stack([decibel(radar.rain_rate()) for radar in run(weather, 30)])
    window = np.hanning(160)[:, None] * np.hanning(160)
    spectrum = np.fft.fft2((fields - fields.mean(axis=(1, 2), keepdims=True)) * window)
    wave = np.hypot(np.fft.fftfreq(160)[:, None], np.fft.fftfreq(160))

    def likeness(a, b, lag):
        band = (wave >= a) & (wave < b)
        early, late = spectrum[:-lag, band], spectrum[lag:, band]
        return (early * late.conj()).sum().real / np.sqrt((abs(early) ** 2).sum() * (abs(late) ** 2).sum())

    assert likeness(0.09, 0.11, 4) == pytest.approx(np.exp(-1), abs=0.12)
    assert likeness(0.045, 0.055, 4) == pytest.approx(np.exp(-(0.5**1.5)), abs=0.12)


@pytest.mark.parametrize(("whence", "south", "east"), [(270.0, 0, 1), (0.0, 1, 0), (180.0, -1, 0), (225.0, -0.7, 0.7)])
def test_rain_comes_from_where_it_is_said_to(whence, south, east):
    weather = replace(STILL, speed=48.0, direction=whence, life_minutes=10_000.0)  # 4 km a frame
    early, *_, late = [radar.rain_rate() for radar in run(weather, 4)]
    moved = np.fft.ifft2(np.fft.fft2(late) * np.fft.fft2(early).conj()).real
    y, x = np.unravel_index(moved.argmax(), moved.shape)
    y, x = (y + 64) % 128 - 64, (x + 64) % 128 - 64
    assert (y, x) == pytest.approx((12 * south, 12 * east), abs=1.0)


def test_turning_leaves_the_middle_where_it_is():
    weather = replace(STILL, turning=120.0, life_minutes=10_000.0, rows=101, columns=101)
    early, *_, late = [radar.rain_rate() for radar in run(weather, 10)]  # 45 minutes: a right angle
    np.testing.assert_allclose(late[50, 50], early[50, 50], rtol=1e-3)
    inner = slice(25, 76)
    turned = [np.corrcoef(np.rot90(early, k)[inner, inner].ravel(), late[inner, inner].ravel())[0, 1] for k in (1, 3)]
    assert max(turned) > 0.95


def test_no_forecast_is_better_than_the_best_and_the_best_is_honest():
    weather = replace(STILL, speed=30.0, turning=10.0, swing=0.5, swing_hours=1.0, outer_km=60.0, wet=0.3)
    radars = [SyntheticRadar(replace(weather, seed=seed)) for seed in range(16)]
    thresholds = (0.1, 1.0)
    chances, events, before = [], [], []
    for radar in radars:
        now, then = radar, SyntheticRadar(radar.weather)
        for _ in range(6):
            then.advance()
        chances.append(now.best_chance(then, thresholds))
        events.append(np.stack([then.rain_rate() >= t for t in thresholds]))
        before.append(np.stack([now.rain_rate() >= t for t in thresholds]))
    chance, event, was = np.stack(chances), np.stack(events), np.stack(before)
    for k in range(2):
        p, e = chance[:, k].ravel(), event[:, k].ravel()
        brier = ((p - e) ** 2).mean()
        assert p.mean() == pytest.approx(e.mean(), abs=0.02)
        assert brier == pytest.approx((p * (1 - p)).mean(), rel=0.1)  # what an honest forecast expects of itself
        assert brier < 0.8 * e.mean() * (1 - e.mean())
        assert brier < ((was[:, k].ravel().astype(float) - e) ** 2).mean()
        for low, high in ((0.1, 0.3), (0.4, 0.6), (0.7, 0.9)):
            bin = (p >= low) & (p < high)
            assert e[bin].mean() == pytest.approx(p[bin].mean(), abs=0.08)
        # Sharper, blunter or shifted chances are worse.
        z = np.log(np.clip(p, 1e-6, 1 - 1e-6) / np.clip(1 - p, 1e-6, 1))
        for other in (1.4 * z, 0.7 * z, z + 0.4, z - 0.4):
            assert ((1 / (1 + np.exp(-other)) - e) ** 2).mean() > brier


def test_what_is_known_now_is_certain_now():
    radar = SyntheticRadar(STILL)
    np.testing.assert_array_equal(radar.best_chance(radar, (0.1,))[0], radar.rain_rate() >= 0.1)


def test_clutter_stands_still_blind_parts_are_not_observed_and_frames_are_missing():
    weather = replace(STILL, wet=1e-4, clutter=0.05, blind=0.9, gaps=0.3, frames=60)
    frames = list(frames_of(weather, "x"))
    assert 0.5 * 60 < len(frames) < 0.85 * 60
    level = np.stack([f.level for f in frames])
    assert (level[:, 0, 0] == 255).all() and (level[:, 64, 64] != 255).all()
    seen = level[0] != 255
    ever = ((level > 0) & (level != 255)).any(axis=0)
    assert ever[seen].mean() == pytest.approx(0.05, abs=0.015)
    times = [f.valid_time for f in frames]
    assert times == sorted(set(times)) and all(
        (t - weather.start) % weather.cadence == weather.cadence * 0 for t in times
    )


def test_the_same_description_makes_the_same_frames_whatever_its_length():
    few, many = (list(frames_of(replace(STILL, frames=n, gaps=0.2), "x")) for n in (5, 9))
    for a, b in zip(few, many, strict=False):
        assert a.digest == b.digest and a.valid_time == b.valid_time
    assert next(iter(frames_of(replace(STILL, seed=1), "x"))).digest != few[0].digest


def write(path, text):
    path.write_text(f'fastrain = "{KIND}"\n{text}')
    return path


def test_a_file_describes_a_radar(tmp_path):
    path = write(tmp_path / "rain.toml", "rows = 40\ncolumns = 50\nframes = 3\nstart = 2020-02-03T04:00:00Z\n")
    assert recognise(path) == "synthetic"
    frames = list(read_frames(path, "synthetic"))
    assert [f"{f.valid_time:%H:%M}" for f in frames] == ["04:00", "04:05", "04:10"]
    assert frames[0].level.shape == (40, 50)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rows = 1", "rows = 1: expected 8 to 8192"),
        ("rows = 8000\ncolumns = 8000", "more than 50,000,000"),
        ("wet = 1.5", "wet = 1.5: expected 0.0001 to 0.999"),
        ("wet = nan", "wet"),
        ("frames = 2.5", "frames = 2.5: expected a whole number"),
        ("frames = true", "expected a whole number"),
        ('speed = "fast"', "expected a number"),
        ("winds = 3", "winds: no such setting"),
        ("start = 2020-02-03T04:00:00", "a time with its zone"),
        ("wet = ", "is no TOML"),
    ],
)
def test_what_a_file_cannot_mean_is_told(tmp_path, text, said):
    with pytest.raises(DamagedFile, match=said) as error:
        list(read_frames(write(tmp_path / "rain.toml", text), "synthetic"))
    assert str(error.value).startswith("rain.toml: ") and "\n" not in str(error.value)


def test_settings_are_checked_without_a_file_too():
    with pytest.raises(SettingError, match="turning"):
        Weather(turning=1000.0)


def test_futures_differ_and_agree_with_the_best_chance():
    weather = replace(STILL, rows=64, columns=64, speed=20.0, outer_km=80.0, wet=0.3)
    now = SyntheticRadar(weather)
    members = [now.future(member) for member in range(1, 101)]
    own = now.future(0)
    for radar in [own, *members]:
        for _ in range(4):
            radar.advance()
    share = np.mean([radar.rain_rate() >= 0.1 for radar in members], axis=0)
    best = now.best_chance(members[0], (0.1,))[0]
    # Of a hundred members, a share is off by 0.05 at most as a rule.
    assert np.sqrt(((share - best) ** 2).mean()) < 0.07
    assert now.step == 0 and not np.array_equal(members[0].rain_rate(), members[1].rain_rate())
    straight = SyntheticRadar(weather)
    for _ in range(4):
        straight.advance()
    np.testing.assert_array_equal(own.rain_rate(), straight.rain_rate())
