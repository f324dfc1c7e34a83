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

A tree picks the quantity of each split at random, so a step in one quantity of six hardly shows; the two summaries,
given twice, make every fault show in four of ten splits.
"""

_MAX_SAMPLES = 2048
_OUTLYING_SHARE = 0.02
_OUTLYING_MIN = 32
_OUTLYING_FURTHEST = 100.0


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


def _z_scores(rows: pl.DataFrame) -> npt.NDArray[np.float64]:
    """The features as a matrix; a missing one counts as usual (0)."""
    return rows.select(pl.col(FEATURE_COLUMNS).fill_null(0.0)).to_numpy()


def _inputs(z_scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The forest's input, a column for each of ``INPUTS``.

    asinh leaves small z-scores as they are and keeps a few huge ones from taking most of the forest's random splits.
    """
    largest = np.abs(z_scores).max(axis=1)
    distance = np.sqrt(np.square(z_scores).sum(axis=1))
    matrix = np.column_stack([z_scores, largest, distance, largest, distance])
    return np.asarray(np.arcsinh(matrix), dtype=np.float32)


def _outlying(windows: int, seed: int) -> npt.NDArray[np.float64]:
    """Made-up windows, each far out in one quantity, that the trees are grown with.

    A tree has no splits beyond the values it saw: without these, a window 30 sigma away gets the score of the training
    window that is furthest out, and no alarm. With two of them in a hundred windows, the share of windows found in a
    30-sigma step rises from 0.85 to 1.00 (30 series of 1,500 training windows) and from 0.02 to 1.00 (2 series of 80),
    at a false alarm rate of 0.001. They do not count in the thresholds.
    """
    random = np.random.default_rng(seed)
    count = max(_OUTLYING_MIN, int(windows * _OUTLYING_SHARE))
    z_scores = random.normal(size=(count, len(FEATURES)))
    furthest = np.arcsinh(_OUTLYING_FURTHEST)
    z_scores[np.arange(count), random.integers(0, len(FEATURES), count)] = np.sinh(
        random.uniform(-furthest, furthest, count)
    )
    return z_scores


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
    z_scores = _z_scores(known)
    grown_on = _inputs(np.concatenate([z_scores, _outlying(known.height, seed)]))
    samples = min(_MAX_SAMPLES, len(grown_on))
    forest = IsolationForest(n_estimators=trees, max_samples=samples, random_state=seed).fit(grown_on)
    scores = known.select(*SERIES, pl.Series("score", _score_matrix(forest, _inputs(z_scores))))
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
    scores[judged] = _score_matrix(model.forest, _inputs(_z_scores(rows.filter(judged))))
    return (
        rows.with_columns(pl.Series("score", scores).fill_nan(None))
        .join(
            model.baselines.select(*SERIES, "threshold"), on=SERIES, how="left", nulls_equal=True, maintain_order="left"
        )
        .with_columns((pl.col("score") > pl.col("threshold")).fill_null(False).alias("is_anomaly"))
    )
