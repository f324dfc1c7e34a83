"""What a poll of IF-MIB tells of an interface beside its counters: its names, speed, discontinuities."""

import polars as pl

from assets.snmp_uptimes import GAP, POLL

_SATURATED = 2**32 - 1
_INTERFACE = ("device_id", "if_index")
_VISIT = (*_INTERFACE, "poll_id")
_TEXTS = ("ifName", "ifDescr")
_NUMBERS = ("ifHighSpeed", "ifSpeed", "ifCounterDiscontinuityTime")


def if_index() -> pl.Expr:
    """The ifIndex of samples of IF-MIB's tables of interfaces; null for others."""
    return pl.when(pl.col("mib_module") == "IF-MIB").then(pl.col("instance").cast(pl.Int64, strict=False))


def visits(counters: pl.DataFrame, samples: pl.DataFrame) -> pl.DataFrame:
    """One row a poll of counters of an interface: ``device_id, if_index, poll_id`` and what is known of it then.

    A fact is taken from the same poll, else as it was told last, else as it is told next.
    """
    found = (
        counters.filter(pl.col("if_index").is_not_null())
        .group_by(_VISIT)
        .agg(at=pl.col("observed_at").min())
        .sort("at")
    )
    facts = samples.filter(pl.col("mib_module") == "IF-MIB").with_columns(if_index=if_index())
    text = pl.col("metric_value")
    for name in _TEXTS:
        found = _with_fact(found, facts, name, pl.when(text != "").then(text))
    for name in _NUMBERS:
        found = _with_fact(found, facts, name, pl.col("numeric_value"))
    high, low = pl.col("ifHighSpeed"), pl.col("ifSpeed")
    return found.select(
        *_VISIT,
        if_name=pl.coalesce(_TEXTS),
        speed_bits_per_second=pl.coalesce(
            pl.when(high > 0).then(high * 1e6), pl.when((low > 0) & (low < _SATURATED)).then(low)
        ),
        discontinuity="ifCounterDiscontinuityTime",
    )


def _with_fact(found: pl.DataFrame, facts: pl.DataFrame, name: str, value: pl.Expr) -> pl.DataFrame:
    told = (
        facts.filter(pl.col("object_name") == name)
        .select(*_VISIT, value.alias(name), told_at="observed_at")
        .drop_nulls()
        .sort("told_at", *_VISIT, name)
    )
    same = told.unique(_VISIT, keep="last", maintain_order=True).select(*_VISIT, pl.col(name).alias("_same"))
    joined = found.join(same, on=_VISIT, how="left", maintain_order="left")
    names = {"_before": ("backward", GAP), "_behind": ("forward", POLL)}
    for column, (strategy, tolerance) in names.items():
        joined = joined.join_asof(
            told.select(*_INTERFACE, pl.col(name).alias(column), told_at="told_at"),
            left_on="at",
            right_on="told_at",
            by=_INTERFACE,
            strategy=strategy,  # type: ignore[arg-type]
            tolerance=tolerance,
            check_sortedness=False,
            coalesce=False,
        ).drop("told_at")
    return joined.with_columns(pl.coalesce("_same", *names).alias(name)).drop("_same", *names)
