"""Recent rows worked out again from the layer before, and looked for where they must stand.

The pipeline's own counters are not asked: what is decoded is decoded again, what is computed is computed again.
"""

from datetime import datetime, timedelta
from typing import Any

import polars as pl

from assets.ops.requests import requests
from assets.quarantine.records import records
from assets.scoring import judged_keys
from assets.table import Table
from data_quality.contract import RECEIVED_AT, SET_LATER, apply_contract
from data_quality.measures import Measure, reconciled
from pipelines.closure import computed_rows
from pipelines.context import Context
from pipelines.gold_plan import DEFINITION, REBUILD, input_conditions, share, spans_of
from pipelines.recent_rows import MOST_ROWS, before_window, newest_files
from pipelines.reference_refresh import is_versioned, marker_of, version_in
from pipelines.silver_step import decode, judge, sender_of, stored_keys
from pipelines.spans import within
from pipelines.standing import extent
from resources.selection import Among, Ranges, changes

_POSITION = ["stream", "sequence", "row"]
_AUDITED = timedelta(hours=1)
_TICK = timedelta(microseconds=1)
_ROWS: dict[str, Any] = {"source": pl.String, "hour": pl.Datetime("us", "UTC"), "is_there": pl.Boolean}


def decoded_again(context: Context, table: Table) -> Measure:
    """Each row that a recent bronze row decodes to is in silver, and each one that is refused in quarantine.

    A duplicate is there by its key. Rows of a time that retention has dropped, and bronze rows from before the last
    change of what is configured for their decoding, are left out.
    """
    text = f"What {table.inputs[0].identifier} decodes to is here or in quarantine"
    source = _taken(context, table)
    if source.is_empty():
        return reconciled(text, pl.DataFrame(schema=_ROWS))
    good, rejects = judge(context, table, decode(context, table, source))
    kept = context.config.maintenance.retention.get(table.identifier)
    if kept is not None:
        good = good.filter(pl.col(str(table.time)) >= context.clock() - kept)
    key, quarantine = list(table.key), _quarantined(context, table)
    good, refused = good.with_row_index("_row"), rejects.select(_POSITION).with_row_index("_row")
    span = Ranges(RECEIVED_AT, [(source[RECEIVED_AT].min(), _after(source[RECEIVED_AT]))])
    here = context.lakehouse.read(table.stored, span, columns=_POSITION)
    found = pl.concat(
        [
            good.join(stored_keys(context, table, good), on=key, how="semi", nulls_equal=True)["_row"],
            good.join(quarantine, on=_POSITION, how="semi")["_row"],
        ]
    )
    settled = pl.concat([refused.join(rows, on=_POSITION, how="semi")["_row"] for rows in (quarantine, here)])
    times = refused.join(source.select(*_POSITION, RECEIVED_AT), on=_POSITION, how="left", maintain_order="left")
    hour = pl.col(RECEIVED_AT).dt.truncate("1h").alias("hour")
    rows = [
        good.select(sender_of(table).alias("source"), hour, is_there=pl.col("_row").is_in(found.implode())),
        times.select(pl.lit("rejects").alias("source"), hour, is_there=pl.col("_row").is_in(settled.implode())),
    ]
    return reconciled(text, pl.concat(rows))


def _after(times: pl.Series) -> datetime:
    newest = times.max()
    assert isinstance(newest, datetime)
    return newest + _TICK


def _taken(context: Context, table: Table) -> pl.DataFrame:
    """The newest bronze rows that the table has taken, of the recent window."""
    lakehouse, bronze = context.lakehouse, table.inputs[0]
    if not lakehouse.exists(table.stored) or not lakehouse.exists(bronze.stored):
        return pl.DataFrame(schema=bronze.schema)
    until = lakehouse.head(table.stored).markers.get(table.identifier, {}).get(bronze.identifier, 0)
    where = changes(before_window(context, bronze, lakehouse.head(bronze.stored).batch_id), until)
    files = newest_files(context, bronze, lakehouse.files(bronze.stored, where))
    rows = lakehouse.read_files(bronze.stored, files, where)
    configured = [extent(context, r).committed_at for r in table.references if r.configuration]
    rows = rows.filter(*(pl.col("ingested_at") > changed for changed in configured if changed))
    newest = rows.sort("batch_id", descending=True, maintain_order=True).head(MOST_ROWS)
    return newest.drop("ingested_at", "batch_id")


