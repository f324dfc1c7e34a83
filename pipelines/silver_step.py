"""Bronze → silver: parse, check, deduplicate, append. Quarantine and watermarks are side outputs and commit first."""

import json
from dataclasses import dataclass
from datetime import datetime, timedelta

import polars as pl

from assets.ops.requests import requests
from assets.ops.watermarks import watermarks
from assets.quarantine.records import records
from assets.table import Outputs, Table
from data_quality.contract import apply_contract
from data_quality.unknown_fields import EXTRA, handle_unknown
from pipelines.context import Context, TableResult
from pipelines.deduplication import Deduplicated, deduplicate
from pipelines.evolution import see_fields
from pipelines.quarantine import commit_quarantine, reasons, reject_rows, restore_rows
from pipelines.reference_step import side_inputs
from resources.commit import Commit, Marker, stands_at
from resources.selection import Among, Ranges, changes, coalesce

BATCH_ROWS = 600_000
"""Bronze rows of one silver batch at the most (more only if one bronze batch is larger)."""

LATE_SHARE = 0.05
"""An hour with a smaller share of a batch is late: its rows get a file of their own, so others keep tight ranges."""

_POSITION = ["stream", "sequence", "row"]
_REQUESTS = requests.identifier


@dataclass(frozen=True)
class SilverPlan:
    """The bronze batches (after, until] and the requests to take along."""

    frm: Marker
    to: Marker
    batch_id: int
    after: int
    until: int
    replays: pl.DataFrame
    has_more: bool


def plan_silver(context: Context, table: Table) -> SilverPlan:
    """Chooses the next range. A side output that is ahead fixes it: exactly that range is finished first."""
    lakehouse, bronze = context.lakehouse, table.inputs[0]
    head, input_head = lakehouse.head(table.stored), lakehouse.head(bronze.stored)
    frm: Marker = head.markers.get(table.identifier, {})
    after, asked = frm.get(bronze.identifier, 0), frm.get(_REQUESTS, 0)
    ahead = _ahead(context, table, frm)
    if ahead is not None:
        until, asked_until = ahead.get(bronze.identifier, 0), ahead.get(_REQUESTS, 0)
    else:
        until = lakehouse.batch_within(bronze.stored, after, input_head.batch_id, BATCH_ROWS)
        asked_until = lakehouse.head(requests.stored).batch_id
    replays = _replays(context, table, asked, asked_until)
    to = {bronze.identifier: until, _REQUESTS: asked_until}
    return SilverPlan(frm, to, head.batch_id + 1, after, until, replays, until < input_head.batch_id)


def _ahead(context: Context, table: Table, frm: Marker) -> Marker | None:
    for side in (records, watermarks):
        marker = context.lakehouse.head(side.stored).markers.get(table.identifier, {})
        if any(marker.get(name, 0) > frm.get(name, 0) for name in marker):
            return dict(marker)
    return None


def _replays(context: Context, table: Table, asked: int, until: int) -> pl.DataFrame:
    if asked >= until:
        return pl.DataFrame(schema=requests.schema)
    asked_for = context.lakehouse.read(requests.stored, changes(asked, until))
    return asked_for.filter((pl.col("table_name") == table.identifier) & (pl.col("kind") == "replay"))


def run_silver(context: Context, table: Table) -> TableResult:
    """Carries the next bronze batches, and what a replay asks for, into a silver table."""
    plan = plan_silver(context, table)
    result = TableResult(table.identifier, has_more=plan.has_more)
    if stands_at(plan.frm, plan.to):
        return result
    source, taken = _source(context, table, plan)
    outputs = decode(context, table, source)
    table, result.new_fields = see_fields(context, table, outputs.rows)
    rows, rejects = judge(context, table, outputs)
    judged = deduplicate(table, rows, stored_keys(context, table, rows))
    rejected = reject_rows(context, table, source, pl.concat([rejects, judged.conflicts]))
    request = None if plan.replays.is_empty() else str(plan.replays["request_id"].first())
    commit_quarantine(context, table.identifier, plan.to, rejected, taken, request)
    commit_watermarks(context, table, plan.to, rows)
    _commit(context, table, plan, judged, result)
    result.quarantined = reasons(rejected)
    return result


def _source(context: Context, table: Table, plan: SilverPlan) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The bronze rows of the range and of the replays, and the quarantined records that the replays take."""
    bronze = table.inputs[0]
    live = context.lakehouse.read(bronze.stored, changes(plan.after, plan.until))
    live = live.drop("ingested_at", "batch_id")
    taken = _quarantined(context, table, plan.replays)
    if taken.is_empty():
        return live, taken
    return pl.concat([live, restore_rows(bronze, taken).select(live.columns)], how="vertical_relaxed"), taken


def _quarantined(context: Context, table: Table, replays: pl.DataFrame) -> pl.DataFrame:
    """Records that the replays ask for: of this stage, quarantined before the request, not taken by another one."""
    empty = pl.DataFrame(schema=records.schema)
    if replays.is_empty():
        return empty
    kept = context.lakehouse.read(records.stored, Among("stage", [table.identifier]))
    parts = []
    for request in replays.iter_rows(named=True):
        selection = json.loads(request["selection"])
        free = pl.col("replayed_by").is_null() | (pl.col("replayed_by") == request["request_id"])
        of_reason = pl.lit(True) if not selection.get("reason") else pl.col("reason") == selection["reason"]
        parts.append(kept.filter(free, of_reason, pl.col("quarantined_at") <= request["requested_at"]))
    return pl.concat([empty, *parts]).unique("record_id", maintain_order=True)


def decode(context: Context, table: Table, source: pl.DataFrame) -> Outputs:
    """What the table's function makes of bronze rows."""
    assert table.function is not None
    outputs: Outputs = table.function(source, **side_inputs(context, table))
    return outputs


