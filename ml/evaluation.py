"""How good a model is: what it calls anomalies in normal windows, and what it finds of faults."""

from dataclasses import dataclass
from datetime import timedelta

import polars as pl

from ml.anomaly_model import Model, judge
from ml.policy import Policy
from ml.quantities import END, GROUP, KEY, SERIES, START

STEP = 8.0
"""Injected faults move the readings by this many standard deviations of the recent means."""

AFTER = 2
"""An alarm counts for a fault that ended at most this many windows before: a silence shows when it is over."""

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


def met(windows: pl.DataFrame, spans: pl.DataFrame, after: timedelta = timedelta(0)) -> pl.DataFrame:
    """Which spans each window meets, or begins within ``after`` of their end: ``row, span`` (positions in both).

    Args:
        windows: columns of the key and ``window_end``.
        spans: ``site_id, device_id, sensor_id`` (null for all of the device), ``from_at, to_at``.
        after: how much later a window may begin.
    """
    numbered = windows.select(*GROUP, "sensor_id", START, END).with_row_index("row")
    told = spans.select(*GROUP, "sensor_id", "from_at", "to_at").with_row_index("span")
    joined = numbered.join(told, on=list(GROUP), suffix="_told")
    is_met = (pl.col(START) < pl.col("to_at") + after) & (pl.col(END) > pl.col("from_at"))
    is_sensor = pl.col("sensor_id_told").is_null() | (pl.col("sensor_id_told") == pl.col("sensor_id"))
    return joined.filter(is_met & is_sensor).select("row", "span")


def faults_found(judged: pl.DataFrame, faults: pl.DataFrame) -> tuple[pl.Series, pl.Series]:
    """Which windows meet a fault, and which faults have an anomaly.

    Args:
        judged: columns of the key, ``window_end`` and ``is_anomaly``.
        faults: spans as ``met`` takes them.

    Returns:
        A flag for each row of ``judged`` and one for each of ``faults``.
    """
    size = judged[END][0] - judged[START][0] if judged.height else timedelta(0)
    pairs = met(judged, faults, AFTER * size)
    is_met = pl.int_range(judged.height, dtype=pl.UInt32, eager=True).is_in(pairs["row"].unique().implode())
    anomalies = pairs.filter(judged["is_anomaly"].gather(pairs["row"]))
    is_found = pl.int_range(faults.height, dtype=pl.UInt32, eager=True).is_in(anomalies["span"].unique().implode())
    return is_met, is_found
