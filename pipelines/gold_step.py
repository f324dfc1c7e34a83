"""Silver → gold → scores: recompute exactly the windows that new rows touch, and replace the rows that changed."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl

from assets.ops.requests import requests
from assets.ops.watermarks import watermarks
from assets.table import Table, Window
from data_quality.contract import apply_contract
from pipelines.context import Context, TableResult
from pipelines.quarantine import commit_quarantine, computed_reject_rows, reasons
from pipelines.reference_step import read_reference
from pipelines.replacing import replace_rows
from pipelines.silver_step import sender_of
from resources.lakehouse import FILE, Commit, Marker, stands_at
from resources.selection import BATCH_ID, Among, Ranges, changes, coalesce

BATCH_ROWS = 1_000_000
"""Input rows of one gold batch at the most (more only if one input batch is larger)."""

_FIRST, _LAST = datetime(1, 1, 1, tzinfo=UTC), datetime(9999, 12, 31, tzinfo=UTC)
_FINALITY = ["is_final", "revision", "corrected_at"]


@dataclass(frozen=True)
class GoldPlan:
    """The input batches (after, until], the windows they touch, and the windows whose time has come."""

    frm: Marker
    to: Marker
    batch_id: int
    dirty: pl.DataFrame
    due: pl.DataFrame
    has_more: bool


def plan_gold(context: Context, table: Table) -> GoldPlan | None:
    """Lists the touched windows; None when the table waits for its model."""
    if table.model and context.models.current(table.model) is None:
        return None
    lakehouse, source = context.lakehouse, table.inputs[0]
    head, input_head = lakehouse.head(table.stored), lakehouse.head(source.stored)
    frm: Marker = head.markers.get(table.identifier, {})
    after, asked = frm.get(source.identifier, 0), frm.get(requests.identifier, 0)
    until = lakehouse.batch_within(source.stored, after, input_head.batch_id, BATCH_ROWS)
    asked_until = lakehouse.head(requests.stored).batch_id
    touched = [_changed(context, table, changes(after, until))] if until > after else []
    touched += _rebuilds(context, table, asked, asked_until)
    dirty = pl.concat(touched).unique() if touched else _no_windows(table)
    to = {source.identifier: until, requests.identifier: asked_until}
    due = due_windows(context, table)
    return GoldPlan(frm, to, head.batch_id + 1, dirty, due, until < input_head.batch_id)


def _no_windows(table: Table) -> pl.DataFrame:
    return pl.DataFrame(schema={c: table.schema[c] for c in (*table.series, "window_start")})


def _changed(context: Context, table: Table, where: Ranges) -> pl.DataFrame:
    """The windows that input rows touch: series and window_start."""
    source, window = table.inputs[0], _window(table)
    conditions: list[Any] = [where, *([Among("is_final", [True])] if table.final_only else [])]
    columns = [*table.series, str(source.time)]
    rows = context.lakehouse.read(source.stored, *conditions, columns=list(dict.fromkeys(columns)))
    first = (pl.col(str(source.time)) - window.reach_back).dt.truncate(_every(window))
    last = (pl.col(str(source.time)) + window.reach_ahead).dt.truncate(_every(window))
    bounds = rows.select(*table.series, first=first, last=last).unique()
    if not window.reach_back and not window.reach_ahead:
        return bounds.select(*table.series, window_start="first")
    spread = pl.datetime_ranges("first", "last", interval=_every(window), time_unit="us")
    return (
        bounds.with_columns(window_start=spread).explode("window_start").select(*table.series, "window_start").unique()
    )


def _rebuilds(context: Context, table: Table, asked: int, until: int) -> list[pl.DataFrame]:
    if asked >= until:
        return []
    rows = context.lakehouse.read(requests.stored, changes(asked, until))
    wanted = rows.filter((pl.col("table_name") == table.identifier) & (pl.col("kind") == "rebuild"))
    span = pl.Struct({"from": pl.String, "to": pl.String})
    found = []
    for selection in wanted["selection"].str.json_decode(span):
        low = datetime.fromisoformat(selection["from"]) if selection["from"] else _FIRST
        high = datetime.fromisoformat(selection["to"]) if selection["to"] else _LAST
        found.append(_changed(context, table, Ranges(str(table.inputs[0].time), [(low, high)])))
    return found


def _window(table: Table) -> Window:
    assert table.window is not None
    return table.window


def _every(window: Window) -> str:
    return f"{int(window.size.total_seconds() * 1_000_000)}us"


def due_windows(context: Context, table: Table) -> pl.DataFrame:
    """The stored rows that are not final although their sender's watermark has passed end and lateness.

    A sender that has been silent for ``time.idle`` is taken to have come to the present.
    """
    window = _window(table)
    if not window.has_finality or not context.lakehouse.exists(table.stored):
        return pl.DataFrame(schema=table.schema)
    waiting = context.lakehouse.read(table.stored, Among("is_final", [False]))
    return waiting.filter(_has_passed(context, table, waiting))


def _has_passed(context: Context, table: Table, rows: pl.DataFrame) -> pl.Series:
    """For each row, whether its window's end and lateness are behind its sender's watermark."""
    source, window = table.inputs[0], _window(table)
    known = context.lakehouse.read(watermarks.stored, Among("source", [source.identifier]))
    now = context.clock()
    is_idle = pl.col("received_at") + context.config.time.idle <= now
    reached = pl.when(is_idle).then(pl.max_horizontal("observed_at", pl.lit(now))).otherwise("observed_at")
    marks = known.select("sender", reached=reached)
    joined = rows.select("window_start", sender=sender_of(source)).join(
        marks, on="sender", how="left", maintain_order="left"
    )
    end = pl.col("window_start") + window.size + window.lateness
    return joined.select((end <= pl.col("reached")).fill_null(False)).to_series()


def run_gold(context: Context, table: Table) -> TableResult:
    """Brings a windowed table up to its input and its deadlines."""
    plan = plan_gold(context, table)
    result = TableResult(table.identifier, has_more=bool(plan and plan.has_more))
    if plan is None or (stands_at(plan.frm, plan.to) and plan.due.is_empty()):
        return result
    computed, rejected = _compute(context, table, plan)
    current = _current_rows(context, table, pl.concat([_windows_of(computed), _windows_of(plan.due)]))
    fresh = _changed_rows(context, table, computed, current, plan)
    commit_quarantine(context, table.identifier, plan.to, rejected)
    add, delete = replace_rows(context, table, fresh, current, plan.batch_id)
    summary = {"secchi.run_id": context.run_id}
    commit = Commit(table.stored, table.identifier, plan.frm, plan.to, plan.batch_id, add, delete, summary)
    context.lakehouse.commit_once(commit)
    result.batch_id, result.rows = plan.batch_id, fresh.height
    result.bytes, result.quarantined = sum(f.file_size_in_bytes for f in add), reasons(rejected)
    newest = computed["window_end"].max() if not computed.is_empty() else None
    result.lag_seconds = (context.clock() - newest).total_seconds() if isinstance(newest, datetime) else None
    return result


def _windows_of(rows: pl.DataFrame) -> pl.DataFrame:
    return rows.select("window_start").unique()


def _compute(context: Context, table: Table, plan: GoldPlan) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Runs the pure function over the closure of the touched windows and keeps those windows' rows."""
    source = table.inputs[0]
    calculated = {n: t for n, t in table.schema.items() if n not in (*_FINALITY, BATCH_ID)}
    if plan.dirty.is_empty():
        return pl.DataFrame(schema=calculated), computed_reject_rows(context, table, None)
    rows = closure(context, table, plan.dirty)
    assert table.function is not None
    side: dict[str, Any] = {r.name: read_reference(context, r) for r in table.references}
    if table.model:
        side["model"] = context.models.latest(table.model)
    output: pl.DataFrame = table.function(rows, **side)
    wanted = output.join(plan.dirty, on=[*table.series, "window_start"], how="semi", nulls_equal=True)
    time = context.config.time
    good, violations = apply_contract(table, wanted, skew=time.skew, earliest=time.earliest)
    assert source.time is not None
    return good.select(calculated.keys()), computed_reject_rows(context, table, violations)


