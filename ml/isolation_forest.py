"""The anomaly model: one isolation forest over the windows of every series, with a threshold for each series.

Liu, Ting and Zhou, "Isolation Forest", ICDM 2008. The decision is ours (``ml.calibration``): scikit-learn's ``predict``
and ``contamination`` know one threshold for all series.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ml.calibration import thresholds
from ml.features import FEATURE_COLUMNS, FEATURES, MIN_WINDOWS, SERIES, baselines, features
from resources.model_store import ModelRefusedError, StoredModel

INPUTS = (*FEATURES, "largest", "distance", "largest", "distance")
"""What the forest sees: the z-scores, the largest of them and their Euclidean norm.

A tree cannot tell how far beyond its sample a value lies, and picks the quantity of each split at random, so a step in
one quantity of six hardly shows. The two summaries, given twice, and samples of ``_MAX_SAMPLES`` instead of 256 raise
the share of windows found in a 5-sigma step from 0.01 to 0.89 at one false alarm in a thousand (70 series of 1,500
windows).
"""

_MAX_SAMPLES = 2048


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        forest: the fitted ``sklearn.ensemble.IsolationForest``.
        baselines: what is usual in each series (``ml.features.baselines``) and its ``threshold``.
        features: names of the forest's inputs, in order.
        trained_rows: number of windows that the forest was fitted on.
    """

    forest: Any
    baselines: pl.DataFrame
    features: tuple[str, ...]
    trained_rows: int


def restore(stored: StoredModel) -> Model:
    """The model that stands in the store.

    Raises:
        ModelRefusedError: if it was trained on other features than this version computes.
    """
    training = stored.training
    if training.features != INPUTS:
        raise ModelRefusedError(
            f"model {stored.name}/{stored.model_id}: was trained on the features {list(training.features)}, "
            f"this version computes {list(INPUTS)}; train the model again"
        )
    return Model(stored.forest, stored.baselines, training.features, training.rows)


def _matrix(rows: pl.DataFrame) -> npt.NDArray[np.float32]:
    """The forest's input, a column for each of ``INPUTS``. A missing feature counts as usual (0).

    asinh leaves small z-scores as they are and keeps a few huge ones from taking most of the forest's random splits.
    """
    scores = rows.select(pl.col(FEATURE_COLUMNS).fill_null(0.0)).to_numpy()
    largest = np.abs(scores).max(axis=1)
    distance = np.sqrt(np.square(scores).sum(axis=1))
    matrix = np.column_stack([scores, largest, distance, largest, distance])
    return np.asarray(np.arcsinh(matrix), dtype=np.float32)


def fit(windows: pl.DataFrame, *, trees: int, seed: int, false_alarm_rate: float) -> Model:
    """Fits a model; the same windows (in any order), arguments and library versions give the same model.

    Args:
        windows: final windows with the columns of ``gold.sensor_windows_1m``.
        trees: number of trees.
        seed: of the random splits.
        false_alarm_rate: see ``ml.calibration.thresholds``.

    Raises:
        ValueError: if no series has enough windows to learn from.
    """
    from sklearn.ensemble import IsolationForest

    usual = baselines(windows)
    rows = features(windows, usual)
    known = rows.filter(pl.col("reason").is_null())
    if known.is_empty():
        raise ValueError(f"{windows.height} windows of no series with at least {MIN_WINDOWS} windows each")
    matrix = _matrix(known)
    samples = min(_MAX_SAMPLES, len(matrix))
    forest = IsolationForest(n_estimators=trees, max_samples=samples, random_state=seed).fit(matrix)
    scores = known.select(*SERIES, pl.Series("score", _score_matrix(forest, matrix)))
    limits = thresholds(scores, false_alarm_rate)
    calibrated = usual.join(limits, on=SERIES, how="left", nulls_equal=True, maintain_order="left")
    return Model(forest, calibrated, INPUTS, known.height)


def _score_matrix(forest: Any, matrix: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Scores in (0, 1]; around 0.5 and below is usual.

    Trees are added up in order by one thread: in joblib's threads their order, and with it the last bits, would vary.
    """
    if not len(matrix):
        return np.empty(0)
    return np.asarray(-forest.score_samples(matrix))


def score(model: Model, windows: pl.DataFrame) -> pl.DataFrame:
    """Judges every window; each row's result depends only on itself, the window before it and the model.

    Returns:
        The windows in the order of ``ml.features.KEY`` with the columns of ``ml.features.features`` and ``score``
        (0 to 1), ``threshold`` (of the series) and ``is_anomaly``. Where ``reason`` is set the model cannot judge:
        ``score`` is null and ``is_anomaly`` false.
    """
    rows = features(windows, model.baselines)
    judged = rows["reason"].is_null().to_numpy()
    scores = np.full(rows.height, np.nan)
    scores[judged] = _score_matrix(model.forest, _matrix(rows.filter(judged)))
    return (
        rows.with_columns(pl.Series("score", scores).fill_nan(None))
        .join(
            model.baselines.select(*SERIES, "threshold"), on=SERIES, how="left", nulls_equal=True, maintain_order="left"
        )
        .with_columns((pl.col("score") > pl.col("threshold")).fill_null(False).alias("is_anomaly"))
    )