def _quarantined(context: Context, table: Table) -> pl.DataFrame:
    context.lakehouse.table(records.stored, refresh=True)
    return context.lakehouse.read(records.stored, Among("stage", [table.identifier]), columns=_POSITION)


def computed_again(context: Context, table: Table) -> Measure:
    """The rows of the last hour before the newest one are those that the input gives now, value for value.

    Of a table that a model computes, every row of the input has one, for its revision. A series whose input has changed
    since the table took it is left out, and all while a rebuild is under way.
    """
    text = f"What {' and '.join(t.identifier for t in table.inputs)} gives is here, and nothing else"
    span = _span(context, table)
    empty = reconciled(text, pl.DataFrame(schema=_ROWS))
    marker = context.lakehouse.head(table.stored).markers.get(table.identifier, {})
    if span is None or _is_rebuilt(context, table, marker):
        return empty
    low, high = span
    spans = spans_of(context, table, [(low, high)])
    key, time = list(table.key), str(table.time)
    if table.model is None:
        computed = within(computed_rows(context, table, spans), spans, table.series, time)
        limits = context.config.time
        computed, _ = apply_contract(table, computed, skew=limits.skew, earliest=limits.earliest)
        values = [n for n in table.schema if n not in SET_LATER and n not in key]
    else:
        where = (Ranges(time, [(low, high)]), *input_conditions(table))
        judged = judged_keys(table, _live(context.lakehouse.read(table.inputs[0].stored, *where)))
        computed, values = judged.select(*key, window_revision="revision"), ["window_revision"]
    context.lakehouse.table(table.stored, refresh=True)
    stored = _live(context.lakehouse.read(table.stored, Ranges(time, [(low, high)])))
    both = computed.select(*key, *values, _computed=True).join(
        stored.select(*key, *values, _stored=True), on=key, how="full", coalesce=True, nulls_equal=True
    )
    both = both.join(_moving(context, table, marker, spans), on=list(table.series), how="anti", nulls_equal=True)
    is_equal = pl.all_horizontal(
        pl.col("_computed", "_stored").fill_null(False), *(pl.col(v).eq_missing(pl.col(f"{v}_right")) for v in values)
    )
    named = [name for name in table.inputs[0].sender if name in key] or table.series
    source = pl.concat_str([pl.col(c).cast(pl.String) for c in named], separator="/")
    return reconciled(text, both.select(source=source, hour=pl.col(time).dt.truncate("1h"), is_there=is_equal))


def _live(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.filter(~pl.col("is_retracted").fill_null(False)) if "is_retracted" in rows.columns else rows


def _span(context: Context, table: Table) -> tuple[datetime, datetime] | None:
    """The hour of event time before the newest row, or the first part of it if it is large.

    None if there are no rows, or retention has dropped what they were computed from.
    """
    assert table.window is not None
    newest = extent(context, table).newest
    if newest is None:
        return None
    low = newest - max(_AUDITED, table.window.size)
    for source in table.inputs:
        kept = context.config.maintenance.retention.get(source.identifier)
        if kept is not None and low - table.window.before < context.clock() - kept:
            return None
    low, high, _ = share(context, table, low, newest)
    return (low, high) if low < high else None


def _is_rebuilt(context: Context, table: Table, marker: dict[str, object]) -> bool:
    """Whether rows stand that a request, another definition or another version of a side input will change."""
    references = filter(is_versioned, table.references)
    if any(marker.get(r.identifier) != version_in(marker_of(context, r)) for r in references):
        return True
    asked = context.lakehouse.head(requests.stored).batch_id
    is_asked = bool(marker.get(requests.identifier, 0) != asked)
    return is_asked or REBUILD in marker or bool(table.definition and marker.get(DEFINITION) != table.definition)


def _moving(context: Context, table: Table, marker: dict[str, int], spans: pl.DataFrame) -> pl.DataFrame:
    """The series whose input has changed since the table took it."""
    series = list(table.series)
    parts = [spans.select(series).clear()]
    for source in table.inputs:
        head = context.lakehouse.head(source.stored).batch_id
        where = changes(marker.get(source.identifier, 0), head)
        parts.append(context.lakehouse.read(source.stored, where, columns=series).unique())
    return pl.concat(parts).unique()
