"""From scores to anomalies and alarms, and why: thresholds, direction, deviation, persistence, cool-down."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from ml.baselines import Usual
from ml.calibration import TAIL, return_period, threshold
from ml.explanation import contributions
from ml.features import FEATURE_COLUMNS
from ml.policy import HISTORY, Policies
from ml.quantities import FEATURES, Floats, Integers, Ordered
from ml.robust_z import LIMIT, robust_z

EXPECTED = 3.0
"""The expected range reaches this many scales to either side."""

VERDICT = (
    "score",
    "threshold",
    "return_period_windows",
    "is_anomaly",
    "is_alarm",
    "direction",
    "expected_low",
    "expected_high",
    "top_feature",
    "contributions",
    "method",
    "reason",
)

_Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Verdicts:
    """All that the decision is made of: windows, z-scores, what is usual, what is asked, and the detector's score."""

    windows: Ordered
    features: Floats
    usual: Usual
    policies: Policies
    baselines: pl.DataFrame
    score: Callable[[Floats], Floats]


def decide(given: Verdicts, is_wanted: _Flags) -> pl.DataFrame:
    """All windows with ``VERDICT``; of the ones that are not wanted, only what others need is computed."""
    windows = given.windows
    has_level = np.isfinite(windows.measured["level"])
    by_model = given.usual.is_known & has_level
    by_itself = ~given.usual.is_known & has_level
    cold = robust_z(windows, by_itself)
    limits = np.where(by_itself, np.where(np.isfinite(cold.z), 0.5, np.nan), _limits(given))
    scores = np.where(by_itself, np.abs(cold.z) / (np.abs(cold.z) + LIMIT), np.nan)
    deviation = np.where(by_itself, cold.deviation, _deviation(given))
    is_open = given.policies.is_wanted_side(deviation) & (np.abs(deviation) >= given.policies.of("minimum_deviation"))

    def exceeded(at: _Flags) -> _Flags:
        missing = at & by_model & np.isnan(scores)
        scores[missing] = given.score(given.features[missing])
        return np.asarray((scores > limits) & is_open & at)

    found = np.flatnonzero(exceeded(is_wanted))
    reaching = _before(windows, found)
    above = exceeded(is_wanted | reaching)
    is_anomaly = _persistent(given, np.flatnonzero(above), above)
    is_alarm = _fresh(given, np.flatnonzero(is_anomaly), is_anomaly)
    frame = _frame(given, scores, limits, deviation, cold)
    is_told, misses, is_cold = (pl.Series(flags) for flags in (np.isfinite(scores), ~has_level, by_itself))
    told = contributions(given.features, scores, is_anomaly & is_wanted & by_model, given.score)
    return frame.with_columns(
        pl.Series("is_anomaly", is_anomaly),
        pl.Series("is_alarm", is_alarm),
        told["top_feature"],
        told["contributions"],
        pl.when(is_told & is_cold).then(pl.lit("robust_z")).when(is_told).then(pl.lit("model")).alias("method"),
        pl.when(misses)
        .then(pl.lit("missing_values"))
        .when(~is_told)
        .then(pl.lit("too_little_history"))
        .alias("reason"),
    )


def _limits(given: Verdicts) -> Floats:
    tails = _tails(given.baselines)
    limits = np.stack([threshold(rule.false_alarm_rate, *tails) for rule in given.policies.rules])
    return np.asarray(limits[given.policies.number, given.usual.number])


def _tails(baselines: pl.DataFrame) -> list[Floats]:
    """The columns of ``TAIL``, and behind the last series one that is not known."""
    return [np.append(baselines[name].cast(pl.Float64).fill_null(np.nan).to_numpy(), np.nan) for name in TAIL]


def _deviation(given: Verdicts) -> Floats:
    """How far the level is from what is expected, now or over the last windows, whichever is more unusual."""
    usual = given.usual.columns
    now = given.features[:, FEATURES.index("level")]
    lasting = given.features[:, FEATURES.index("sustained")]
    is_lasting = np.nan_to_num(np.abs(lasting)) > np.nan_to_num(np.abs(now))
    over_time = (lasting * usual["sustained_scale"] + usual["sustained_median"]) * usual["level_scale"]
    expected = usual["level_median"] + given.usual.offset
    return np.where(is_lasting, over_time, given.windows.measured["level"] - expected)


def _earlier(windows: Ordered, rows: Integers, by: int) -> tuple[Integers, _Flags]:
    """The rows ``by`` before, and whether they are of the same series and near enough to decide with."""
    before = np.maximum(rows - by, 0)
    is_near = (rows >= by) & (windows.series[before] == windows.series[rows])
    return before, np.asarray(is_near & (windows.start[rows] - windows.start[before] <= HISTORY * windows.size))


def _before(windows: Ordered, rows: Integers) -> _Flags:
    """The windows that decide whether these are the first of their kind."""
    marked = np.zeros(len(windows.series), bool)
    for by in range(1, HISTORY + 1):
        before, is_near = _earlier(windows, rows, by)
        marked[before[is_near]] = True
    return marked


def _persistent(given: Verdicts, rows: Integers, above: _Flags) -> _Flags:
    wanted = given.policies.of("persistence")[rows]
    lasts = np.ones(len(rows), bool)
    for by in range(1, int(wanted.max(initial=1))):
        before, is_near = _earlier(given.windows, rows, by)
        lasts &= (wanted <= by) | (is_near & above[before])
    marked = np.zeros(len(above), bool)
    marked[rows[lasts]] = True
    return marked


def _fresh(given: Verdicts, rows: Integers, is_anomaly: _Flags) -> _Flags:
    windows, wanted = given.windows, given.policies.of("cooldown")[rows]
    is_first = np.ones(len(rows), bool)
    for by in range(1, int(wanted.max(initial=0)) + 1):
        before, is_near = _earlier(windows, rows, by)
        is_within = windows.start[rows] - windows.start[before] <= wanted * windows.size
        is_first &= ~(is_near & is_within & is_anomaly[before])
    marked = np.zeros(len(is_anomaly), bool)
    marked[rows[is_first]] = True
    return marked


def _frame(given: Verdicts, scores: Floats, limits: Floats, deviation: Floats, cold: Any) -> pl.DataFrame:
    usual, number = given.usual.columns, given.usual.number
    middle = np.where(given.usual.is_known, usual["level_median"] + given.usual.offset, cold.middle)
    width = EXPECTED * np.where(given.usual.is_known, usual["level_scale"], cold.scale)
    numbers = {
        "score": scores,
        "threshold": limits,
        "return_period_windows": return_period(scores, *(tail[number] for tail in _tails(given.baselines))),
        "expected_low": middle - width,
        "expected_high": middle + width,
        **dict(zip(FEATURE_COLUMNS, given.features.T, strict=True)),
    }
    added = pl.DataFrame({name: np.ascontiguousarray(values) for name, values in numbers.items()}, nan_to_null=True)
    side = pl.when(pl.Series(deviation) > 0).then(pl.lit("above")).when(pl.Series(deviation) < 0).then(pl.lit("below"))
    return given.windows.rows.hstack(added).with_columns(side.alias("direction"))
