"""How good a model is: what it calls anomalies in normal windows, and what it finds of faults."""

from dataclasses import dataclass

import polars as pl

from ml.anomaly_model import Model, judge
from ml.policy import Policy
from ml.quantities import KEY, SERIES, START

STEP = 8.0
"""Injected faults move the readings by this many standard deviations of the recent means."""

_STEP_WINDOWS = 5
_NOISE = 0.02
_TIMES_RATE = 3.0
_READ = ("mean", "minimum", "maximum", "p50", "p99", "first", "last")


@dataclass(frozen=True)
class Trial:
    """A model on recent windows: share of them called anomalies, and share of injected faults that is found."""

    false_alarms: float
    found: float


def tried(model: Model, recent: pl.DataFrame, policies: list[Policy]) -> Trial:
    """Judges recent windows as they are, and again with a step in the last windows of each series."""
    usual = judge(model, recent, policies)["is_anomaly"].mean()
    last = pl.col(START).rank("ordinal", descending=True).over(SERIES) <= _STEP_WINDOWS
    moved = pl.max_horizontal(pl.col("mean").std().over(SERIES), pl.col("mean").abs() * 1e-6, 1e-9) * STEP
    faulty = recent.with_columns(_is_faulty=last).with_columns(
        pl.when("_is_faulty").then(pl.col(name) + moved).otherwise(name).alias(name) for name in _READ
    )
    steps = faulty.filter("_is_faulty").select(KEY)
    judged = judge(model, faulty, policies).join(steps, on=list(KEY), how="semi", nulls_equal=True)
    found = judged.group_by(SERIES).agg(pl.col("is_anomaly").any())["is_anomaly"].mean()
    return Trial(_share(usual), _share(found))


def _share(mean: object) -> float:
    return float(str(mean)) if mean is not None else 0.0


def is_not_worse(challenger: Trial, champion: Trial, false_alarm_rate: float) -> bool:
    """Whether a challenger may take the champion's place.

    It finds as many of the faults (a few may differ by chance), and calls as few windows anomalies, or about as few as
    it was asked to.
    """
    finds = challenger.found >= champion.found - _NOISE
    is_quiet = challenger.false_alarms <= max(champion.false_alarms, _TIMES_RATE * false_alarm_rate)
    return finds and is_quiet
