"""The anomaly model: what is usual in each series, a detector over the z-scores of all, and what its scores mean."""

import importlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ml.baselines import MIN_WINDOWS, learn
from ml.calibration import TAIL, tails
from ml.decision import Verdicts, decide
from ml.drift import Reference, reference
from ml.features import z_scores
from ml.groups import CATEGORY
from ml.policy import Policy, assigned
from ml.quantities import FEATURES, SERIES, Floats, Ordered, by_devices, measured
from ml.rarity import SHARES, learned, with_rarity
from resources.errors import ConfigurationError
from resources.model_store import ModelRefusedError, StoredModel

SHIPPED = "ml.isolation_forest"
"""The detector that is used unless ``ml.detector`` names another."""

REFERENCE = "reference"
"""The parameter of a stored model that holds ``Model.reference``."""

_FOLDS = 4
_OUTLIER = 30.0
_MOST_CALIBRATED = 400_000
_MOST_REFERENCE = 20_000
_PART, _THREADS = 65_536, 2
_WANTED = "_is_wanted"

_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        state: what the detector's ``fit`` returned; for the shipped one a ``sklearn.ensemble.IsolationForest``.
        baselines: what is usual in each series (``ml.baselines.learn``) and the tail of its scores.
        detector: name of the detector's module.
        features: names of the z-scores, in order.
        trained_rows: number of windows that the detector was fitted on.
        reference: how the z-scores and scores of the training windows lay (``ml.drift``); empty in models of before.
    """

    state: Any
    baselines: pl.DataFrame
    detector: str
    features: tuple[str, ...]
    trained_rows: int
    reference: Reference = field(default_factory=dict)


def detector(name: str) -> ModuleType:
    """The module of a detector.

    Raises:
        ConfigurationError: it cannot be imported, or has no ``fit`` and ``score``.
    """
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ConfigurationError(f"ml.detector: {name!r} cannot be imported ({error})") from error
    for function in ("fit", "score"):
        if not callable(getattr(module, function, None)):
            raise ConfigurationError(f"ml.detector: {name!r} has no function {function!r}; see ml/isolation_forest.py")
    return module


def restore(stored: StoredModel) -> Model:
    """The model that stands in the store.

    Raises:
        ModelRefusedError: if it was trained on other features than this version computes.
    """
    training = stored.training
    if training.features != FEATURES:
        raise ModelRefusedError(
            f"model {stored.name}/{stored.model_id}: was trained on the features {list(training.features)}, "
            f"this version computes {list(FEATURES)}; train the model again"
        )
    name = str(training.parameters.get("detector", SHIPPED))
    bins: Mapping[str, Any] = training.parameters.get(REFERENCE, {})
    return Model(stored.forest, stored.baselines, name, training.features, training.rows, bins)


def train(
    windows: pl.DataFrame,
    *,
    trees: int,
    seed: int,
    excluded: pl.Series | None = None,
    false_alarms: pl.Series | None = None,
    name: str = SHIPPED,
) -> Model:
    """Trains a model; the same windows (in any order), arguments and library versions give the same model.

    The scores are calibrated on windows that the baselines were not learned from: a quarter of each series' time after
    the other is left out. Scores of a forest's own training windows would promise fewer false alarms than come.

    Args:
        windows: final windows with the columns of ``gold.sensor_windows_1m``.
        trees: number of trees.
        seed: of the random splits.
        excluded: whether each window is known to be abnormal; it is not learned from, but others may look back at it.
        false_alarms: whether each window was called a false alarm; no threshold will be below its score.
        name: module of the detector.

    Raises:
        ValueError: if no series has enough windows to learn from.
    """
    none = pl.repeat(False, windows.height, eager=True)
    flags = [none if flag is None else flag for flag in (excluded, false_alarms)]
    shares = learned(windows, ~flags[0]) if CATEGORY in windows.columns else windows.select(SERIES).clear()
    windows = with_rarity(windows, shares).with_columns(flags[0].alias("_excluded"), flags[1].alias("_false_alarm"))
    # Devices do not look at each other; what is worked out of all their windows at once would take many times as much.
    parts = by_devices(windows, _PART)
    learned_of = [_learned(measured(part)) for part in parts]
    usual = pl.concat([baselines for baselines, _, _ in learned_of])
    known = np.concatenate([scores for _, _, scores in learned_of])
    if not len(known):
        raise ValueError(f"{windows.height} windows of no series with at least {MIN_WINDOWS} windows each")
    module = detector(name)
    state = module.fit(known, trees=trees, seed=seed)
    every = max(1, -(-len(known) // _MOST_CALIBRATED))
    sample = known[:: max(1, -(-len(known) // _MOST_REFERENCE))]
    bins, trained_rows = reference(sample, module.score(state, sample)), len(known)
    flagged = [is_normal for _, is_normal, _ in learned_of]
    del known, learned_of
    left_out = (_left_out(module, state, measured(p), flags, every) for p, flags in zip(parts, flagged, strict=True))
    ceiling = float(np.min(module.score(state, np.eye(len(FEATURES)) * _OUTLIER)))
    calibrated = _calibrated(pl.concat(left_out), usual, ceiling)
    calibrated = _with_floors(calibrated, [p for p in parts if p["_false_alarm"].any()], module, state)
    if SHARES in shares.columns:
        calibrated = calibrated.join(shares, on=SERIES, how="left", nulls_equal=True, maintain_order="left")
    return Model(state, calibrated, name, FEATURES, trained_rows, bins)


def _learned(rows: Ordered) -> tuple[pl.DataFrame, _Flags, Floats]:
    """What is usual in the series of some devices, which of their windows are normal, and the z-scores of those."""
    is_normal = ~rows.rows["_excluded"].to_numpy() & np.isfinite(rows.measured["level"])
    baselines = learn(rows, is_normal)
    scores, usual = z_scores(rows, baselines)
    is_normal &= usual.is_known
    return baselines, is_normal, scores[is_normal]


def _left_out(module: ModuleType, state: Any, rows: Ordered, is_normal: _Flags, every: int) -> pl.DataFrame:
    """Scores of the normal windows of some devices, each quarter by baselines of the others; one of ``every``."""
    place = rows.rows.select(pl.int_range(pl.len()).over(SERIES), n=pl.len().over(SERIES))
    fold = (place.to_series(0) * _FOLDS // place["n"]).to_numpy()
    is_sampled = place.to_series(0).to_numpy() % every == 0
    parts = []
    for number in range(_FOLDS):
        left_out = is_normal & (fold == number)
        scores, known = z_scores(rows, learn(rows, is_normal & ~left_out, MIN_WINDOWS // 2))
        judged = left_out & known.is_known & is_sampled
        parts.append(
            rows.rows.filter(pl.Series(judged)).select(
                *SERIES,
                pl.col("_false_alarm").alias("is_false_alarm"),
                score=pl.Series(module.score(state, scores[judged])),
            )
        )
    return pl.concat(parts)


def _calibrated(scores: pl.DataFrame, usual: pl.DataFrame, ceiling: float) -> pl.DataFrame:
    """The baselines with the tail of each series' scores."""
    found = tails(scores, ceiling)
    joined = usual.join(found, on=SERIES, how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(pl.col(n).fill_null(pl.lit(found[n].median())) for n in ("excess_start", "excess_scale"))


def _with_floors(
    baselines: pl.DataFrame, parts: Sequence[pl.DataFrame], module: ModuleType, state: Any
) -> pl.DataFrame:
    """Raises the floor of each series to the scores that its false alarms have by the model that will judge them."""
    if not parts:
        return baselines
    floors = []
    for rows in map(measured, parts):
        scores, usual = z_scores(rows, baselines)
        labelled = rows.rows["_false_alarm"].to_numpy() & usual.is_known
        of = rows.rows.filter(pl.Series(labelled)).select(SERIES)
        floors.append(of.with_columns(_floor=pl.Series(module.score(state, scores[labelled]), dtype=pl.Float64)))
    highest = pl.concat(floors).group_by(SERIES, maintain_order=True).agg(pl.col("_floor").max())
    joined = baselines.join(highest, on=SERIES, how="left", nulls_equal=True, maintain_order="left")
    return joined.with_columns(pl.max_horizontal("excess_floor", "_floor").alias("excess_floor")).drop("_floor")


def judge(
    model: Model | None, windows: pl.DataFrame, policies: Sequence[Policy] = (), wanted: pl.DataFrame | None = None
) -> pl.DataFrame:
    """Judges windows; each row's result depends only on the windows of its device that are near before it.

    Args:
        model: what is usual; None while there is none.
        windows: columns of ``gold.sensor_windows_1m``.
        policies: what makes an anomaly; the first that matches a series holds for it.
        wanted: device and start of the windows whose rows are needed, or None for all.

    Returns:
        The wanted windows in the order of ``ml.quantities.KEY`` with the columns of ``ml.decision.VERDICT`` and
        ``feature_*``. A series that the model does not know is judged by its own last windows (``method`` robust_z).
    """
    windows = with_rarity(windows, model.baselines) if model else windows
    marked = windows.with_columns((pl.lit(True) if wanted is None else _is_wanted(windows, wanted)).alias(_WANTED))
    with ThreadPoolExecutor(_THREADS) as threads:
        # Devices do not look at each other. Parts of this size stay in the processor's caches.
        parts = by_devices(marked, _PART)
        return pl.concat(threads.map(lambda part: _judged(model, measured(part), policies), parts)).drop(_WANTED)


def _judged(model: Model | None, rows: Ordered, policies: Sequence[Policy]) -> pl.DataFrame:
    is_wanted = rows.rows[_WANTED].to_numpy()
    baselines = model.baselines if model else _nothing_known(rows)
    features, usual = z_scores(rows, baselines)
    chosen = assigned(rows.rows, policies)
    features[chosen.unwanted()] = np.nan
    score = _scorer(model)
    verdicts = decide(Verdicts(rows, features, usual, chosen, baselines, score), is_wanted)
    return verdicts if is_wanted.all() else verdicts.filter(pl.Series(is_wanted))


def _scorer(model: Model | None) -> Any:
    if model is None:
        return lambda features: np.empty(len(features))
    module, state = detector(model.detector), model.state
    return lambda features: module.score(state, features)


def _is_wanted(windows: pl.DataFrame, wanted: pl.DataFrame) -> pl.Series:
    on, marked = wanted.columns, np.zeros(windows.height, bool)
    found = windows.select(on).with_row_index("_row").join(wanted, on=on, how="semi", nulls_equal=True)
    marked[found["_row"].to_numpy()] = True
    return pl.Series(marked)


def _nothing_known(rows: Ordered) -> pl.DataFrame:
    known = learn(rows, np.zeros(rows.rows.height, bool))
    return known.with_columns(pl.lit(None, pl.Float64).alias(name) for name in TAIL)