def judge(context: Context, table: Table, outputs: Outputs) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The decoded rows that keep the contract, with their unknown fields as the table has them, and what is refused."""
    rows, refused = outputs.rows, []
    if EXTRA in table.schema:
        rows, unknown = handle_unknown(table.identifier, table.columns, context.mode_of(table), rows)
        refused.append(unknown)
    time = context.config.time
    good, violations = apply_contract(table, rows, skew=time.skew, earliest=time.earliest)
    broken = violations.select(*_POSITION, "reason", "message")
    told = (each.select(pl.col(n).cast(t) for n, t in broken.schema.items()) for each in (outputs.rejects, *refused))
    return good, pl.concat([*told, broken])


def stored_keys(context: Context, table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """Key and value columns of the stored rows near the batch's event times."""
    assert table.time is not None
    minute = timedelta(minutes=1)
    minutes = rows.select(pl.col(table.time).dt.truncate("1m").unique().sort()).to_series().to_list()
    columns = list(dict.fromkeys([*table.key, *table.value]))
    if not minutes:
        return pl.DataFrame(schema={n: table.schema[n] for n in columns})
    reach = table.repeats_within
    ranges = coalesce([(m - reach, m + minute + reach) for m in minutes])
    return context.lakehouse.read(table.stored, Ranges(table.time, ranges), columns=columns)


def commit_watermarks(context: Context, table: Table, to: Marker, rows: pl.DataFrame) -> None:
    """Raises the senders' watermarks to the batch's highest event times, as a side output."""
    stored, lakehouse = watermarks.stored, context.lakehouse
    with lakehouse.sole_writer(stored):
        head = lakehouse.head(stored)
        frm = head.markers.get(table.identifier, {})
        if frm == to or rows.is_empty():
            return
        files = lakehouse.files(stored)
        old = lakehouse.read_files(stored, files).drop("batch_id")
        merged = (
            pl.concat([old, _newest(table, rows)])
            .group_by("source", "sender")
            .agg(pl.col("observed_at").max(), pl.col("received_at").max())
        )
        written = lakehouse.write(stored, merged, head.batch_id + 1)
        summary = {"secchi.run_id": context.run_id}
        lakehouse.commit_once(Commit(stored, table.identifier, frm, to, head.batch_id + 1, written, files, summary))


def _newest(table: Table, rows: pl.DataFrame) -> pl.DataFrame:
    """How far each sender of the rows has come, in the columns of ops.watermarks."""
    return (
        rows.group_by(table.sender)
        .agg(pl.col(str(table.time)).max().alias("observed_at"), pl.col("received_at").max())
        .select(
            pl.lit(table.identifier).alias("source"), sender_of(table).alias("sender"), "observed_at", "received_at"
        )
    )


def sender_of(table: Table) -> pl.Expr:
    """The sender as ops.watermarks spells it; of none, the empty text."""
    if not table.sender:
        return pl.lit("")
    return pl.concat_str([pl.col(c).cast(pl.String) for c in table.sender], separator="/")


def _commit(context: Context, table: Table, plan: SilverPlan, judged: Deduplicated, result: TableResult) -> None:
    files = [
        file
        for part in _on_time_and_late(table, judged.fresh)
        for file in context.lakehouse.write(table.stored, part, plan.batch_id)
    ]
    summary = {"secchi.run_id": context.run_id, "secchi.duplicates": str(judged.duplicates)}
    commit = Commit(table.stored, table.identifier, plan.frm, plan.to, plan.batch_id, files, (), summary)
    context.lakehouse.commit_once(commit)
    result.batch_id, result.rows, result.duplicates = plan.batch_id, judged.fresh.height, judged.duplicates
    result.bytes = sum(f.file_size_in_bytes for f in files)
    newest: datetime | None = judged.fresh.select(pl.col("received_at").max()).item()
    result.lag_seconds = (context.clock() - newest).total_seconds() if newest else None


def _on_time_and_late(table: Table, rows: pl.DataFrame) -> list[pl.DataFrame]:
    hour = pl.col(str(table.time)).dt.truncate("1h")
    late = rows.group_by(hour.alias("hour")).len().filter(pl.col("len") < LATE_SHARE * rows.height)["hour"]
    is_late = hour.is_in(late.implode())
    return [rows] if late.is_empty() else [rows.filter(~is_late), rows.filter(is_late)]
