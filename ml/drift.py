"""Whether what comes now is like what a model learned from: the population stability index.

The index compares shares of a quantity's values in bins that held a tenth of the training's each: the sum over the bins
of (now - then) * ln(now / then). Below 0.1 nothing has moved, above 0.25 the population is another one (Siddiqi,
"Credit Risk Scorecards", 2006, chapter 6). It measures how much has moved, not how surely: windows that follow one
another say much the same, so a test of significance (Kolmogorov-Smirnov, say) would ask for a training at every turn.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ml.quantities import FEATURES, Floats

LIMIT = 0.25
"""An index above this asks for a training."""

LEAST = 2_000
"""Fewer windows than this tell nothing: with one of sixteen independent, chance alone gives an index of 0.1."""

SCORE = "score"
_BINS = 10
_LEAST_SHARE = 1e-4

Reference = Mapping[str, Mapping[str, list[float]]]


def reference(features: Floats, scores: Floats) -> dict[str, dict[str, list[float]]]:
    """The bins of each feature and of the score: ``edges`` and the ``shares`` between them; JSON values.

    Args:
        features: z-scores, a row a window of the training and a column for each of ``FEATURES``.
        scores: their scores.
    """
    columns = {**dict(zip(FEATURES, features.T, strict=True)), SCORE: scores}
    found = {}
    for name, values in columns.items():
        known = values[np.isfinite(values)]
        if len(known):
            # A quantity that mostly has one value has fewer bins.
            edges = np.unique(np.quantile(known, np.arange(1, _BINS) / _BINS))
            found[name] = {"edges": edges.tolist(), "shares": _shares(known, edges).tolist()}
    return found


def stability(then: Reference, now: Mapping[str, Floats]) -> dict[str, float]:
    """The index of each quantity of ``then``; values that are missing do not count, and one without values has none."""
    found = {}
    for name, bins in then.items():
        known = now[name][np.isfinite(now[name])]
        if len(known):
            before = np.maximum(bins["shares"], _LEAST_SHARE)
            after = np.maximum(_shares(known, np.array(bins["edges"])), _LEAST_SHARE)
            found[name] = float(((after - before) * np.log(after / before)).sum())
    return found


def _shares(values: Floats, edges: npt.NDArray[Any]) -> Floats:
    places = np.searchsorted(edges, values, side="left")
    return np.asarray(np.bincount(places, minlength=len(edges) + 1) / len(values))
