"""How rare a category is: what a value of words or codes has in place of a level.

The rarity of a value is the logarithm (base 2) of one over its share in the training windows of its series, the value
itself counted once more: one that was never seen is rarer than any that was. No value counts as a value of its own.
"""

import polars as pl

from ml.groups import CATEGORY
from ml.quantities import SERIES

SHARES = "shares"
"""Column of the baselines: the shares of a series' values; null where it has numbers."""


def learned(windows: pl.DataFrame, is_normal: pl.Series) -> pl.DataFrame:
    """The values of each series of categories and how often each came: the series columns, ``shares``."""
    seen = windows.filter(is_normal & windows[CATEGORY].is_not_null())
    counts = seen.group_by(*SERIES, CATEGORY).agg(pl.len().alias("count")).sort(*SERIES, CATEGORY)
    return counts.group_by(SERIES, maintain_order=True).agg(pl.struct(CATEGORY, "count").alias(SHARES))


def with_rarity(windows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """The windows with the rarity of their category in place of ``mean``, where the series is known."""
    if CATEGORY not in windows.columns or SHARES not in known.columns:
        return windows
    series = known.filter(pl.col(SHARES).is_not_null()).select(*SERIES, SHARES)
    total = series.select(*SERIES, _all=pl.col(SHARES).list.eval(pl.element().struct.field("count")).list.sum())
    counts = series.explode(SHARES).unnest(SHARES)
    joined = windows.join(total, on=SERIES, how="left", nulls_equal=True, maintain_order="left")
    joined = joined.join(counts, on=[*SERIES, CATEGORY], how="left", nulls_equal=True, maintain_order="left")
    rarity = ((pl.col("_all") + 1) / (pl.col("count").fill_null(0) + 1)).log(2)
    is_judged = pl.col(CATEGORY).is_not_null() & pl.col("_all").is_not_null()
    return joined.with_columns(mean=pl.when(is_judged).then(rarity).otherwise("mean")).drop("_all", "count")
