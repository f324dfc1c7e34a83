"""Why a score is high."""

import numpy as np
import pytest

from ml import isolation_forest
from ml.explanation import shares
from ml.quantities import FEATURES


@pytest.fixture(scope="module")
def forest() -> object:
    return isolation_forest.fit(np.random.default_rng(0).normal(size=(4000, len(FEATURES))), trees=100, seed=0)


def test_injected_fault_ranks_first(forest: object) -> None:
    """A fault on one feature of a normal window, from 8 to 100 usual deviations to either side."""
    random = np.random.default_rng(1)
    rows = random.normal(size=(500, len(FEATURES)))
    faulty = random.integers(0, len(FEATURES), len(rows))
    size = np.exp(random.uniform(np.log(8), np.log(100), len(rows))) * random.choice([-1, 1], len(rows))
    rows[np.arange(len(rows)), faulty] = size
    found = shares(rows, lambda z_scores: isolation_forest.score(forest, z_scores))
    assert (found.argmax(axis=1) == faulty).mean() >= 0.95


def test_feature_that_is_missing_adds_nothing(forest: object) -> None:
    rows = np.full((1, len(FEATURES)), np.nan)
    rows[0, 0] = 20.0
    (found,) = shares(rows, lambda z_scores: isolation_forest.score(forest, z_scores))
    assert found[0] > 0
    assert set(found[1:]) == {0.0}
