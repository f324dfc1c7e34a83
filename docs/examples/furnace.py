"""An example of docs/calculations.md."""

import polars as pl


def soak(rows: pl.DataFrame) -> pl.DataFrame:
    """Longest run of hot readings, and the hottest one."""
    runs = (pl.col("measurement") > 180).rle()
    hot = runs.struct.field("len").filter(runs.struct.field("value"))
    return rows.group_by("site_id", "device_id", "sensor_id", "window_start").agg(
        longest=hot.max().fill_null(0).cast(pl.Float64), hottest=pl.col("measurement").max()
    )
