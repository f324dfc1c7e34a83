"""What the anomaly model sees of a window: six robust z-scores against the window's own series.

A quantity's z-score is its distance from the series' median in units of the series' scale: 1.4826 times the median
absolute deviation, which estimates the standard deviation of normal data (Iglewicz and Hoaglin, "How to Detect and
Handle Outliers", 1993). So one forest serves sensors of every unit and size.
"""

import polars as pl

SERIES = ("site_id", "device_id", "sensor_id", "unit")
START = "window_start"
END = "window_end"
KEY = (*SERIES, START)
FEATURES = ("level", "spread", "slope", "change", "range", "tail")
FEATURE_COLUMNS = tuple(f"feature_{name}" for name in FEATURES)
MIN_WINDOWS = 30
"""Fewer training windows than this do not tell what is usual in a series; it stays unknown to the model."""
FURTHEST = 1e6
"""z-scores end here: the square of one of a constant quantity could overflow."""

_MAD_TO_SIGMA = 1.4826
_MEAN_DEVIATION_TO_SIGMA = 1.2533
_RESOLUTION = 1e-6


def _quantities() -> dict[str, pl.Expr]:
    """The measured quantity behind each feature, on rows in the order of ``KEY``."""
    follows = pl.all_horizontal(pl.col(name).eq_missing(pl.col(name).shift(1)) for name in SERIES)
    adjacent = follows & (pl.col(END).shift(1) == pl.col(START))
    return {
        "level": pl.col("mean"),
        "spread": pl.col("stddev"),
        "slope": pl.col("last") - pl.col("first"),
        "change": pl.when(adjacent).then(pl.col("mean") - pl.col("mean").shift(1)),
        "range": pl.col("maximum") - pl.col("minimum"),
        "tail": pl.col("p99") - pl.col("p50"),
    }


def _with_quantities(windows: pl.DataFrame) -> pl.DataFrame:
    columns = [
        pl.when(quantity.is_finite()).then(quantity).cast(pl.Float64).alias(f"feature_{name}")
        for name, quantity in _quantities().items()
    ]
    return windows.sort(KEY).with_columns(columns)


def _scale(name: str) -> pl.Expr:
    """The scale of a quantity: of the median deviation, else of the mean deviation, else its resolution.

    The median deviation is 0 where more than half of the windows are alike, which sensors with coarse steps often are.
    The resolution keeps rounding errors of a constant quantity from looking like events.
    """
    quantity = pl.col(f"feature_{name}")
    deviation = (quantity - quantity.median()).abs()
    finest = pl.max_horizontal(pl.col("feature_level").median().abs() * _RESOLUTION, pl.lit(1e-9))
    median = deviation.median() * _MAD_TO_SIGMA
    mean = deviation.mean() * _MEAN_DEVIATION_TO_SIGMA
    return pl.when(median > finest).then(median).when(mean > finest).then(mean).otherwise(finest)


def baselines(windows: pl.DataFrame) -> pl.DataFrame:
    """What is usual in each series of the training windows.

    Returns:
        One row a series that has at least ``MIN_WINDOWS`` windows, sorted: the series columns, ``windows``, and
        ``<feature>_median`` and ``<feature>_scale`` for each of ``FEATURES``, in the units of the sensor.
    """
    usual = [pl.col(f"feature_{name}").median().alias(f"{name}_median") for name in FEATURES]
    scales = [_scale(name).alias(f"{name}_scale") for name in FEATURES]
    counted = pl.col("feature_level").count().cast(pl.Int64).alias("windows")
    summary = _with_quantities(windows).group_by(SERIES, maintain_order=True).agg(counted, *usual, *scales)
    return summary.filter(pl.col("windows") >= MIN_WINDOWS)


def _z_score(rows: pl.DataFrame, name: str) -> pl.Series:
    """The z-scores of a quantity, each by one division.

    An expression multiplies by the reciprocal where the scale is one constant, as with a model of one series; the last
    bit of a score would hang on how many windows are judged at once.
    """
    distance = rows[f"feature_{name}"] - rows[f"{name}_median"]
    return (distance / rows[f"{name}_scale"]).clip(-FURTHEST, FURTHEST).alias(f"feature_{name}")


def features(windows: pl.DataFrame, baselines: pl.DataFrame) -> pl.DataFrame:
    """The windows in the order of ``KEY``, each with its z-scores and whether the model can judge it.

    Args:
        windows: columns of ``gold.sensor_windows_1m``. ``change`` compares with the window that ends where this one
            starts, so that window has to be among them.
        baselines: what ``baselines`` returned for the training windows.

    Returns:
        The same rows with ``feature_*`` (null where a quantity is missing: no window directly before, or one reading
        only) and ``reason``: null, ``unknown_series`` (no baseline), or ``missing_values`` (no finite mean).
    """
    rows = _with_quantities(windows).join(
        baselines, on=SERIES, how="left", nulls_equal=True, maintain_order="left", suffix="_baseline"
    )
    reason = (
        pl.when(pl.col("level_scale").is_null())
        .then(pl.lit("unknown_series"))
        .when(pl.col("feature_level").is_null())
        .then(pl.lit("missing_values"))
        .alias("reason")
    )
    return rows.with_columns(reason, *(_z_score(rows, name) for name in FEATURES)).select(
        *windows.columns, *FEATURE_COLUMNS, "reason"
    )
