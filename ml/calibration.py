"""When a score is an anomaly: a threshold for each series from the scores of its own training windows."""

import polars as pl

from ml.features import SERIES


def thresholds(scores: pl.DataFrame, false_alarm_rate: float) -> pl.DataFrame:
    """The score that a series exceeds in at most ``false_alarm_rate`` of its training windows.

    The same quantile over all series is the floor: a series that was very quiet in training does not alarm on scores
    that are common elsewhere.

    Args:
        scores: the series columns and ``score`` of every training window; null scores do not count.
        false_alarm_rate: share of normal windows that may be called anomalies, between 0 and 1.

    Returns:
        One row a series: the series columns and ``threshold``.
    """
    limit = pl.col("score").quantile(1 - false_alarm_rate, interpolation="higher")
    known = scores.filter(pl.col("score").is_not_null())
    pooled = pl.lit(known.select(limit).item(), dtype=pl.Float64)
    return known.group_by(SERIES, maintain_order=True).agg(pl.max_horizontal(limit, pooled).alias("threshold"))