def closure(context: Context, table: Table, dirty: pl.DataFrame) -> pl.DataFrame:
    """The input rows that the touched windows are computed from."""
    source, window = table.inputs[0], _window(table)
    starts: list[datetime] = dirty["window_start"].unique().sort().to_list()
    before, behind = window.reach_ahead, window.size + window.reach_back
    ranges = coalesce([(s - before, s + behind) for s in starts])
    conditions: list[Any] = [Ranges(str(source.time), ranges)]
    if table.final_only:
        conditions.append(Among("is_final", [True]))
    rows = context.lakehouse.read(source.stored, *conditions)
    return rows.join(dirty.select(table.series).unique(), on=list(table.series), how="semi", nulls_equal=True)


def _current_rows(context: Context, table: Table, windows: pl.DataFrame) -> pl.DataFrame:
    """The stored rows of the windows, each with the file that it stands in."""
    starts = windows["window_start"].unique().sort().to_list()
    if not starts:
        return pl.DataFrame(schema={**table.schema, FILE: pl.String})
    where = Ranges("window_start", coalesce([(s, s + _window(table).size) for s in starts]))
    files = context.lakehouse.files(table.stored, where)
    return context.lakehouse.read_files(table.stored, files, where, columns=[*table.schema, FILE])


def _changed_rows(
    context: Context, table: Table, computed: pl.DataFrame, current: pl.DataFrame, plan: GoldPlan
) -> pl.DataFrame:
    """The rows to write: new ones, changed ones, and those that became final; unchanged rows are left alone."""
    key = list(table.key)
    values = [c for c in computed.columns if c not in key]
    now = context.clock()
    joined = computed.join(current, on=key, how="left", nulls_equal=True, suffix="_old").with_columns(
        _is_new=pl.col(BATCH_ID).is_null(),
        _has_changed=pl.any_horizontal(pl.col(v).ne_missing(pl.col(f"{v}_old")) for v in values),
    )
    if not _window(table).has_finality:
        return joined.filter(pl.col("_is_new") | pl.col("_has_changed")).select(computed.columns)
    was_final = pl.col("is_final").fill_null(False)
    is_correction = was_final & pl.col("_has_changed")
    merged = joined.with_columns(
        _passed=_has_passed(context, table, joined),
        revision=pl.col("revision").fill_null(0) + is_correction.cast(pl.Int32),
        corrected_at=pl.when(is_correction).then(pl.lit(now)).otherwise("corrected_at"),
    )
    flips = ~was_final & pl.col("_passed")
    fresh = merged.filter(pl.col("_is_new") | pl.col("_has_changed") | flips).with_columns(
        is_final=was_final | pl.col("_passed")
    )
    columns = [*computed.columns, *_FINALITY]
    due = plan.due.join(computed.select(key), on=key, how="anti", nulls_equal=True).with_columns(is_final=pl.lit(True))
    return pl.concat([fresh.select(columns), due.select(columns)], how="vertical_relaxed")
