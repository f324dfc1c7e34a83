"""The population stability index."""

import numpy as np
import pytest

from ml.drift import LIMIT, SCORE, reference, stability
from ml.quantities import FEATURES

COUNT = 20_000


def index_of(then: object, now: object) -> float:
    """The index of one quantity."""
    before, after = np.asarray(then, dtype=np.float64), np.asarray(now, dtype=np.float64)
    bins = reference(np.zeros((len(before), len(FEATURES))), before)
    return stability({SCORE: bins[SCORE]}, {SCORE: after})[SCORE]


def normal(seed: int, count: int = COUNT) -> object:
    return np.random.default_rng(seed).normal(size=count)


def test_index_is_the_formula() -> None:
    """Two bins, half in each, then a tenth in one: 2 * 0.4 * ln(0.9 / 0.1) / ... by hand."""
    then, now = [0.0] * 50 + [1.0] * 50, [0.0] * 10 + [1.0] * 90
    assert index_of(then, now) == pytest.approx((0.1 - 0.5) * np.log(0.1 / 0.5) + (0.9 - 0.5) * np.log(0.9 / 0.5))


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_same_distribution_is_far_below_the_limit(seed: int) -> None:
    assert index_of(normal(0), normal(seed, 2_000)) < LIMIT / 10


def test_shift_and_spread_are_above_it() -> None:
    usual = np.asarray(normal(1))
    assert index_of(normal(0), usual + 1) > LIMIT
    assert index_of(normal(0), usual * 2) > LIMIT


def test_quantity_with_one_value_moves_when_it_gets_others() -> None:
    assert index_of(np.zeros(1000), np.zeros(500)) == 0
    assert index_of(np.zeros(1000), np.ones(500)) > LIMIT


def test_missing_values_do_not_count() -> None:
    with_gaps = np.where(np.arange(COUNT) % 3 == 0, np.nan, np.asarray(normal(1)))
    assert index_of(normal(0), with_gaps) < LIMIT / 10
    assert (
        stability(reference(np.zeros((9, len(FEATURES))), np.zeros(9)), {n: np.empty(0) for n in (*FEATURES, SCORE)})
        == {}
    )
