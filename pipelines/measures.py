"""Reads what other tables say about a table, for the measures of its suite."""

from datetime import datetime, timedelta

import polars as pl

from assets.ops.batches import batches
from assets.ops.watermarks import watermarks
from assets.quarantine.records import records
from assets.table import Table
from data_quality.measures import Measure, missing_series, quarantined, silent, volume, without_reference
from data_quality.suites import references_of
from pipelines.audits import computed_again, decoded_again
from pipelines.context import Context
from resources.selection import FAR_FUTURE, Among, Ranges, changes

_HOUR, _DAY, _DAYS = timedelta(hours=1), timedelta(days=1), 7


def measures_of(context: Context, table: Table, recent: pl.DataFrame) -> list[Measure]:
    """What is measured of a table: by what a micro-batch does for it, and by its references.

    Args:
        context: storage and configuration.
        table: the declaration.
        recent: its rows that the suite looks at.
    """
    found: list[Measure] = []
    if table.layer in ("bronze", "silver", "gold"):
        found.append(_quarantined(context, table))
    if table.step in ("take", "decode"):
        found.append(_volume(context, table))
    if table.step == "decode":
        found += [_silent(context, table), decoded_again(context, table)]
    if table.step == "compute" and not any(t.window and t.window.has_episodes for t in (table, *table.inputs)):
        # Episodes need not come, and go on from what stands.
        found += [_missing_series(context, table), computed_again(context, table)]
    found += _references(context, table, recent)
    return found


def _commits(context: Context, table: Table, ranges: list[tuple[datetime, datetime]]) -> pl.DataFrame:
    """The table's own commits in spans of time."""
    if not context.lakehouse.exists(batches.stored):
        return pl.DataFrame(schema=batches.schema)
    context.lakehouse.table(batches.stored, refresh=True)
    where = (Among("table_name", [table.identifier]), Ranges("committed_at", ranges))
    columns = ["producer", "table_batch_id", "committed_at", "rows"]
    found = context.lakehouse.read(batches.stored, *where, columns=columns)
    return found.filter(pl.col("producer") == table.identifier)


def _volume(context: Context, table: Table) -> Measure:
    hour = context.clock().replace(minute=0, second=0, microsecond=0) - _HOUR
    starts = [hour - day * _DAY for day in range(_DAYS + 1)]
    found = _commits(context, table, [(start, start + _HOUR) for start in starts])
    hours = found.group_by(hour=pl.col("committed_at").dt.truncate("1h")).agg(pl.col("rows").sum())
    return volume(hours, hour)


def _quarantined(context: Context, table: Table) -> Measure:
    since = (context.clock() - context.config.quality.window, FAR_FUTURE)
    written = int(_commits(context, table, [since])["rows"].sum() or 0)
    if not context.lakehouse.exists(records.stored):
        return quarantined(written, 0)
    context.lakehouse.table(records.stored, refresh=True)
    where = (Among("stage", [table.identifier]), Ranges("quarantined_at", [since]))
    return quarantined(written, context.lakehouse.read(records.stored, *where, columns=["stage"]).height)


def _silent(context: Context, table: Table) -> Measure:
    now, within = context.clock(), context.config.quality.window
    if not context.lakehouse.exists(watermarks.stored):
        return silent(pl.DataFrame(schema=watermarks.schema), now, within)
    context.lakehouse.table(watermarks.stored, refresh=True)
    return silent(context.lakehouse.read(watermarks.stored, Among("source", [table.identifier])), now, within)


def _missing_series(context: Context, table: Table) -> Measure:
    within, now = context.config.quality.window, context.clock()
    found = _commits(context, table, [(now - 2 * within, FAR_FUTURE)])
    is_late = found["committed_at"] >= now - within
    before, lately = (_series(context, table, commits) for commits in (found.filter(~is_late), found.filter(is_late)))
    return missing_series(before, lately, within)


def _series(context: Context, table: Table, commits: pl.DataFrame) -> pl.DataFrame:
    """The distinct series of the rows that some commits wrote."""
    series, numbers = list(table.series), commits["table_batch_id"].to_list()
    if not numbers:
        return pl.DataFrame(schema={name: table.schema[name] for name in series})
    where = changes(min(numbers) - 1, max(numbers))
    return context.lakehouse.read(table.stored, where, columns=series).unique()


def _references(context: Context, table: Table, recent: pl.DataFrame) -> list[Measure]:
    """One measure for each reference table that is there, has rows, and has the columns."""
    found = []
    for identifier, columns in references_of(table).items():
        reference = context.tables.get(identifier)
        if reference is None or not context.lakehouse.exists(reference.stored):
            continue
        if any(reference.schema.get(name) != table.schema[name] for name in columns):
            continue
        context.lakehouse.table(reference.stored, refresh=True)
        known = context.lakehouse.read(reference.stored, columns=list(columns))
        if known.height:
            found.append(without_reference(identifier, columns, recent, known))
    return found
