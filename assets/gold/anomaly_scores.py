"""gold.anomaly_scores.

The declaration is made when it is first asked for: the windows that it judges are a calculation, which DuckDB reads.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cache

import polars as pl

from assets.calculation import built_in
from assets.table import MINUTE, Column, Table, Window, column, declare
from ml.anomaly_model import judge, restore
from ml.decision import EXPECTED
from ml.identity import score_ids
from ml.policy import HISTORY, Policy, holding
from ml.quantities import END, FEATURES, GROUP, KEY, REACH, SERIES, SPAN, START
from resources.model_store import StoredModel
from resources.stored_table import Partition

_WINDOWS = "gold.sensor_windows_1m"
_QUANTITIES = {
    "level": ("the mean, less what hour and day tell", ("mean",)),
    "spread": ("the standard deviation; null with one reading", ("stddev",)),
    "slope": ("last minus first reading", ("first", "last")),
    "change": ("the mean minus that of the window directly before; null without one", ("mean",)),
    "range": ("maximum minus minimum", ("minimum", "maximum")),
    "tail": ("99th percentile minus median", ("p50", "p99")),
    "readings": ("the logarithm of the number of readings", ("readings",)),
    "silence": ("the number of windows without a reading right before", (START,)),
    "stuck": (
        "the number of windows in a row without another value than the one before",
        ("minimum", "maximum", "last"),
    ),
    "sustained": (f"the average level of the last {SPAN} windows", ("mean",)),
    "trend": (f"the average level of the last {SPAN // 2} windows minus that of as many before", ("mean",)),
    "residual": (f"the average level of the last {SPAN // 2} windows less what the device's others tell", ("mean",)),
}


def _inherited(windows: Table, name: str) -> Column:
    """A column of the window, as its table declares it."""
    found = next(c for c in windows.columns if c.name == name)
    return replace(found, required=True, lineage=(f"{_WINDOWS}.{name}",))


def _feature(name: str) -> Column:
    quantity, sources = _QUANTITIES[name]
    lineage = tuple(f"{_WINDOWS}.{source}" for source in sources)
    return column(f"feature_{name}", pl.Float64, f"Robust z-score in the series of {quantity}", lineage=lineage)


_MEAN = f"{_WINDOWS}.mean"
VERDICT_COLUMNS = (
    column(
        "score_id",
        pl.String,
        "Names this judgement: window start, series, and what was judged how; `secchi explain` takes it; "
        "null in rows of before there was one",
    ),
    column(
        "score",
        pl.Float64,
        "How unusual the window is, by the model (the forest: 0 to 1) or by robust_z (0 to 1); null where neither can "
        "judge",
        lineage=tuple(f"{_WINDOWS}.{name}" for name in ("mean", "stddev", "first", "last", "minimum", "maximum")),
    ),
    column("threshold", pl.Float64, "Score above which the series is unusual"),
    column("return_period_windows", pl.Float64, "In how many normal windows of the series such a score comes once"),
    column("is_anomaly", pl.Boolean, "Whether the score is above the threshold, as its policy asks", required=True),
    column("is_alarm", pl.Boolean, "Whether it is the first anomaly of the series after a cool-down", required=True),
    column("direction", pl.String, "above or below what is expected", lineage=_MEAN),
    column("expected_low", pl.Float64, f"Expected mean less {EXPECTED:g} usual deviations, in the sensor's unit"),
    column("expected_high", pl.Float64, f"Expected mean plus {EXPECTED:g} usual deviations, in the sensor's unit"),
    column("top_feature", pl.String, "Feature that adds most to the score; null where there is no anomaly"),
    column("contributions", pl.String, "JSON: what each feature adds to the score; null where there is no anomaly"),
    column("method", pl.String, "model, or robust_z where no model knows the series; null without a score"),
    column("reason", pl.String, "Why there is no score: missing_values, too_little_history; null where there is one"),
    *(_feature(name) for name in FEATURES),
    column("model_id", pl.String, "Model that judged; null where none did"),
    column("model_sha256", pl.String, "Hash of the model's files"),
    column("training_snapshot", pl.Int64, "Snapshot of the windows that the model learned from"),
    column("training_tag", pl.String, "Tag that keeps that snapshot from expiring"),
    column(
        "window_revision",
        pl.Int32,
        "Revision of the window that was judged",
        required=True,
        minimum=0,
        lineage=f"{_WINDOWS}.revision",
    ),
)


def _judge(
    windows: pl.DataFrame,
    *,
    model: StoredModel | None,
    policies: Sequence[Policy] = (),
    wanted: pl.DataFrame | None = None,
) -> pl.DataFrame:
    """One row a final window of a sensor: how unusual it is for its series and beside the device's other sensors.

    Source: the final rows of `gold.sensor_windows_1m`; a corrected window is judged again, and so are those of its
    device that look back at it, with the model of that time. Every final window has a row: an isolation forest judges
    series that it has learned, others are compared with their own last windows (`method`), and where there are too few
    of them `reason` says so. Features are distances from what is usual in the series, in units of its usual deviation.
    """
    rules = holding(policies, None)
    told = with_model(judge(restore(model) if model else None, windows, rules, wanted), model)
    named = told.with_columns(score_ids(told, model.sha256 if model else ""))
    return named.select(*KEY, END, *(c.name for c in VERDICT_COLUMNS))


def with_model(judged: pl.DataFrame, model: StoredModel | None) -> pl.DataFrame:
    """Adds which model judged a row, and which revision of its window."""
    by_model = pl.col("method") == "model"
    return judged.with_columns(
        model_id=pl.when(by_model).then(pl.lit(model.model_id if model else None, pl.String)),
        model_sha256=pl.when(by_model).then(pl.lit(model.sha256 if model else None, pl.String)),
        training_snapshot=pl.when(by_model).then(pl.lit(model.training.snapshot if model else None, pl.Int64)),
        training_tag=pl.when(by_model).then(pl.lit(model.training.tag if model else None, pl.String)),
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
        columns=(*(_inherited(windows, name) for name in (*SERIES, START, END)), *VERDICT_COLUMNS),
        inputs=(windows,),
        model="sensor_windows",
        key=KEY,
        series=GROUP,  # what one sensor does is judged beside the others of its device
        time=START,
        window=Window(size=MINUTE, reach_ahead=(REACH + HISTORY) * MINUTE, has_finality=False),
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
