"""Which episodes of a threshold new rows change. What came before is told by the episodes that are stored.

Only the spans that new rows touch are read again. Before a span, the state of a series is what the stored episodes say;
behind it they stay right, unless the state at its end is another one than before: then the next row that says something
is looked for.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl

from assets.episodes import AT, CLEARED, IS_ON, IS_OPEN, PENDING, RAISED, Condition, states
from assets.table import MINUTE, Table
from pipelines.context import Context
from pipelines.gold_plan import GoldPlan, has_passed
from pipelines.spans import HIGH, LOW, READ_HIGH, READ_LOW, within
from resources.file_index import bounds
from resources.lakehouse import FILE
from resources.selection import Among, Ranges, Where, coalesce

Reader = Callable[[pl.DataFrame], pl.DataFrame]
"""The input rows that spans are computed from."""

_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_FARTHER = 8
_EDGES = (HIGH, READ_LOW, READ_HIGH)


def episodes_of(context: Context, table: Table, plan: GoldPlan, read: Reader) -> pl.DataFrame:
    """The episodes of the series that the spans touch, as far as they may have changed, and those that are due."""
    condition, spans = _condition(table), plan.spans
    touched = _touched_episodes(context, table, spans)
    found = condition.episodes(_entries(context, table, spans, touched, read))
    rest = plan.due.join(touched, on=list(table.key), how="anti", nulls_equal=True)
    return raised(context, table, pl.concat([found, rest.select(found.columns)]))


def raised(context: Context, table: Table, episodes: pl.DataFrame) -> pl.DataFrame:
    """Raises the open episodes that have lasted long enough by their sender's watermark."""
    is_due = has_passed(context, table, episodes)
    at = pl.when(is_due & pl.col(IS_OPEN)).then(pl.col(PENDING) + _condition(table).waits).otherwise(RAISED)
    return episodes.with_columns(at.alias(RAISED))


def replaced_episodes(context: Context, table: Table, plan: GoldPlan, computed: pl.DataFrame) -> pl.DataFrame:
    """The stored rows that the computed ones take the place of, each with the file that it stands in."""
    touched = _touched_episodes(context, table, plan.spans)
    starts = computed.select(pl.col(PENDING).alias(LOW), (pl.col(PENDING) + _MICROSECOND).alias(HIGH)).unique()
    if starts.is_empty():
        return touched
    same = _read(context, table, Ranges(PENDING, coalesce(starts.iter_rows())))
    same = same.join(computed, on=list(table.key), how="semi", nulls_equal=True)
    return pl.concat([touched, same]).unique(table.key)


def _condition(table: Table) -> Condition:
    assert isinstance(table.function, Condition)
    return table.function


def _read(context: Context, table: Table, *where: Where) -> pl.DataFrame:
    files = context.lakehouse.files(table.stored, *where)
    return context.lakehouse.read_files(table.stored, files, *where, columns=[*table.schema, FILE])


def _touched_episodes(context: Context, table: Table, spans: pl.DataFrame) -> pl.DataFrame:
    """The stored episodes of the spans' series that are open, or end behind the first span's start."""
    if spans.is_empty():
        return pl.DataFrame(schema={**table.schema, FILE: pl.String})
    ended = Ranges(CLEARED, [(spans[LOW].min(), _LAST)])
    rows = pl.concat([_read(context, table, Among(IS_OPEN, [True])), _read(context, table, ended)])
    live = rows.filter(~pl.col("is_retracted").fill_null(False))
    return live.join(spans.select(table.series).unique(), on=list(table.series), how="semi", nulls_equal=True)


def _entries(context: Context, table: Table, spans: pl.DataFrame, touched: pl.DataFrame, read: Reader) -> pl.DataFrame:
    """What the stored episodes tell outside of the spans, the rows within, and the next row where the state differs."""
    condition, by = _condition(table), list(table.series)
    known = condition.boundaries(touched)
    if spans.is_empty():
        return known
    numbered = known.with_row_index("_row")
    kept = numbered.join(within(numbered, spans, by, AT), on="_row", how="anti").drop("_row")
    line = pl.concat([kept, within(condition.entries(read(spans)), spans, by, AT)])
    open_spans = spans.with_columns(_before=states(known, spans, by, HIGH))
    while not open_spans.is_empty():
        is_astray = states(line, open_spans, by, HIGH) != open_spans["_before"]
        astray, open_spans = open_spans.filter(is_astray), open_spans.filter(~is_astray)
        if astray.is_empty():
            break
        line = pl.concat([line, _following(context, table, astray, read)])
    return line


def _following(context: Context, table: Table, spans: pl.DataFrame, read: Reader) -> pl.DataFrame:
    """The first entry behind each span, where there is one: looked for farther and farther ahead."""
    condition, by = _condition(table), list(table.series)
    newest, found = _newest(context, table), []
    sought = spans.select(*by, HIGH).with_columns(pl.col(HIGH).alias(READ_LOW))
    reach = MINUTE
    while not sought.is_empty():
        near = sought.with_columns((pl.col(HIGH) + reach).alias(READ_HIGH))
        entries = condition.entries(read(near)).join(near, on=by, how="inner", nulls_equal=True)
        if condition.state is None:  # a silence is not over before a row, and rows between may not have been read
            entries = entries.filter(~pl.col(IS_ON))
        behind = entries.filter(pl.col(AT).is_between(HIGH, READ_HIGH, closed="right"))  # more may have been read
        first = behind.sort(AT).unique([*by, HIGH], keep="first")
        found.append(first.drop(*_EDGES))
        missed = near.join(first, on=[*by, HIGH], how="anti", nulls_equal=True).filter(pl.col(READ_HIGH) < newest)
        sought, reach = missed.with_columns(pl.col(READ_HIGH).alias(READ_LOW)), reach * _FARTHER
    return pl.concat(found)


def _newest(context: Context, table: Table) -> datetime:
    """The latest event time of the input."""
    source = table.inputs[0]
    iceberg = context.lakehouse.table(source.stored)
    limits: list[Any] = [bounds(iceberg, f, str(source.time)) for f in context.lakehouse.files(source.stored)]
    return max((high for _, high in limits), default=_FIRST)
