"""What a poll of IF-MIB tells of an interface beside its counters: its identity, speed, discontinuities."""

import polars as pl

from assets.snmp_uptimes import GAP, POLL, with_uptimes

_SATURATED = 2**32 - 1
_INTERFACE = ("device_id", "if_index")
_VISIT = (*_INTERFACE, "poll_id")
_NAMES = ("ifName", "ifDescr", "ifAlias", "ifPhysAddress")
_NUMBERS = ("ifHighSpeed", "ifSpeed", "ifCounterDiscontinuityTime")
_VALUES = ("metric_value", "numeric_value")
_FACTS = {
    **dict.fromkeys(_NAMES, pl.when(pl.col("metric_value").str.strip_chars() != "").then("metric_value")),
    **dict.fromkeys(_NUMBERS, pl.col("numeric_value")),
}
"""What a poll may tell of an interface, and how."""


def if_index() -> pl.Expr:
    """The ifIndex of samples of IF-MIB's tables of interfaces; null for others."""
    return pl.when(pl.col("mib_module") == "IF-MIB").then(pl.col("instance").cast(pl.Int64, strict=False))


def untold(samples: pl.DataFrame) -> list[str]:
    """The facts that some poll of an interface's counters does not tell of it: they may be taken from other polls."""
    mine = samples.filter(pl.col("mib_module") == "IF-MIB").with_columns(if_index=if_index(), told_at="observed_at")
    polled = mine.filter(pl.col("counter_value").is_not_null()).select(_VISIT).unique()
    told = {name: _told(mine, name, value) for name, value in _FACTS.items()}
    return [
        name
        for name, rows in told.items()
        if rows.is_empty() or not polled.join(rows, on=_VISIT, how="anti").is_empty()
    ]


def visits(counters: pl.DataFrame, samples: pl.DataFrame, told: pl.DataFrame) -> pl.DataFrame:
    """One row a poll of counters of an interface: ``device_id, if_index, poll_id`` and what is known of it then.

    A fact is taken from the same poll, else as it was told last before that since the agent started, else next. The
    ``interface_id`` stays when an agent numbers its interfaces anew: it is the first of ifName, ifDescr, ifAlias and
    ifPhysAddress that the interface has alone among those of the poll, else the ifIndex.

    Args:
        counters: samples of counters.
        samples: samples of the same devices.
        told: their uptimes.
    """
    found = counters.filter(pl.col("if_index").is_not_null()).group_by(_VISIT).agg(pl.col("observed_at").min())
    found = found.with_columns(pl.col("observed_at").min().over("device_id", "poll_id"))
    facts = samples.filter(pl.col("mib_module") == "IF-MIB", pl.col("object_name").is_in(list(_FACTS)))
    facts = facts.with_columns(if_index=if_index(), told_at="observed_at").sort("told_at")
    for name, value in _FACTS.items():
        found = _with_fact(found, _told(facts, name, value), name, told)
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


def _told(facts: pl.DataFrame, name: str, value: pl.Expr) -> pl.DataFrame:
    return facts.filter(pl.col("object_name") == name).select(*_VISIT, "told_at", value.alias(name)).drop_nulls()


def _started() -> pl.Expr:
    """When the agent started; its roll-over counts too: what was told before is then told again soon."""
    behind = pl.col("zero_at_behind")
    return pl.max_horizontal("zero_at", pl.when(behind <= pl.col("observed_at")).then(behind))


def _alone(name: str) -> pl.Expr:
    is_alone = pl.col(name).is_not_null() & (pl.len().over("device_id", "poll_id", name) == 1)
    return pl.when(is_alone).then(pl.format(f"{name}:{{}}", name))


def _with_fact(found: pl.DataFrame, facts: pl.DataFrame, name: str, told: pl.DataFrame) -> pl.DataFrame:
    same = facts.unique(_VISIT, keep="last", maintain_order=True).select(*_VISIT, name)
    joined = found.join(same, on=_VISIT, how="left")
    lacking = joined.filter(pl.col(name).is_null())
    if facts.is_empty() or lacking.is_empty():
        return joined
    known = [column for column in found.columns if column != name]
    other = with_uptimes(lacking.select(known), told).select(*known, started_at=_started())
    columns = ("_before", "_behind")
    for column, strategy, tolerance in zip(columns, ("backward", "forward"), (GAP, POLL), strict=True):
        other = other.join_asof(
            facts.select(*_INTERFACE, "told_at", pl.col(name).alias(column)),
            left_on="observed_at",
            right_on="told_at",
            by=_INTERFACE,
            strategy=strategy,  # type: ignore[arg-type]
            tolerance=tolerance,
            check_sortedness=False,
            coalesce=False,
        )
        is_of_another_run = (pl.col("told_at") < pl.col("started_at")).fill_null(False)
        other = other.with_columns(pl.when(~is_of_another_run).then(column).alias(column)).drop("told_at")
    filled = other.with_columns(pl.coalesce(columns).alias(name)).select(joined.columns)
    return pl.concat([joined.filter(pl.col(name).is_not_null()), filled])
