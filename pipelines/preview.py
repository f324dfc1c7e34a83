"""What a computed table would give over the last hour, without writing."""

from datetime import timedelta

import polars as pl

from assets.expressions import nearest
from assets.table import Table
from pipelines.closure import computed_rows
from pipelines.context import Context
from pipelines.episode_step import raised
from pipelines.gold_plan import window_of
from pipelines.spans import with_reach, within
from resources.errors import ConfigurationError
from resources.selection import Ranges


def preview(context: Context, name: str, last: timedelta) -> pl.DataFrame:
    """Rows of the table whose time lies in the ``last`` span before now, oldest first, without engine columns.

    Raises:
        ConfigurationError: there is no such table, or it is not computed from windows.
    """
    table = _table(context, name)
    now = context.clock()
    series, window = list(table.series), window_of(table)
    parts = [pl.DataFrame(schema={c: table.schema[c] for c in series})]
    for source in table.inputs:
        if not context.lakehouse.exists(source.stored):
            raise ConfigurationError(f"preview: {table.identifier}: its input {source.identifier} holds nothing yet")
        near = Ranges(str(source.time), [(now - last - window.before, now + window.behind)])
        parts.append(context.lakehouse.read(source.stored, near, columns=series).unique())
    edges = {"low": pl.lit(now - last, pl.Datetime("us", "UTC")), "high": pl.lit(now, pl.Datetime("us", "UTC"))}
    spans = with_reach(window, pl.concat(parts).unique().with_columns(**edges))
    computed = computed_rows(context, table, spans)
    if window.has_episodes:
        computed = raised(context, table, computed)
    rows = within(computed, spans, series, str(table.time))
    return rows.sort(str(table.time), *series)


def _table(context: Context, name: str) -> Table:
    computed = {t.identifier: t for t in context.tables.values() if t.window is not None and t.function is not None}
    identifier = name if name in computed else f"gold.{name}"
    if identifier not in computed:
        raise ConfigurationError(f"preview: {name!r} is no computed table; {nearest(identifier, list(computed))}")
    return computed[identifier]
