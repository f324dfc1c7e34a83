"""A score computed again from its row and the stored model, and what became of its window since."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from assets.scoring import group_of, judged_scores, judged_windows
from assets.table import Table
from ml.anomaly_model import restore
from ml.features import FEATURE_COLUMNS
from ml.groups import QUANTITY
from ml.identity import JUDGED, same_window, score_ids
from ml.policy import holding
from ml.quantities import END, START
from ml.rarity import with_rarity
from ml.recomputation import Recomputed, recompute
from pipelines.closure import closure
from pipelines.context import Context
from pipelines.gold_plan import window_of
from pipelines.plotting import WIDTH, figure, shade, write_png
from pipelines.printing import counted
from pipelines.reference_step import side_inputs
from pipelines.spans import HIGH, LOW, with_reach
from pipelines.tracing import commits
from pipelines.training import scores_table
from resources.errors import SecchiError
from resources.model_store import ModelRefusedError, StoredModel
from resources.selection import BATCH_ID, Among, Ranges
from resources.strict_model import shown

BEFORE = 60
"""Windows that a plot shows before the one that was judged."""

_ID, _RETRACTED = "score_id", "is_retracted"
_NAME = re.compile(r"(\d{8}T\d{6}Z)-[0-9a-f]{12}-[0-9a-f]{16}")
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True)
class Explained:
    """A score explained.

    Attributes:
        table: where the score stands.
        row: the row as it was written.
        model: the model that judged, or None where none did.
        recomputed: what it gives for the row's features.
        differences: columns of the row that it does not give again.
        since: what changed since the row was written, a line each.
        windows: the series' windows around it, as they are now.
    """

    table: Table
    row: dict[str, Any]
    model: StoredModel | None
    recomputed: Recomputed | None
    differences: list[str]
    windows: pl.DataFrame
    since: list[str] = field(default_factory=list)


def explain(context: Context, score_id: str, group: str | None = None) -> Explained:
    """Finds the score, in the table of a group or in any, computes it again and compares it with what is there now.

    Raises:
        SecchiError: there is no such score, or its model is no longer stored.
        ModelRefusedError: the stored model is not the one that judged, or is damaged.
    """
    tables = [scores_table(context.tables, group)] if group else [t for t in context.tables.values() if t.model]
    table, found = _found(context, tables, score_id)
    row, known = found.row(0, named=True), judged_scores(table, found)
    model = _model_of(context, table, row)
    rules = holding(context.config.ml.rules(), group_of(table))
    recomputed = recompute(restore(model), known, rules) if model else None
    differences = recomputed.differences(row) if recomputed else []
    differences += [] if score_ids(known, row["model_sha256"] or "").item() == score_id else [_ID]
    windows = _near(context, table, row, model)
    told = Explained(table, row, model, recomputed, differences, windows)
    told.since.extend(_since(context, told, found))
    return told


def _found(context: Context, tables: Sequence[Table], score_id: str) -> tuple[Table, pl.DataFrame]:
    """The table and the row of a score: the one that is there now, or that a kept snapshot has."""
    start = _start_of(score_id)
    at, same = Ranges(START, [(start, start + _SECOND)]), []
    there = [table for table in tables if context.lakehouse.exists(table.stored)]
    for table in there:
        rows = context.lakehouse.read(table.stored, at)
        found = rows.filter(pl.col(_ID) == score_id)
        if found.height:
            return table, found.head(1)
        same += rows.filter(pl.col(_ID).str.starts_with(same_window(score_id)))[_ID].to_list()
    for table in there:
        found = _kept(context, table, score_id, start)
        if found.height:
            return table, found.head(1)
    if same:
        raise SecchiError(f"score {score_id}: was replaced, and no kept snapshot has it; of its window is {same[0]}")
    named = " or ".join(table.identifier for table in tables)
    raise SecchiError(f"score {score_id}: no table has it; column {_ID} of {named} has those that are")


def _start_of(score_id: str) -> datetime:
    if told := _NAME.fullmatch(score_id):
        with suppress(ValueError):
            return datetime.strptime(told[1], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    raise SecchiError(
        f"SCORE_ID must be a value of the column {_ID} of gold.anomaly_scores or of another table of scores, like "
        f"'20260301T124000Z-c76547c0da2f-42f9c93ee7721334', got {shown(score_id)}"
    )


def _kept(context: Context, table: Table, score_id: str, start: datetime) -> pl.DataFrame:
    """The row in the newest kept snapshot that has it."""
    iceberg = context.lakehouse.table(table.stored)
    if _ID not in iceberg.schema().column_names:
        return pl.DataFrame(schema=table.schema)
    where = f"{START} = '{start.isoformat()}' and {_ID} = '{score_id}'"  # _NAME lets no quote in
    for snapshot in sorted(iceberg.metadata.snapshots, key=lambda one: one.sequence_number or 0, reverse=True):
        rows = pl.DataFrame(iceberg.scan(row_filter=where, snapshot_id=snapshot.snapshot_id).to_arrow())
        if rows.height:
            return pl.concat([pl.DataFrame(schema=table.schema), rows], how="diagonal_relaxed")
    return pl.DataFrame(schema=table.schema)


def _model_of(context: Context, table: Table, row: Mapping[str, Any]) -> StoredModel | None:
    name, model_id = str(table.model), row["model_id"]
    if model_id is None:
        return None
    if model_id not in context.models.ids(name):
        raise SecchiError(
            f"score {row[_ID]}: its model {model_id} is no longer stored; ml.keep_models = "
            f"{context.config.ml.keep_models} says how many are kept"
        )
    model = context.models.load(name, model_id)
    if model.sha256 != row["model_sha256"]:
        raise ModelRefusedError(
            f"model {name}/{model_id}: SHA-256 of its card is {model.sha256}, the score was computed by "
            f"{row['model_sha256']}; it was changed since, and no score can be told from it"
        )
    return model


def _near(context: Context, table: Table, row: Mapping[str, Any], model: StoredModel | None) -> pl.DataFrame:
    """The series' windows around a score, as they are now; ``mean`` is what is judged."""
    source, size = table.inputs[0], window_of(table).size
    where = Ranges(str(source.time), [(row[START] - BEFORE * size, row[START] + (WIDTH - BEFORE) * size)])
    same = {name: row[name] for name in table.key if name not in (START, QUANTITY)}
    rows = context.lakehouse.read(source.stored, where, *(Among(name, [value]) for name, value in same.items()))
    windows = judged_windows(table, rows.filter(~pl.col(_RETRACTED).fill_null(False)).sort(START))
    windows = windows.filter(quantity=row[QUANTITY]) if QUANTITY in row else windows
    return with_rarity(windows, model.baselines) if model else windows


