import numpy as np
import pytest

from fastrain.core.errors import SettingError
from fastrain.core.levels import DEFAULT_THRESHOLDS, NOT_OBSERVED, LevelTable, rain_rate_of_reflectivity

LEGEND = (0.1, 1, 2, 4, 8, 12, 16, 24, 32, 50, 64, 100, 125, 200)


def test_marshall_and_palmer_give_23_dbz_for_one_millimetre_an_hour():
    assert rain_rate_of_reflectivity(np.array([23.0103])) == pytest.approx(1.0, abs=1e-4)
    assert rain_rate_of_reflectivity(np.array([40.0]), a=223.0, b=1.53) == pytest.approx(12.0, abs=0.05)


def test_the_edges_of_a_legend_belong_to_the_level_above():
    table = LevelTable.legend(LEGEND)
    rates = np.array([0.0, 0.0999, 0.1, 0.99, 1.0, 199.0, 200.0, 900.0, np.nan])
    assert table.encode(rates).tolist() == [0, 0, 1, 1, 2, 13, 14, 14, NOT_OBSERVED]


def test_no_default_threshold_cuts_a_binned_level():
    table = LevelTable.binned()
    for threshold in DEFAULT_THRESHOLDS:
        first = table.first_level(threshold)
        assert table.lower[first - 1] == pytest.approx(threshold)
        just_below, at = table.encode(np.array([threshold * 0.999, threshold]))
        assert just_below == first - 1
        assert at == first


def test_a_rate_and_its_level_differ_by_half_a_decibel_at_most():
    table = LevelTable.binned()
    rates = np.geomspace(0.02, 290, 5000)
    back = table.decode(table.encode(rates))
    assert np.abs(10 * np.log10(back / rates)).max() < 0.5 / 1.6


def test_a_threshold_inside_a_broad_level_is_refused_and_the_edges_named():
    table = LevelTable.legend(LEGEND)
    assert [table.first_level(t) for t in (0.1, 1, 2, 4)] == [1, 2, 3, 4]
    with pytest.raises(SettingError, match=r"0\.5 mm/h cuts a level.*0\.1, 1, 2"):
        table.first_level(0.5)
    with pytest.raises(SettingError, match="above every level"):
        table.first_level(1e4)
    assert table.nearest_edge(5.0) == 4.0
    assert table.nearest_edge(1.0) == 1.0


def test_a_narrow_level_is_decided_by_its_own_rate():
    reflectivity = (np.arange(1, 255) - 64) / 2
    table = LevelTable.codes(rain_rate_of_reflectivity(reflectivity, a=223.0, b=1.53).tolist())
    first = table.first_level(0.1)
    assert table.rates[first] >= 0.1 > table.rates[first - 1]


def test_a_table_comes_back_from_its_attributes():
    for table in (LevelTable.legend(LEGEND), LevelTable.binned()):
        assert LevelTable.from_attributes(table.as_attributes()).identity == table.identity
    assert LevelTable.legend(LEGEND).identity != LevelTable.binned().identity
