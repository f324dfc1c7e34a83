"""Silver rows that stand, decoded again from bronze: what a rebuild asks for, after a reference or a rule has changed.

A rebuild goes through the table in order of event time, a bounded share with each micro-batch, after the live rows. Its
progress is a marker of its own in the table; the marker of the live input is not touched. Rows keep their key; what
decodes as before keeps its batch_id, so that readers take only what has changed.
"""

import json
import logging
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import polars as pl
from pyiceberg.manifest import DataFile

from assets.ops.requests import requests
from assets.table import Table
from data_quality.contract import RECEIVED_AT
from pipelines.context import Context, TableResult
from pipelines.evolution import see_fields
from pipelines.replacing import replace_rows
from pipelines.silver_step import BATCH_ROWS, decode, judge, run_silver
from resources.commit import Commit, Marker
from resources.file_index import bounds
from resources.lakehouse import FILE
from resources.selection import Ranges, changes

log = logging.getLogger(__name__)

_REQUESTS = requests.identifier
_POSITION, _UNTIL = "position", "until"  # in microseconds of event time: rows in [position, until) are still to be done
_LANDED = ["stream", "sequence", "row"]
_TICK = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def producer(table: Table) -> str:
    """Under which name the rebuilds of a table keep their marker."""
    return f"{table.identifier}:rebuild"


@dataclass(frozen=True)
class RebuildPlan:
    """A share of a rebuild: the rows of [low, high), and the files that hold them."""

    frm: Marker
    to: Marker
    low: datetime
    high: datetime
    files: list[DataFile]


def run_silver_and_rebuild(context: Context, table: Table) -> TableResult:
    """Carries live rows first, then a share of what rebuilds ask for."""
    result = run_silver(context, table)
    table = context.tables.get(table.identifier, table)  # with the columns that were added
    plan = plan_rebuild(context, table)
    if plan is not None:
        _rebuild(context, table, plan, result)
    return result


def is_rebuilding(context: Context, table: Table, asked: int) -> bool:
    """Whether a request has not been looked at, or a rebuild has not come to its end."""
    marker = context.lakehouse.head(table.stored).markers.get(producer(table), {})
    return bool(marker.get(_REQUESTS, 0) < asked or marker.get(_POSITION, 0) < marker.get(_UNTIL, 0))


def plan_rebuild(context: Context, table: Table) -> RebuildPlan | None:
    """Chooses the next share; None when nothing is asked for."""
    lakehouse = context.lakehouse
    frm: Marker = lakehouse.head(table.stored).markers.get(producer(table), {})
    asked, asked_until = frm.get(_REQUESTS, 0), lakehouse.head(requests.stored).batch_id
    position, until = frm.get(_POSITION, 0), frm.get(_UNTIL, 0)
    spans = [(position, until)] if position < until else []
    if asked < asked_until:
        spans += _asked_for(context, table, asked, asked_until)
    elif not spans:
        return None
    low, high = min((s[0] for s in spans), default=0), max((s[1] for s in spans), default=0)
    files, reached = _share(context, table, _time(low), _time(high)) if low < high else ([], _time(high))
    to = {_REQUESTS: asked_until, _POSITION: _micros(reached), _UNTIL: high}
    return RebuildPlan(frm, to, _time(low), reached, files)


def _asked_for(context: Context, table: Table, asked: int, until: int) -> list[tuple[int, int]]:
    """Spans of event time that new requests name; an open end is the first or the last row that is stored."""
    rows = context.lakehouse.read(requests.stored, changes(asked, until))
    wanted = rows.filter((pl.col("table_name") == table.identifier) & (pl.col("kind") == "rebuild"))
    limits = [span for _, span in _spans(context, table, ())]
    if wanted.is_empty() or not limits:
        return []
    first, last = min(low for low, _ in limits), max(high for _, high in limits)
    found = []
    for text in wanted["selection"]:
        selection = json.loads(text)
        low, high = (datetime.fromisoformat(t) if (t := selection.get(name)) else None for name in ("from", "to"))
        found.append((_micros(low or first), _micros(high or last + _TICK)))
    return found


