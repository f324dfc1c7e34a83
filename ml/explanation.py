"""Why a window's score is high: what each feature adds to it."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import polars as pl

from ml.quantities import FEATURES, Floats

_DIGITS = 4


def shares(features: Floats, score: Callable[[Floats], Floats]) -> Floats:
    """What each feature adds to the score of each row, found by scoring again.

    The mean of two differences: the score without the feature (it is set to its usual value, 0) from the score with
    all, and the score of nothing unusual from the score of this feature alone. The first alone would tell nothing where
    two features say the same, as a step does in the level and in what is sustained.

    Returns:
        A row for each of ``features`` and a column for each of ``ml.quantities.FEATURES``.
    """
    count, width = features.shape
    known = np.nan_to_num(features)
    one = np.eye(width, dtype=bool)
    without = np.where(one[None, :, :], 0.0, known[:, None, :]).reshape(-1, width)
    alone = np.where(one[None, :, :], known[:, None, :], 0.0).reshape(-1, width)
    scored = score(np.concatenate([known, without, alone, np.zeros((1, width))]))
    whole, rest, single, nothing = np.split(scored, [count, count * (width + 1), count * (2 * width + 1)])
    removed = whole[:, None] - rest.reshape(count, width)
    added = single.reshape(count, width) - nothing
    return np.asarray((removed + added) / 2)


def rounded(parts: Floats) -> Floats:
    """What is stored of ``shares``."""
    return np.round(parts, _DIGITS)


def contributions(
    features: Floats, scores: Floats, at: npt.NDArray[np.bool_], score: Callable[[Floats], Floats]
) -> pl.DataFrame:
    """``top_feature`` and ``contributions`` (JSON) of the rows of ``at``; null elsewhere."""
    rows = np.flatnonzero(at)
    empty = pl.DataFrame({"top_feature": pl.repeat(None, len(scores), dtype=pl.String, eager=True)}).with_columns(
        contributions=pl.lit(None, pl.String)
    )
    if not len(rows):
        return empty
    parts = shares(features[rows], score)
    table = pl.DataFrame(rounded(parts), schema=FEATURES)
    told = table.select(
        row=pl.Series(rows),
        top_feature=pl.Series(np.array(FEATURES)[parts.argmax(axis=1)]),
        contributions=pl.struct(pl.all()).struct.json_encode(),
    )
    joined = empty.select(row=pl.int_range(pl.len())).join(told, on="row", how="left", maintain_order="left")
    return joined.drop("row")
