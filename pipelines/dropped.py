"""What retention has dropped, and the computed rows that go on standing for it."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import polars as pl

from assets.table import Table
from pipelines.context import Context
from resources.selection import BATCH_ID

_PROPERTY = "secchi.dropped"


def readers_of(context: Context, table: Table) -> Iterator[Table]:
    """The tables that are computed from a table."""
    return (r for r in context.tables.values() if table.identifier in {i.identifier for i in r.inputs})


def noted(context: Context, table: Table, until: datetime) -> dict[str, str]:
    """The property that tells of rows up to a time that are dropped now, and up to which batch readers had them."""
    before = context.lakehouse.table(table.stored).properties.get(_PROPERTY)
    until = max(until, datetime.fromisoformat(json.loads(before)["until"])) if before else until
    heads = {r.identifier: context.lakehouse.head(r.stored).batch_id for r in readers_of(context, table)}
    return {_PROPERTY: json.dumps({"until": until.isoformat(), "batches": heads})}


def stands(context: Context, table: Table) -> pl.Expr:
    """Whether a stored row was computed from rows that were dropped since: what is left does not tell better.

    An episode that is open still has to end.
    """
    window, found = table.window, pl.lit(False)
    assert window is not None
    for source in table.inputs:
        told = context.lakehouse.table(source.stored).properties.get(_PROPERTY)
        if told is None:
            continue
        note = json.loads(told)
        until = datetime.fromisoformat(note["until"]).astimezone(UTC) + window.before
        is_old = (pl.col(str(table.time)) <= until) & (pl.col(BATCH_ID) <= note["batches"].get(table.identifier, 0))
        found = found | (is_old & ~pl.col("is_open") if window.has_episodes else is_old)
    return found
