"""What the anomaly model would have said over a span of history; nothing is written."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from assets.scoring import group_of, judged_windows, windows_a_row
from assets.table import Table
from ml.anomaly_model import restore
from ml.evaluation import faults_found
from ml.groups import BETWEEN, PREFIX
from ml.policy import holding
from ml.quantities import END, GROUP, KEY, START
from pipelines.context import Context
from pipelines.gold_plan import input_conditions, window_of
from pipelines.labels import is_labelled, known_labels
from pipelines.plotting import figure, shade, write_png
from pipelines.training import MODEL, NotEnoughWindowsError, fitted, newest_final, scores_table
from resources.errors import SecchiError
from resources.selection import Ranges

if TYPE_CHECKING:
    from ml.anomaly_model import Model

_PART = timedelta(hours=6)
_DAY = timedelta(days=1)
_SHOWN = 20
_VERDICT = ("is_anomaly", "is_alarm", "score")


@dataclass(frozen=True)
class Backtest:
    """What was judged, and how well.

    Attributes:
        low: start of the span.
        high: its end, exclusive.
        model: which model judged, and what of the span it had seen: a line for people.
        judged: a row a window: key, ``window_end``, ``is_anomaly, is_alarm, score``, and whether it meets a fault
            (``is_fault``) or a maintenance (``is_maintenance``) that is labelled.
        faults: the labelled faults (spans) that windows were there for, and ``is_found``.
        groups: a row a device (a thing of a group): windows, anomalies, alarms, alarms a day; faults, found, precision
            and recall where it has labels.
        names: how the table of scores names the devices or things of ``groups``.
    """

    low: datetime
    high: datetime
    model: str
    judged: pl.DataFrame
    faults: pl.DataFrame
    groups: pl.DataFrame
    names: pl.DataFrame

    @property
    def rows(self) -> pl.DataFrame:
        """``groups`` under the names of the table of scores."""
        shown = {name: name.removeprefix(PREFIX) for name in self.names.columns if name not in GROUP}
        if not shown:
            return self.groups
        named = self.groups.join(self.names, on=list(GROUP), how="left", maintain_order="left").drop(GROUP)
        return named.rename(shown).select(*shown.values(), pl.exclude(shown.values()))


def backtest(
    context: Context, low: datetime, high: datetime, *, use_champion: bool = False, model: str = MODEL
) -> Backtest:
    """Judges the final windows that start in [low, high), of sensors or of the group of a model.

    The model is trained as ``[ml]`` asks on windows that start before ``low`` and labels that were said before it; with
    ``use_champion`` it is the one in use, which may have seen the span.

    Raises:
        SecchiError: there is no window in the span, not enough before it, or no model in use.
    """
    scores = scores_table(context.tables, model)
    judge, told = _champion(context, model, low) if use_champion else _trained_before(context, scores, low)
    judged = _judged(context, scores, judge, low, high)
    if judged.is_empty():
        raise SecchiError(f"{scores.inputs[0].identifier}: no final window starts from {low} to {high}")
    spans = known_labels(context, scores, judged)
    faults = spans.filter(pl.col("from_at") < high, pl.col("to_at") > low, kind="confirmed").drop("kind", "known_at")
    faults = faults.join(judged.select(GROUP).unique(), on=list(GROUP), how="semi")
    is_fault, is_found = faults_found(judged, faults)
    judged = judged.with_columns(
        is_fault.alias("is_fault"), is_labelled(judged, spans, "maintenance").alias("is_maintenance")
    )
    faults = faults.with_columns(is_found.alias("is_found"))
    names = judged.select(_things(scores)).unique(maintain_order=True)
    return Backtest(low, high, told, judged, faults, groups(judged, faults, _labelled(spans, low, high)), names)


def _things(scores: Table) -> list[str]:
    """The columns that name a device or a thing in what the model judges."""
    group = group_of(scores)
    return [*GROUP, *(PREFIX + name for name in (group.by if group else ()))]


def _trained_before(context: Context, scores: Table, low: datetime) -> tuple["Model", str]:
    table = scores.inputs[0]
    _, rows = newest_final(context, table, low, context.config.ml.max_windows // windows_a_row(scores))
    windows = judged_windows(scores, rows)
    spans = known_labels(context, scores, windows).filter(pl.col("known_at") < low)
    try:
        model, _ = fitted(context, table, windows, spans)
    except NotEnoughWindowsError as error:
        raise NotEnoughWindowsError(f"{error}; before {low}; --champion judges with the model in use") from error
    told = f"trained on {model.trained_rows} windows from before {low:%Y-%m-%d %H:%M:%SZ}"
    later = rows.filter(pl.col("corrected_at") >= low).height
    return model, f"{told}; {later} of them were corrected later, and are read as they are now" if later else told


def _champion(context: Context, name: str, low: datetime) -> tuple["Model", str]:
    stored = context.models.latest(name)
    if stored is None:
        raise SecchiError(f"model {name}: none is in use; without --champion one is trained on what is before --from")
    model = restore(stored)
    until = datetime.fromtimestamp(float(str(model.baselines["last_start"].max())) / 1e6, UTC)
    seen = "has not seen the span" if until < low else "HAS SEEN windows of the span: these figures are too good"
    return model, f"{stored.model_id} is in use, learned from windows up to {until:%Y-%m-%d %H:%M:%SZ} and {seen}"


def _judged(context: Context, scores: Table, model: "Model", low: datetime, high: datetime) -> pl.DataFrame:
    """The verdicts, part by part: the windows of a part and those that they look back at are in memory."""
    from ml.anomaly_model import judge

    source, parts = scores.inputs[0], []
    rules = holding(context.config.ml.rules(), group_of(scores))
    columns = list(dict.fromkeys((*KEY, *_things(scores), END, *_VERDICT)))
    context.lakehouse.table(source.stored, refresh=True)
    at = low
    while at < high:
        until = min(at + _PART, high)
        where = Ranges(str(source.time), [(at - window_of(scores).before, until)])
        rows = context.lakehouse.read(source.stored, where, *input_conditions(scores))
        windows = judged_windows(scores, rows.filter(~pl.col("is_retracted").fill_null(False)))
        wanted = windows.filter(pl.col(START) >= at).select(*GROUP, START).unique()
        if wanted.height:
            parts.append(judge(model, windows, rules, wanted).select(columns))
        at = until
    return pl.concat(parts) if parts else pl.DataFrame(schema=dict.fromkeys(columns, pl.Null))


def _labelled(spans: pl.DataFrame, low: datetime, high: datetime) -> pl.DataFrame:
    """The devices that somebody looked at in the span."""
    return spans.filter(pl.col("from_at") < high, pl.col("to_at") > low).select(GROUP).unique()


def groups(judged: pl.DataFrame, faults: pl.DataFrame, labelled: pl.DataFrame) -> pl.DataFrame:
    """A row a device, and one with nulls for its name over all; see ``Backtest``.

    Precision is the share of the alarms outside maintenance that meet a fault, recall the share of the faults with an
    anomaly. Both are null for devices without labels: nobody said what their alarms were.
    """
    rows = judged.join(labelled.with_columns(_has=pl.lit(True)), on=list(GROUP), how="left", maintain_order="left")
    rows = rows.with_columns(pl.col("_has").fill_null(False))
    has = pl.col("_has")
    days = (pl.col(END).max() - pl.col(START).min()) / _DAY
    told = pl.col("is_alarm") & has & ~pl.col("is_maintenance")
    counted = (
        pl.len().alias("windows"),
        pl.col("is_anomaly").sum().alias("anomalies"),
        pl.col("is_alarm").sum().alias("alarms"),
        (pl.col("is_alarm").sum() / days).alias("alarms_a_day"),
        pl.when(has.any()).then((told & pl.col("is_fault")).sum() / told.sum()).fill_nan(None).alias("precision"),
    )
    found = (pl.len().alias("faults"), pl.col("is_found").sum().alias("found"))
    own = rows.group_by(GROUP).agg(*counted).join(faults.group_by(GROUP).agg(*found), on=list(GROUP), how="left")
    own = own.with_columns(pl.col("faults", "found").fill_null(0)).sort(GROUP)
    whole = rows.select(*counted).hstack(faults.select(*found))
    every = pl.concat([own, whole], how="diagonal_relaxed")
    recall = pl.when(pl.col("faults") > 0).then(pl.col("found") / pl.col("faults")).alias("recall")
    columns = [*GROUP, "windows", "anomalies", "alarms", "alarms_a_day", "faults", "found", "precision", "recall"]
    return every.with_columns(recall).select(columns)


def write_plot(told: Backtest, path: Path) -> None:
    """Draws the alarms of each hour, and the anomalies and faults of the devices that have most of them."""
    shown = told.groups.drop_nulls("device_id").sort("alarms", "faults", descending=True).head(_SHOWN).select(GROUP)
    drawn, (above, below) = figure(f"{told.low:%Y-%m-%d %H:%M} to {told.high:%Y-%m-%d %H:%M}: {told.model}", rows=2)
    hours = told.judged.filter("is_alarm").group_by(pl.col(START).dt.truncate("1h")).len().sort(START)
    above.bar(hours[START].to_list(), hours["len"].to_list(), width=timedelta(hours=1), align="edge")  # type: ignore[arg-type]
    above.set_ylabel("alarms an hour")
    for place, device in enumerate(shown.rows()):
        mine = told.judged.filter("is_anomaly", **dict(zip(GROUP, device, strict=True)))
        below.plot(mine[START].to_list(), [place] * mine.height, "r|", markersize=12)
        spans = told.faults.filter(**dict(zip(GROUP, device, strict=True))).select("from_at", "to_at")
        for low, high in spans.rows():
            below.barh(place, high - low, left=low, height=0.8, color="tab:blue", alpha=0.3)
    below.set_yticks(
        range(shown.height), ["/".join(map(str, device)).replace(BETWEEN, "/") for device in shown.rows()], fontsize=7
    )
    below.set_ylabel("anomalies (red), faults (blue)")
    shade(above, told.faults.select("from_at", "to_at").rows(), "tab:blue", "labelled fault")
    write_png(drawn, path)
