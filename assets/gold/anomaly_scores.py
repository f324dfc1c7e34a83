"""gold.anomaly_scores.

The declaration is made when it is first asked for: the windows that it judges are a calculation, which DuckDB reads.
"""

from dataclasses import replace
from datetime import timedelta
from functools import cache

import polars as pl

from assets.calculation import built_in
from assets.table import MINUTE, Column, Table, Window, column, declare
from ml.features import END, FEATURES, KEY, SERIES, START
from ml.isolation_forest import restore, score
from resources.model_store import StoredModel
from resources.stored_table import Partition

_WINDOWS = "gold.sensor_windows_1m"
_QUANTITIES = {
    "level": ("the mean", ("mean",)),
    "spread": ("the standard deviation; null with one reading", ("stddev",)),
    "slope": ("last minus first reading", ("first", "last")),
    "change": ("the mean minus that of the window directly before; null without one", ("mean",)),
    "range": ("maximum minus minimum", ("minimum", "maximum")),
    "tail": ("99th percentile minus median", ("p50", "p99")),
}


def _inherited(windows: Table, name: str) -> Column:
    """A column of the window, as its table declares it."""
    found = next(c for c in windows.columns if c.name == name)
    return replace(found, required=True, lineage=(f"{_WINDOWS}.{name}",))


def _feature(name: str) -> Column:
    quantity, sources = _QUANTITIES[name]
    lineage = tuple(f"{_WINDOWS}.{source}" for source in sources)
    return column(f"feature_{name}", pl.Float64, f"Robust z-score in the series of {quantity}", lineage=lineage)


_COLUMNS = (
    column(
        "score",
        pl.Float64,
        "Isolation forest score: around 0.5 and below is usual, near 1 is not; null where the model cannot judge",
        minimum=0,
        maximum=1,
        lineage=tuple(f"{_WINDOWS}.{name}" for name in ("mean", "stddev", "first", "last", "minimum", "maximum")),
    ),
    column("threshold", pl.Float64, "Score above which the series is called anomalous; null for an unknown series"),
    column("is_anomaly", pl.Boolean, "Whether the score is above the threshold", required=True),
    column("reason", pl.String, "Why there is no score: unknown_series or missing_values; null where there is one"),
    *(_feature(name) for name in FEATURES),
    column("model_id", pl.String, "Model that gave the score", required=True),
    column("training_snapshot", pl.Int64, "Snapshot of the windows that the model learned from", required=True),
    column("training_tag", pl.String, "Tag that keeps that snapshot from expiring", required=True),
    column(
        "window_revision",
        pl.Int32,
        "Revision of the window that was judged",
        required=True,
        minimum=0,
        lineage=f"{_WINDOWS}.revision",
    ),
)


def _judge(windows: pl.DataFrame, *, model: StoredModel) -> pl.DataFrame:
    """One row a final window of a sensor: how unusual it is for its series, by an isolation forest.

    Source: the final rows of `gold.sensor_windows_1m`; a corrected window is judged again, with the model of that time.
    Every final window has a row: where the model has not learned the series, `reason` says so and there is no score.
    The features are distances from the series' median in the training windows, in units of its usual deviation.
    """
    judged = score(restore(model), windows)
    return judged.select(
        *KEY,
        END,
        "score",
        "threshold",
        "is_anomaly",
        "reason",
        *(f"feature_{name}" for name in FEATURES),
        model_id=pl.lit(model.model_id),
        training_snapshot=pl.lit(model.training.snapshot, pl.Int64),
        training_tag=pl.lit(model.training.tag),
        window_revision=pl.col("revision"),
    )


@cache
def _declaration() -> Table:
    windows = built_in("sensor_windows_1m")
    return declare(
        layer="gold",
        name="anomaly_scores",
        description=str(_judge.__doc__),
        function=_judge,
        columns=(*(_inherited(windows, name) for name in (*SERIES, START, END)), *_COLUMNS),
        inputs=(windows,),
        model="sensor_windows",
        key=KEY,
        series=SERIES,
        time=START,
        window=Window(size=MINUTE, reach_ahead=MINUTE, has_finality=False),
        final_only=True,
        partitions=(Partition(START, "hour"),),
        kinds=("iceberg", "gold", "scikitlearn"),
        freshness=timedelta(minutes=10),
    )


def __getattr__(name: str) -> Table:
    """The table ``anomaly_scores`` (PEP 562)."""
    if name == "anomaly_scores":
        return _declaration()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