# --- since -------------------------------------------------------------------------------------------------------


def _since(context: Context, told: Explained, found: pl.DataFrame) -> list[str]:
    table, row = told.table, told.row
    lines = _replaced(context, table, row)
    window = told.windows.filter(pl.col(START) == row[START])
    if window.is_empty():
        return [*lines, f"{table.inputs[0].identifier} no longer has the window"]
    if (revision := window["revision"].item()) != row["window_revision"]:
        lines.append(f"the window was corrected: revision {row['window_revision']} was judged, it is {revision} now")
    spans = with_reach(
        window_of(table), found.select(*table.series, pl.col(START).alias(LOW), pl.col(START).alias(HIGH))
    )
    rows = closure(context, table, spans)
    lines += _corrected_near(context, told, rows[0], found)
    lines += _judged_anew(context, told, rows, found)
    if told.recomputed and row["threshold"] != told.recomputed.threshold:
        asked = f"it would be {told.recomputed.threshold:.10g}"
        lines.append(f"[ml] asks for another threshold: it was {row['threshold']:.10g}, {asked}")
    current = context.models.current(str(table.model))
    if current != row["model_id"]:
        lines.append(f"the model in use is {current or 'none'}")
    return lines


def _replaced(context: Context, table: Table, row: Mapping[str, Any]) -> list[str]:
    """What stands now in the place of a row."""
    now = context.lakehouse.read(table.stored, *(Among(name, [row[name]]) for name in table.key))
    live = now.filter(~pl.col(_RETRACTED).fill_null(False))
    if live.is_empty():
        return [f"{table.identifier} no longer has a score of the window"]
    other = live.row(0, named=True)
    if other[_ID] == row[_ID]:
        return []
    changed = [name for name in ("score", "window_revision", "model_id") if other[name] != row[name]]
    moves = ", ".join(f"{name} {_shown(row[name])} is {_shown(other[name])} now" for name in changed)
    return [f"the window was judged again ({other[_ID]}): {moves or 'by other windows of its device'}"]


