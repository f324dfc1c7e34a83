"""The shipped detector: what scikit-learn would give, in any batch."""

from typing import Any

import numpy as np
import pytest

from ml import isolation_forest
from ml.quantities import FEATURES, Floats


@pytest.fixture(scope="module")
def z_scores() -> Floats:
    random = np.random.default_rng(1)
    rows = random.normal(size=(2_000, len(FEATURES))) * np.exp(random.normal(size=(2_000, 1)))
    rows[random.random(rows.shape) < 0.05] = np.nan
    return np.asarray(rows)


@pytest.fixture(scope="module")
def forest() -> Any:
    return isolation_forest.fit(np.random.default_rng(0).normal(size=(3_000, len(FEATURES))), trees=50, seed=0)


def test_scores_are_those_of_scikit_learn_to_the_last_bit(forest: Any, z_scores: Floats) -> None:
    expected = -forest.score_samples(isolation_forest._inputs(z_scores))
    assert (isolation_forest.score(forest, z_scores) == expected).all()


def test_score_of_a_row_is_the_same_in_any_batch(
    forest: Any, z_scores: Floats, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = isolation_forest.score(forest, z_scores)
    alone = np.concatenate([isolation_forest.score(forest, row[None, :]) for row in z_scores[:50]])
    assert (alone == whole[:50]).all()
    monkeypatch.setattr(isolation_forest, "_PART", 300)
    assert (isolation_forest.score(forest, z_scores) == whole).all()


def test_no_rows_have_no_scores(forest: Any) -> None:
    assert len(isolation_forest.score(forest, np.empty((0, len(FEATURES))))) == 0
