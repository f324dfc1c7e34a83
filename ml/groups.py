"""Groups of measurements other than a device's sensors: columns of a table that are judged beside one another."""

from dataclasses import dataclass

import polars as pl

from ml.quantities import END, START

PREFIX = "by_"
"""Before the names of the columns that tell a group's things apart, while their windows are judged."""

QUANTITY, CATEGORY = "quantity", "category"

RARITY = "\x1frarity"
"""The unit of categories, which no sensor has."""

COMMON = 1.0
"""A difference of rarity below this (a value half as frequent) is noise, however steady a series is."""

_STATISTICS = ("minimum", "maximum", "stddev", "p50", "p95", "p99", "first", "last", "readings")
_NULL, _NUMBER = "\x00", "value"

BETWEEN = "\x1f"
"""Between the values of the columns that tell a group's things apart, in what is a sensor's ``device_id``."""


@dataclass(frozen=True)
class Group:
    """Which columns of which table are judged together.

    Attributes:
        name: of the model; the scores stand in ``gold.<name>_scores``.
        source: the table, ``layer.name``; it has windows that become final.
        by: its columns that tell one thing (an interface, say) from another.
        values: its columns of numbers.
        categories: its columns of words or codes; how rare a value is in its thing's history is what is judged.
    """

    name: str
    source: str
    by: tuple[str, ...]
    values: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()


def as_windows(rows: pl.DataFrame, group: Group) -> pl.DataFrame:
    """The windows that the anomaly model judges: one row a row of the group's table and column of it.

    They have the columns of ``gold.sensor_windows_1m``: a thing is a device and a column one of its sensors. What is
    null stays a row, so that it gets a verdict and a reason. Of a category, ``category`` is its value; the model puts
    its rarity in place of ``mean``.
    """
    revision = pl.col("revision") if "revision" in rows.columns else pl.lit(0)
    kept = rows.select(
        *(pl.col(c).alias(PREFIX + c) for c in group.by),
        START,
        END,
        *group.values,
        *group.categories,
        site_id=pl.lit(group.name),
        device_id=_thing(group),
        revision=revision.cast(pl.Int32),
    )
    parts = [_column(kept, group, name, is_category=False) for name in group.values]
    parts += [_column(kept, group, name, is_category=True) for name in group.categories]
    return pl.concat(parts)


def as_judged(scores: pl.DataFrame, group: Group) -> pl.DataFrame:
    """Rows of the group's scores with the columns of the series by which its model knows them."""
    is_category = pl.col(QUANTITY).is_in(group.categories)
    return scores.with_columns(
        *(pl.col(c).alias(PREFIX + c) for c in group.by),
        site_id=pl.lit(group.name),
        device_id=_thing(group),
        sensor_id=pl.col(QUANTITY),
        unit=pl.when(is_category).then(pl.lit(RARITY)).otherwise(pl.lit(_NUMBER)),
    )


def _thing(group: Group) -> pl.Expr:
    return pl.concat_str([pl.col(c).cast(pl.String).fill_null(_NULL) for c in group.by], separator=BETWEEN)


def _column(kept: pl.DataFrame, group: Group, name: str, *, is_category: bool) -> pl.DataFrame:
    return kept.select(
        "site_id",
        "device_id",
        *(PREFIX + c for c in group.by),
        START,
        END,
        "revision",
        pl.lit(name).alias("sensor_id"),
        pl.lit(name).alias(QUANTITY),
        pl.lit(RARITY if is_category else _NUMBER).alias("unit"),
        (pl.lit(None, pl.Float64) if is_category else pl.col(name).cast(pl.Float64)).alias("mean"),
        (pl.col(name).cast(pl.String).fill_null("") if is_category else pl.lit(None, pl.String)).alias(CATEGORY),
        *(pl.lit(None, pl.Float64).alias(statistic) for statistic in _STATISTICS),
    )
