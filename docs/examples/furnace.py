"""An example of docs/calculations.md."""

import polars as pl


def soak(rows: pl.DataFrame) -> pl.DataFrame:
    """Longest run of hot readings, and the hottest one."""
    hot = pl.col("measurement") > 180
    return rows.group_by("site_id", "device_id", "sensor_id", "window_start").agg(
        longest=hot.rle().struct.field("len").max().cast(pl.Float64), hottest=pl.col("measurement").max()
    )