def _shown(value: Any) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _corrected_near(context: Context, told: Explained, windows: pl.DataFrame, found: pl.DataFrame) -> list[str]:
    """Other windows that the verdict looks at and that were corrected after it was committed."""
    seen = _windows_seen(context, told, found)
    is_itself = pl.all_horizontal(pl.col(name) == told.row[name] for name in told.table.key if name != QUANTITY)
    near = windows.filter(pl.col("revision") > 0, pl.col(START) <= told.row[START], ~is_itself)
    others = near.filter(pl.col(BATCH_ID) > seen).height if seen is not None else 0
    return [f"{counted(others, 'other window')} that it looks back at had corrections"] if others else []


def _windows_seen(context: Context, told: Explained, found: pl.DataFrame) -> int | None:
    """The last batch of the windows that the commit of the score had taken; None if that is not known any more."""
    markers = commits(context, told.table, found)["to_marker"].to_list()
    return json.loads(markers[0]).get(told.table.inputs[0].identifier) if markers else None


def _judged_anew(context: Context, told: Explained, rows: list[pl.DataFrame], found: pl.DataFrame) -> list[str]:
    """Judges today's windows with the model of the row."""
    assert told.table.function is not None
    wanted = found.select(*told.table.series, START)
    given = {"model": told.model, "policies": context.config.ml.rules(), "wanted": wanted}
    judged = told.table.function(*rows, **side_inputs(context, told.table), **given)
    today = judged.join(found.select(told.table.key), on=list(told.table.key), how="semi", nulls_equal=True)
    if today.is_empty():
        return ["the window is not final any more"]
    now = today.row(0, named=True)
    moved = [name for name in (*JUDGED[1:2], *FEATURE_COLUMNS) if now[name] != told.row[name]]
    if not moved:
        return []
    features = ", ".join(name.removeprefix("feature_") for name in moved if name != "score")
    score = f"today's windows give the score {_shown(now['score'])} with the same model"
    return [f"{score}{f'; other features: {features}' if features else ''}"]


# --- plots -------------------------------------------------------------------------------------------------------


def series(told: Explained) -> str:
    """Which series was judged."""
    return " ".join(f"{name}={told.row[name]}" for name in told.table.key if name != START)


def judged(told: Explained) -> str:
    """What ``means`` are: of a sensor its mean, of a group's thing a column, or how rare the column's value is."""
    group, quantity = group_of(told.table), told.row.get(QUANTITY, "mean")
    return f"rarity of {quantity} in bits" if group and quantity in group.categories else str(quantity)


def means(told: Explained) -> list[float | None]:
    """What was judged of each window around the score, None where there is none; its own is at ``BEFORE``."""
    size = told.row[END] - told.row[START]
    by_place = {(at - told.row[START]) // size + BEFORE: mean for at, mean in told.windows.select(START, "mean").rows()}
    return [by_place.get(place) for place in range(WIDTH)]


def write_plot(told: Explained, path: Path) -> None:
    """Draws the windows around the score with the expected range, and what the features add to it."""
    row = told.row
    drawn, (above, beside) = figure(f"{row[_ID]}: {series(told)}", widths=(3, 1))
    above.plot(told.windows[START].to_list(), told.windows["mean"].to_list(), ".-", label=judged(told), linewidth=1)
    if row["expected_low"] is not None:
        above.axhspan(row["expected_low"], row["expected_high"], color="tab:green", alpha=0.15, label="expected")
    shade(above, [(row[START], row[END])], "tab:red", f"judged: score {_shown(row['score'])}")
    above.legend(loc="upper left", fontsize=8)
    if told.recomputed:
        added = told.recomputed.contributions
        beside.barh(range(len(added)), list(added.values()), color="tab:red", tick_label=list(added))
    beside.set_title("adds to the score", fontsize=9)
    write_png(drawn, path)