def _spans(context: Context, table: Table, where: tuple[Ranges, ...]) -> list[tuple[DataFile, tuple[Any, Any]]]:
    """The table's files with the event times they hold, the earliest first."""
    stored = table.stored
    iceberg = context.lakehouse.table(stored)
    found = [(file, bounds(iceberg, file, str(table.time))) for file in context.lakehouse.files(stored, *where)]
    return sorted(((file, span) for file, span in found if span), key=lambda item: item[1])


def _share(context: Context, table: Table, low: datetime, high: datetime) -> tuple[list[DataFile], datetime]:
    """The first files of [low, high) with at most ``BATCH_ROWS`` rows, at least one, and how far they reach alone."""
    spans = _spans(context, table, (Ranges(str(table.time), [(low, high)]),))
    taken: list[DataFile] = []
    rows = 0
    for file, (first, _) in spans:
        if taken and rows + file.record_count > BATCH_ROWS and first > low:
            return taken, first
        taken.append(file)
        rows += file.record_count
    return taken, high


def _rebuild(context: Context, table: Table, plan: RebuildPlan, result: TableResult) -> None:
    batch_id = context.lakehouse.head(table.stored).batch_id + 1
    current = _stored(context, table, plan)
    table, decoded = _decoded(context, table, current)
    current = current if set(table.schema) <= set(current.columns) else _stored(context, table, plan)
    fresh = _changed(table, decoded, current)
    add, delete = replace_rows(context, table, fresh, current, batch_id) if not fresh.is_empty() else ([], [])
    summary = {"secchi.run_id": context.run_id}
    context.lakehouse.commit_once(
        Commit(table.stored, producer(table), plan.frm, plan.to, batch_id, add, delete, summary)
    )
    result.batch_id, result.rows = batch_id, result.rows + fresh.height
    result.bytes += sum(file.file_size_in_bytes for file in add)


def _stored(context: Context, table: Table, plan: RebuildPlan) -> pl.DataFrame:
    if not plan.files:
        return pl.DataFrame(schema={**table.schema, FILE: pl.String})
    where = Ranges(str(table.time), [(plan.low, plan.high)])
    return context.lakehouse.read_files(table.stored, plan.files, where, columns=[*table.schema, FILE])


def _decoded(context: Context, table: Table, current: pl.DataFrame) -> tuple[Table, pl.DataFrame]:
    """What the bronze rows of the stored rows decode to now; without bronze (retention) rows stay as they are.

    The table is given back as it is then: unknown fields may have brought columns.
    """
    if current.is_empty():
        return table, current.drop(FILE)
    bronze = table.inputs[0]
    first, last = current.select(low=pl.col(RECEIVED_AT).min(), high=pl.col(RECEIVED_AT).max()).row(0)
    source = context.lakehouse.read(bronze.stored, Ranges(str(bronze.time), [(first, last + _TICK)]))
    source = source.drop("ingested_at", "batch_id").join(current.select(_LANDED).unique(), on=_LANDED, how="semi")
    for reference in table.references:
        context.lakehouse.head(
            reference.stored
        )  # what was asked for follows a change of them: no earlier state will do
    outputs = decode(context, table, source)
    table, _ = see_fields(context, table, outputs.rows)
    return table, judge(context, table, outputs)[0]


def _changed(table: Table, decoded: pl.DataFrame, current: pl.DataFrame) -> pl.DataFrame:
    """The decoded rows that differ from the stored rows of the same bronze row and key."""
    if current.is_empty():
        return decoded
    same = list(dict.fromkeys([*table.key, *_LANDED]))
    values = [name for name in table.schema if name not in (*same, "batch_id")]
    joined = decoded.join(current, on=same, how="inner", nulls_equal=True, suffix="_stored")
    if joined.height < decoded.height:
        log.warning(
            "%s: %d rows of a rebuild have no stored row of their key; they are left as they were",
            table.identifier,
            decoded.height - joined.height,
        )
    differs = pl.any_horizontal(pl.col(name).ne_missing(pl.col(f"{name}_stored")) for name in values)
    return joined.filter(differs).select(name for name in table.schema if name != "batch_id")


def _time(micros: int) -> datetime:
    return _EPOCH + timedelta(microseconds=micros)


def _micros(time: datetime) -> int:
    return (time - _EPOCH) // _TICK
