"""Scores of a sensor: one anomaly among many that are none, and one without a score."""

from datetime import timedelta
from typing import Any

import polars as pl

from assets.gold.anomaly_scores import anomaly_scores
from tests.data_quality.cases.changes import NOON, Case, every, put, twice

TABLE = anomaly_scores


def rows() -> pl.DataFrame:
    place: dict[str, Any] = {"site_id": 1, "device_id": 2, "sensor_id": 3, "unit": "BAR", "window_revision": 0}
    plain = {"score": 0.4, "threshold": 0.5, "method": "model", "is_anomaly": False, "is_alarm": False}
    anomaly = {**plain, "score": 0.7, "is_anomaly": True, "is_alarm": True, "contributions": "{}"}
    missing = {"reason": "missing_values", "is_anomaly": False, "is_alarm": False}
    told = [anomaly, missing, *([plain] * 38)]
    times = ({"window_start": NOON + timedelta(minutes=n)} for n in range(len(told)))
    found = [{**place, **row, **at, "batch_id": 1, "is_retracted": False} for row, at in zip(told, times, strict=True)]
    frame = pl.DataFrame(found, schema=TABLE.schema)
    return frame.with_columns(window_end=pl.col("window_start") + timedelta(minutes=1))


BAD: list[Case] = [
    (twice, "No two rows have the same site_id"),
    (put(score=None), "A window has either a score or a reason why it has none"),
    (put(reason="missing_values"), "A window has either a score or a reason why it has none"),
    (put(score=0.5), "An anomaly has a score above its threshold"),
    (put(score=None, reason="missing_values"), "An anomaly has a score above its threshold"),
    (put(contributions=None), "An anomaly that a model found says what adds to it"),
    (put(is_anomaly=False), "An alarm is an anomaly"),
    (every(is_anomaly=True), "At most 5% of the windows are anomalies"),
]
