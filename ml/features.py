"""What the anomaly model sees of a window: robust z-scores against the window's own series and its device."""

import numpy as np
import polars as pl

from ml.baselines import Usual, agreed, looked_up, smoothed, z_score
from ml.quantities import FEATURES, Floats, Ordered
from ml.sample_size import factors, usual_readings

FEATURE_COLUMNS = tuple(f"feature_{name}" for name in FEATURES)
_STUCK, _READINGS = FEATURES.index("stuck"), FEATURES.index("readings")
FURTHEST = 1e6
"""z-scores end here: the square of one of a constant quantity could overflow."""


def z_scores(windows: Ordered, baselines: pl.DataFrame) -> tuple[Floats, Usual]:
    """The z-scores of every window, a column for each of ``FEATURES``, and what is usual there.

    NaN where a quantity is missing: no window directly before, or one reading only; and where the series is unknown.
    A series that moves more often than usual is not the less stuck for it, and one with more readings not unusual.
    """
    usual = looked_up(windows, baselines)
    values = {**windows.measured, **smoothed(windows, usual)}
    values["level"] = values["level"] - usual.offset
    # The first window that was ever seen follows no silence.
    values["silence"] = np.where(windows.start <= usual.columns["first_start"], np.nan, values["silence"])
    learned = usual.columns["readings_median"]
    values["readings"] = values["readings"] - (usual_readings(windows, learned) - learned)
    matrix = np.column_stack([z_score(values[name], name, usual) for name in FEATURES])
    matrix[:, _STUCK] = np.maximum(matrix[:, _STUCK], 0.0)
    matrix[:, _READINGS] = np.minimum(matrix[:, _READINGS], 0.0)
    _even_out(matrix, windows, usual)
    matrix[~np.isfinite(windows.measured["level"])] = np.nan
    return np.clip(matrix, -FURTHEST, FURTHEST), usual


def _even_out(matrix: Floats, windows: Ordered, usual: Usual) -> None:
    """Takes from quantities of several readings what they owe to an unusual number of these."""
    readings = np.rint(np.expm1(windows.measured["readings"]))
    learned = np.rint(np.expm1(usual.columns["readings_median"]))
    at = np.flatnonzero((readings != learned) & np.isfinite(readings) & np.isfinite(learned))
    for name, factor in factors(readings[at], learned[at]):
        values, column = windows.measured[name].copy(), FEATURES.index(name)
        values[at] *= factor
        matrix[at, column] = agreed(matrix[at, column], z_score(values, name, usual)[at])
