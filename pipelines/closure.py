"""What computed rows are made of: the input of their spans is read, and the table's function computes them."""

from collections.abc import Sequence
from datetime import datetime

import polars as pl

from assets.aggregation import Aggregation
from assets.episodes import Condition
from assets.look_back import LookBack
from assets.lookups import Enriched
from assets.table import Table
from pipelines.context import Context
from pipelines.gold_plan import input_conditions, read_ranges
from pipelines.reference_step import side_inputs
from pipelines.spans import LOW, READ_LOW, within
from resources.selection import Ranges, Where, without

_RETRACTED = "is_retracted"


def computed_rows(context: Context, table: Table, spans: pl.DataFrame) -> pl.DataFrame:
    """What the table's function gives for the input of the spans; rows beyond the spans may be incomplete."""
    assert table.function is not None
    side = side_inputs(context, table)
    if table.look_back:
        return _looking_back(context, table, table.look_back, spans)
    rows = closure(context, table, spans)
    if table.model:
        # What stands before is read to look back at; only the rows of the spans are judged.
        wanted = within(rows[0], spans, table.series, str(table.time)).select(*table.series, str(table.time))
        policies = context.config.ml.rules()
        side |= {"model": context.models.latest(table.model), "wanted": wanted, "policies": policies}
    output: pl.DataFrame = table.function(*rows, **side)
    return output


def _looking_back(context: Context, table: Table, look: LookBack, spans: pl.DataFrame) -> pl.DataFrame:
    """Computes from what is near; the series for which that is not enough, from all."""
    assert table.function is not None
    series = list(table.series)
    close = spans.with_columns(pl.max_horizontal(READ_LOW, pl.col(LOW) - look.near).alias(READ_LOW))
    ranges = read_ranges(close)
    (near,) = _read(context, table, spans, ranges)
    (far,) = _read(context, table, spans, without(read_ranges(spans), ranges), *look.beside(near))
    taken = pl.concat([near, far])
    found: pl.DataFrame = table.function(taken)
    is_right = (pl.col(look.since) >= pl.col(LOW) - look.trusted).fill_null(False)
    judged = within(found, spans, series, str(table.time)).join(
        spans.group_by(series).agg(pl.col(LOW).max()), on=series, how="left", nulls_equal=True
    )
    open_ones = judged.filter(~is_right).select(series).unique()
    if open_ones.is_empty():
        return found
    again = spans.join(open_ones, on=series, how="semi", nulls_equal=True)
    (every,) = closure(context, table, again)
    if every.height == taken.join(open_ones, on=series, how="semi", nulls_equal=True).height:
        return found  # nothing lies further back
    anew: pl.DataFrame = table.function(every)
    return pl.concat([found.join(open_ones, on=series, how="anti", nulls_equal=True), anew])


def closure(context: Context, table: Table, spans: pl.DataFrame) -> list[pl.DataFrame]:
    """The rows of each input that the spans are computed from; more of the same series do no harm."""
    return _read(context, table, spans, read_ranges(spans))


def _read(
    context: Context, table: Table, spans: pl.DataFrame, ranges: Sequence[tuple[datetime, datetime]], *more: Where
) -> list[pl.DataFrame]:
    """The rows of each input that lie in the ranges, of the series of the spans."""
    series = spans.select(table.series).unique()
    function = table.function
    reads = function.reads if isinstance(function, Aggregation | Condition | Enriched) else table.reads
    found = []
    for source in table.inputs:
        conditions = (*table.only, *more, *input_conditions(table))
        where = (Ranges(str(source.time), ranges), *(each for each in conditions if each.column in source.schema))
        columns = [name for name in (*reads, _RETRACTED) if name in source.schema] if reads else None
        rows = context.lakehouse.read(source.stored, *where, columns=columns)
        if _RETRACTED in rows.columns:
            rows = rows.filter(~pl.col(_RETRACTED).fill_null(False))
        found.append(rows.join(series, on=list(table.series), how="semi", nulls_equal=True))
    return found
