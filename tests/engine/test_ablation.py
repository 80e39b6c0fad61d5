"""What a switch is worth, against statistics done elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from fastrain.engine.ablation import gain, leverage, ratios


@pytest.mark.parametrize("count", [2, 3, 5, 16, 40])
def test_the_interval_is_that_of_a_paired_t_test(count):
    rng = np.random.default_rng(count)
    base = rng.normal(90, 1, count)
    own = base + rng.normal(0.3, 0.2, count)
    found = gain(list(own), list(base))
    differences = own - base
    low, high = stats.t.interval(0.95, count - 1, differences.mean(), stats.sem(differences))
    assert found.mean == pytest.approx((low + high) / 2)
    assert found.half == pytest.approx((high - low) / 2, rel=0.04)
    assert found.clear == (low > 0 or high < 0)


def test_a_single_difference_has_no_interval():
    found = gain([91.0], [90.5])
    assert found.mean == pytest.approx(0.5) and found.half is None and not found.clear


def test_seeds_that_are_missing_are_no_quiet_matter():
    with pytest.raises(ValueError):
        gain([1.0, 2.0], [1.0])


def test_leverage_is_points_for_a_percent_of_time():
    assert leverage(0.5, 0.10) == pytest.approx(0.05)
    assert leverage(-0.4, -0.20) == pytest.approx(0.02)  # what is lost for each percent saved
    assert leverage(0.3, 0.001) is None


def test_ratios_are_taken_in_turns_and_survive_a_slow_minute():
    spent = {"now": 0.0}
    slow = {"factor": 1.0}
    order = []

    def step(name, seconds):
        def take():
            order.append(name)
            slow["factor"] = 4.0 if len(order) > 12 else 1.0  # the machine slows down half way
            spent["now"] += seconds * slow["factor"]

        return take

    found = ratios([step("a", 1.0), step("b", 1.5), step("c", 0.25)], rounds=7, clock=lambda: spent["now"])
    assert found == pytest.approx([1.0, 1.5, 0.25])
    assert order[:6] == ["a", "b", "c"] * 2
