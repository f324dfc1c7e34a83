"""What holds of every table of scores: a verdict or a reason, anomalies above their threshold, and not too many."""

from typing import Any

import polars as pl

from data_quality.declared import expectation_types

MOST_ANOMALIES = 0.05
"""Share of anomalies above which nobody looks at them any more: a hundred times what is asked for by default."""

_HOLDS = {
    "has_verdict": "A window has either a score or a reason why it has none",
    "is_above": "An anomaly has a score above its threshold",
    "is_explained": "An anomaly that a model found says what adds to it",
    "is_new": "An alarm is an anomaly",
}


def derived(frame: pl.DataFrame) -> pl.DataFrame:
    """Adds whether each of ``_HOLDS`` holds, null where it says nothing of the row, and ``anomaly`` as 0 or 1."""
    is_anomaly, by_model = pl.col("is_anomaly"), pl.col("method") == "model"
    return frame.with_columns(
        has_verdict=pl.col("score").is_null() != pl.col("reason").is_null(),
        is_above=pl.when(is_anomaly).then((pl.col("score") > pl.col("threshold")).fill_null(False)),
        is_explained=pl.when(is_anomaly & by_model).then(pl.col("contributions").is_not_null()),
        is_new=pl.when(pl.col("is_alarm")).then(is_anomaly),
        anomaly=is_anomaly.cast(pl.Float64),
    )


def expectations() -> list[Any]:
    """Expectations beyond the contract; that there are many anomalies may be right, so it is a warning."""
    gxe = expectation_types()
    return [
        *(gxe.ExpectColumnValuesToBeInSet(column=n, value_set=[True], description=text) for n, text in _HOLDS.items()),
        gxe.ExpectColumnMeanToBeBetween(
            column="anomaly",
            max_value=MOST_ANOMALIES,
            severity="warning",
            description=f"At most {MOST_ANOMALIES:.0%} of the windows are anomalies",
        ),
    ]
