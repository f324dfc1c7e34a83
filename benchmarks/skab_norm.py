"""A detector without a forest, for comparison: the Euclidean norm of the z-scores."""

import numpy as np

from ml.quantities import Floats


def fit(z_scores: Floats, *, trees: int, seed: int) -> None:
    """There is nothing to learn."""


def score(_: None, z_scores: Floats) -> Floats:
    """The norm, on the logarithmic scale on which the forest sees it."""
    return np.asarray(np.arcsinh(np.sqrt(np.square(np.nan_to_num(z_scores)).sum(axis=1))))
