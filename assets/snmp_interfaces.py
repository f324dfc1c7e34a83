"""What a poll of IF-MIB tells of an interface beside its counters: its identity, speed, discontinuities."""

import polars as pl

from assets.snmp_uptimes import GAP, POLL, with_uptimes

_SATURATED = 2**32 - 1
_INTERFACE = ("device_id", "if_index")
_VISIT = (*_INTERFACE, "poll_id")
_NAMES = ("ifName", "ifDescr", "ifAlias", "ifPhysAddress")
_NUMBERS = ("ifHighSpeed", "ifSpeed", "ifCounterDiscontinuityTime")


def if_index() -> pl.Expr:
    """The ifIndex of samples of IF-MIB's tables of interfaces; null for others."""
    return pl.when(pl.col("mib_module") == "IF-MIB").then(pl.col("instance").cast(pl.Int64, strict=False))


def visits(counters: pl.DataFrame, samples: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """One row a poll of counters of an interface: ``device_id, if_index, poll_id`` and what is known of it then.

    A fact is taken from the same poll, else as it was told last since the agent started, else as it is told next. The
    ``interface_id`` stays when an agent numbers its interfaces anew: it is the first of ifName, ifDescr, ifAlias and
    ifPhysAddress that the interface has alone among those of the poll, else the ifIndex.

    Args:
        counters: samples of counters.
        samples: samples of the same devices.
        told: their uptimes.
    """
    found = counters.filter(pl.col("if_index").is_not_null()).group_by(_VISIT).agg(pl.col("observed_at").min())
    found = with_uptimes(found, told).select(*_VISIT, at="observed_at", started_at=_started())
    facts = samples.filter(pl.col("mib_module") == "IF-MIB").with_columns(if_index=if_index())
    text = pl.col("metric_value")
    for name in _NAMES:
        found = _with_fact(found, facts, name, pl.when(text.str.strip_chars() != "").then(text))
    for name in _NUMBERS:
        found = _with_fact(found, facts, name, pl.col("numeric_value"))
    high, low = pl.col("ifHighSpeed"), pl.col("ifSpeed")
    return found.select(
        *_VISIT,
        interface_id=pl.coalesce(*map(_alone, _NAMES), pl.format("ifIndex:{}", "if_index")),
        if_name=pl.coalesce("ifName", "ifDescr"),
        speed_bits_per_second=pl.coalesce(
            pl.when(high > 0).then(high * 1e6), pl.when((low > 0) & (low < _SATURATED)).then(low)
        ),
        discontinuity="ifCounterDiscontinuityTime",
    )


def _started() -> pl.Expr:
    """When the agent started; its roll-over counts too: what was told before is then told again soon."""
    behind = pl.col("zero_at_behind")
    return pl.max_horizontal("zero_at", pl.when(behind <= pl.col("observed_at")).then(behind))


def _alone(name: str) -> pl.Expr:
    is_alone = pl.col(name).is_not_null() & (pl.len().over("device_id", "poll_id", name) == 1)
    return pl.when(is_alone).then(pl.format(f"{name}:{{}}", name))


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
            told.select(*_INTERFACE, "told_at", pl.col(name).alias(column)),
            left_on="at",
            right_on="told_at",
            by=_INTERFACE,
            strategy=strategy,  # type: ignore[arg-type]
            tolerance=tolerance,
            check_sortedness=False,
            coalesce=False,
        )
        is_of_another_run = (pl.col("told_at") < pl.col("started_at")).fill_null(False)
        joined = joined.with_columns(pl.when(~is_of_another_run).then(column).alias(column)).drop("told_at")
    return joined.with_columns(pl.coalesce("_same", *names).alias(name)).drop("_same", *names)
