"""Computed tables: recompute exactly the spans that new rows touch, and replace the rows that changed."""

from datetime import datetime

import polars as pl

from assets.table import Table
from assets.windowing import END
from data_quality.contract import SET_LATER, apply_contract
from pipelines.closure import closure, computed_rows
from pipelines.context import Context, TableResult
from pipelines.dropped import readers_of, stands
from pipelines.episode_step import episodes_of, replaced_episodes
from pipelines.gold_plan import GoldPlan, has_passed, plan_gold, window_of
from pipelines.quarantine import commit_quarantine, computed_reject_rows, reasons
from pipelines.replacing import replace_rows
from pipelines.spans import HIGH, LOW, within
from resources.commit import Commit, stands_at
from resources.lakehouse import FILE
from resources.selection import BATCH_ID, Ranges, coalesce

_FINALITY = ["is_final", "revision", "corrected_at"]
_RETRACTED = "is_retracted"


def run_gold(context: Context, table: Table) -> TableResult:
    """Brings a computed table up to its input and its deadlines."""
    plan = plan_gold(context, table)
    result = TableResult(table.identifier, has_more=plan.has_more)
    if stands_at(plan.frm, plan.to) and plan.due.is_empty():
        return result
    computed, rejected = _compute(context, table, plan)
    current = _current_rows(context, table, plan, computed)
    fresh = _changed_rows(context, table, computed, current, plan)
    commit_quarantine(context, table.identifier, plan.to, rejected)
    add, delete = replace_rows(context, table, fresh, current, plan.batch_id, is_forgotten(context, table))
    summary = {"secchi.run_id": context.run_id}
    commit = Commit(table.stored, table.identifier, plan.frm, plan.to, plan.batch_id, add, delete, summary)
    context.lakehouse.commit_once(commit)
    result.batch_id, result.rows = plan.batch_id, fresh.height
    result.bytes, result.quarantined = sum(f.file_size_in_bytes for f in add), reasons(rejected)
    newest = computed[END if END in computed.columns else str(table.time)].max() if computed.height else None
    result.lag_seconds = (context.clock() - newest).total_seconds() if isinstance(newest, datetime) else None
    return result


def _compute(context: Context, table: Table, plan: GoldPlan) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Runs the pure function over the closure of the touched spans and keeps those spans' rows."""
    calculated = {n: t for n, t in table.schema.items() if n not in SET_LATER}
    if window_of(table).has_episodes:
        wanted = episodes_of(context, table, plan, lambda spans: closure(context, table, spans)[0])
    elif plan.spans.is_empty():
        return pl.DataFrame(schema=calculated), computed_reject_rows(context, table, None)
    else:
        wanted = within(computed_rows(context, table, plan.spans), plan.spans, table.series, str(table.time))
    time = context.config.time
    good, violations = apply_contract(table, wanted, skew=time.skew, earliest=time.earliest)
    return good.select(calculated.keys()), computed_reject_rows(context, table, violations)


def _current_rows(context: Context, table: Table, plan: GoldPlan, computed: pl.DataFrame) -> pl.DataFrame:
    """The stored rows of the spans and of the due windows, each with the file that it stands in."""
    if window_of(table).has_episodes:
        return replaced_episodes(context, table, plan, computed)
    time = str(table.time)
    ranges = [*plan.spans.select(LOW, pl.col(HIGH).dt.offset_by("1us")).unique().iter_rows()]
    ranges += (
        plan.due.select(pl.col(time).alias(LOW), pl.col(time).dt.offset_by("1us").alias(HIGH)).unique().iter_rows()
    )
    if not ranges:
        return pl.DataFrame(schema={**table.schema, FILE: pl.String})
    where = Ranges(time, coalesce(ranges))
    files = context.lakehouse.files(table.stored, where)
    return context.lakehouse.read_files(table.stored, files, where, columns=[*table.schema, FILE])


def _changed_rows(
    context: Context, table: Table, computed: pl.DataFrame, current: pl.DataFrame, plan: GoldPlan
) -> pl.DataFrame:
    """The rows to write: new and changed ones, those that became final, and those whose key is there no more."""
    key = list(table.key)
    values = [c for c in computed.columns if c not in key]
    live = current.filter(~pl.col(_RETRACTED).fill_null(False))
    standing = live.filter(stands(context, table)).select(key)
    computed = computed.join(standing, on=key, how="anti", nulls_equal=True)
    live = live.join(standing, on=key, how="anti", nulls_equal=True)
    fresh = computed.join(current, on=key, how="left", nulls_equal=True, suffix="_old").with_columns(
        _is_new=pl.col(BATCH_ID).is_null(),
        _has_changed=pl.any_horizontal(
            pl.col(_RETRACTED).fill_null(False), *(pl.col(v).ne_missing(pl.col(f"{v}_old")) for v in values)
        ),
        is_retracted=pl.lit(False),
    )
    judged = live if window_of(table).has_episodes else within(live, plan.spans, table.series, str(table.time))
    gone = judged.join(computed, on=key, how="anti", nulls_equal=True)
    gone = gone.with_columns(is_retracted=pl.lit(True))
    if not window_of(table).has_finality:
        columns = [*computed.columns, _RETRACTED]
        return pl.concat(
            [fresh.filter(pl.col("_is_new") | pl.col("_has_changed")).select(columns), gone.select(columns)]
        )
    columns = [*computed.columns, *_FINALITY, _RETRACTED]
    passed = fresh.with_columns(_passed=has_passed(context, table, fresh)) if fresh.height else None
    parts = [_corrected(context, gone, pl.col("is_final"))]
    if passed is not None:
        was_final = pl.col("is_final").fill_null(False)
        merged = _corrected(context, passed, was_final & pl.col("_has_changed"))
        flips = ~was_final & pl.col("_passed")
        kept = merged.filter(pl.col("_is_new") | pl.col("_has_changed") | flips)
        parts.append(kept.with_columns(is_final=was_final | pl.col("_passed")))
    due = plan.due.join(computed.select(key), on=key, how="anti", nulls_equal=True)
    due = due.join(gone.select(key), on=key, how="anti", nulls_equal=True)
    parts.append(due.with_columns(is_final=pl.lit(True)))
    return pl.concat([p.select(columns) for p in parts], how="vertical_relaxed")


def _corrected(context: Context, rows: pl.DataFrame, is_correction: pl.Expr) -> pl.DataFrame:
    """Counts what changes after it was final as a revision."""
    return rows.with_columns(
        revision=pl.col("revision").fill_null(0) + is_correction.cast(pl.Int32),
        corrected_at=pl.when(is_correction).then(pl.lit(context.clock())).otherwise("corrected_at"),
    )


def is_forgotten(context: Context, table: Table) -> pl.Expr:
    """Whether a row is retracted and every reader has passed it."""
    if _RETRACTED not in table.schema:
        return pl.lit(False)
    return pl.col(_RETRACTED).fill_null(False) & (pl.col(BATCH_ID) <= passed_by_readers(context, table))


def passed_by_readers(context: Context, table: Table) -> int:
    """The batch_id up to which every table that reads this one has come."""
    markers = [
        context.lakehouse.head(reader.stored).markers.get(reader.identifier, {}).get(table.identifier, 0)
        for reader in readers_of(context, table)
    ]
    return min(markers, default=context.lakehouse.head(table.stored).batch_id)
