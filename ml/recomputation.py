"""A stored score computed again: from its own feature vector, its key and the model that judged it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from ml.anomaly_model import Model, detector
from ml.baselines import looked_up
from ml.calibration import TAIL, return_period, threshold
from ml.decision import EXPECTED
from ml.explanation import rounded, shares
from ml.features import FEATURE_COLUMNS
from ml.policy import Policy, assigned
from ml.quantities import END, FEATURES, SERIES, START, Floats, Ordered


@dataclass(frozen=True)
class Recomputed:
    """What the model says of the row's features; ``threshold`` is that of today's policies."""

    score: float
    threshold: float
    return_period_windows: float
    expected_low: float
    expected_high: float
    contributions: dict[str, float]

    def differences(self, row: dict[str, Any]) -> list[str]:
        """The columns in which the stored row is not what its features and model give, to the last bit."""
        names = ("score", "return_period_windows", "expected_low", "expected_high")
        return [name for name in names if row[name] != getattr(self, name)]


def recompute(model: Model, row: pl.DataFrame, policies: Sequence[Policy]) -> Recomputed:
    """Computes one row of gold.anomaly_scores again, of a series that the model knows."""
    module = detector(model.detector)

    def score(z_scores: Floats) -> Floats:
        return np.asarray(module.score(model.state, z_scores))

    features = row.select(pl.col(FEATURE_COLUMNS).fill_null(np.nan)).to_numpy()
    scores = score(features)
    one, start = np.ones(1, np.int64), row[START].to_physical().to_numpy()
    size = int((row[END][0] - row[START][0]).total_seconds() * 1_000_000)
    usual = looked_up(Ordered(row, one, one, start, size, {}), model.baselines)
    middle = (usual.columns["level_median"] + usual.offset)[0]
    width = (EXPECTED * usual.columns["level_scale"])[0]
    rate = assigned(row, policies).of("false_alarm_rate")[0]
    tail = row.select(SERIES).join(model.baselines, on=SERIES, how="left", nulls_equal=True)
    ends = [tail[name].cast(pl.Float64).fill_null(np.nan).to_numpy() for name in TAIL]
    limit, period = threshold(float(rate), *ends)[0], return_period(scores, *ends)[0]
    added = dict(zip(FEATURES, map(float, rounded(shares(features, score))[0]), strict=True))
    return Recomputed(
        float(scores[0]), float(limit), float(period), float(middle - width), float(middle + width), added
    )
