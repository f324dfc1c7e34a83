"""How a series is judged that no model knows yet: by the distance of its level from its own last windows."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ml.policy import HISTORY
from ml.quantities import Floats, Ordered

LIMIT = 8.0
"""A level this many scales away gets the score 0.5, which is the threshold."""

MIN_HISTORY = 10
"""Fewer windows than this tell nothing."""

_QUARTILES_TO_SIGMA = 1.349
_TENTHS_TO_SIGMA = 2.563
_PART = 50_000


@dataclass(frozen=True)
class OwnHistory:
    """What the windows before tell of each window: NaN where there are too few, or where it was not asked for."""

    z: Floats
    deviation: Floats
    middle: Floats
    scale: Floats


def robust_z(windows: Ordered, at: npt.NDArray[np.bool_]) -> OwnHistory:
    """Compares the level of the windows of ``at`` with the median of those before."""
    columns = np.full((4, len(at)), np.nan)
    rows = np.flatnonzero(at)
    for first in range(0, len(rows), _PART):
        part = rows[first : first + _PART]
        before = part[:, None] - np.arange(1, HISTORY + 1)
        near = np.maximum(before, 0)
        is_near = (before >= 0) & (windows.series[near] == windows.series[part][:, None])
        is_near &= windows.start[part][:, None] - windows.start[near] <= HISTORY * windows.size
        level = windows.measured["level"]
        history = np.sort(np.where(is_near, level[near], np.nan), axis=1)  # NaN stands last
        count = np.isfinite(history).sum(axis=1)
        is_enough = count >= MIN_HISTORY
        part, history, count = part[is_enough], history[is_enough], count[is_enough]
        low, lower, middle, upper, high = (_quantile(history, count, share) for share in (0.1, 0.25, 0.5, 0.75, 0.9))
        # Coarse steps may leave nothing between the quartiles; a fault of few windows should not be between them.
        middling = (upper - lower) / _QUARTILES_TO_SIGMA
        noise = np.where(middling > 0, middling, (high - low) / _TENTHS_TO_SIGMA)
        scale = np.maximum(noise, np.maximum(np.abs(middle) * 1e-6, 1e-9))
        columns[:, part] = (level[part] - middle) / scale, level[part] - middle, middle, scale
    return OwnHistory(*columns)


def _quantile(ordered: Floats, count: npt.NDArray[np.int64], share: float) -> Floats:
    return np.asarray(ordered[np.arange(len(ordered)), np.rint(share * (count - 1)).astype(np.int64)])
