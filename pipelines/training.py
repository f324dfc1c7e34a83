"""Training of the anomaly model: the newest final windows become a model in the store, and their snapshot is kept."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import reduce
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from assets.scoring import group_of, judged_windows, windows_a_row
from assets.table import Table
from pipelines.config import Config
from pipelines.run_process import OWNER, UPKEEP, open_run
from resources.errors import ConfigurationError, SecchiError, SourceUnavailableError

if TYPE_CHECKING:
    from pyiceberg.table.update.snapshot import ManageSnapshots

    from ml.anomaly_model import Model
    from ml.policy import Policy
    from pipelines.context import Context

MODEL = "sensor_windows"
"""Name of the model in the store and in the declarations of the tables that use it."""

MODEL_KEY = dg.AssetKey(["ml", "sensor_window_model"])

_TAG_ATTEMPTS = 8
_TAG_PREFIX = "model-"


class NotEnoughWindowsError(SecchiError):
    """There are too few final windows to learn from; they come with time."""


@dataclass(frozen=True)
class TrainingReport:
    """What a training did.

    Attributes:
        model_id: the stored model.
        snapshot: Iceberg snapshot of the windows that it learned from.
        tag: the tag that keeps that snapshot.
        windows: final windows that were read.
        rows: windows that the model was fitted on: those of series with enough of them.
        series: series that the model knows.
        features: names of the model's inputs.
        seconds: how long it took.
        is_promoted: whether it is the model in use now.
        trials: share of recent windows called anomalies, and of injected faults found, by this model and by the one
            that was in use; empty where there was none.
    """

    model_id: str
    snapshot: int
    tag: str
    windows: int
    rows: int
    series: int
    features: tuple[str, ...]
    seconds: float
    is_promoted: bool
    trials: dict[str, float]


def models(tables: Mapping[str, Table]) -> list[str]:
    """The names of the models that tables use: that of the sensors' windows first."""
    names = sorted({table.model for table in tables.values() if table.model is not None})
    return sorted(names, key=lambda name: name != MODEL)


def model_key(model: str) -> dg.AssetKey:
    """The asset of a model."""
    return MODEL_KEY if model == MODEL else dg.AssetKey(["ml", f"{model}_model"])


def request_name(model: str) -> str:
    """How ``ops.requests`` names a model."""
    return ".".join(model_key(model).path)


def scores_table(tables: Mapping[str, Table], model: str = MODEL) -> Table:
    """The table of a model's verdicts.

    Raises:
        ConfigurationError: there is none.
    """
    users = {table.model: table for table in tables.values() if table.model is not None}
    if model not in users:
        raise ConfigurationError(f"model {model!r}: no declared table uses it; there are {sorted(map(str, users))}")
    return users[model]


def windows_table(tables: Mapping[str, Table], model: str = MODEL) -> Table:
    """The table that the model learns from: the input of those that use it."""
    return scores_table(tables, model).inputs[0]


def has_model(context: "Context", model: str = MODEL) -> bool:
    """Whether there is a model that this version can score with."""
    return _champion(context, model) is not None


def _champion(context: "Context", model: str) -> "Model | None":
    from ml.anomaly_model import restore
    from resources.model_store import ModelRefusedError

    try:
        stored = context.models.latest(model)
        return restore(stored) if stored is not None else None
    except ModelRefusedError:
        return None


def is_asked_for(context: "Context", model: str = MODEL) -> bool:
    """Whether ``ops.requests`` asks for a training of the model that was not made since."""
    from assets.ops.requests import requests
    from pipelines.waiting import TRAINING
    from resources.selection import Among

    stored = context.models.ids(model)
    if not stored or not context.lakehouse.exists(requests.stored):
        return False
    context.lakehouse.table(requests.stored, refresh=True)
    where = (Among("kind", [TRAINING]), Among("table_name", [request_name(model)]))
    asked = context.lakehouse.read(requests.stored, *where, columns=["requested_at"]).to_series()
    return asked.len() > 0 and bool((asked > context.models.load(model, stored[-1]).training.trained_at).any())


def train(context: "Context", name: str = MODEL) -> TrainingReport:
    """Trains a model on the newest final windows, stores it, and puts it to use unless it is worse than the one in use.

    Windows that are labelled confirmed or maintenance are not learned from. With the first model, the windows that were
    judged without one are asked for again.

    Raises:
        NotEnoughWindowsError: there are fewer than ``ml.min_windows``, or no series has enough of them.
    """
    from ml.anomaly_model import REFERENCE, SHIPPED
    from ml.policy import holding
    from pipelines.labels import known_labels
    from pipelines.waiting import request_rebuild
    from resources.model_store import Training

    began, settings = time.monotonic(), context.config.ml
    user, trained_at = scores_table(context.tables, name), context.clock()
    table = user.inputs[0]
    snapshot, rows = newest_final(context, table, most=settings.max_windows // windows_a_row(user))
    windows = judged_windows(user, rows)
    model, excluded = fitted(context, table, windows, known_labels(context, user, windows))
    assert snapshot is not None
    parameters: dict[str, Any] = {"trees": settings.trees, "false_alarm_rate": settings.false_alarm_rate}
    parameters[REFERENCE] = model.reference
    if settings.detector != SHIPPED:
        parameters["detector"] = settings.detector
    champion, was_current = _champion(context, name), context.models.current(name)
    rules = holding(settings.rules(), group_of(user))
    is_promoted, trials = _promoted(context, model, champion, windows.filter(~excluded), rules)
    tag = f"{_TAG_PREFIX}{trained_at:%Y%m%dT%H%M%SZ}"
    _tag(context, table, snapshot, tag)
    training = Training(snapshot, tag, trained_at, settings.seed, model.trained_rows, model.features, parameters)
    model_id = context.models.save(name, model.state, model.baselines, training, is_current=is_promoted)
    if was_current is None:
        asked = rows.select(pl.col(str(table.time)).min().alias("from"), pl.col("window_end").max().alias("to")).row(0)
        request_rebuild(context, user.identifier, *asked)
    return TrainingReport(
        model_id=model_id,
        snapshot=snapshot,
        tag=tag,
        windows=windows.height,
        rows=model.trained_rows,
        series=model.baselines.height,
        features=model.features,
        seconds=time.monotonic() - began,
        is_promoted=is_promoted,
        trials=trials,
    )


def fitted(context: "Context", table: Table, windows: pl.DataFrame, spans: pl.DataFrame) -> tuple["Model", pl.Series]:
    """A model of the windows as ``[ml]`` asks for it, and which of them the labels leave out; stores nothing.

    Raises:
        NotEnoughWindowsError: there are fewer than ``ml.min_windows``, or no series has enough of them.
    """
    from ml.anomaly_model import train as fit
    from pipelines.labels import is_labelled

    settings = context.config.ml
    if windows.height < settings.min_windows:
        raise NotEnoughWindowsError(
            f"{table.identifier}: {windows.height} final windows; a model needs ml.min_windows = {settings.min_windows}"
        )
    excluded = is_labelled(windows, spans, "confirmed", "maintenance")
    false_alarms = is_labelled(windows, spans, "false_alarm")
    try:
        model = fit(
            windows,
            trees=settings.trees,
            seed=settings.seed,
            excluded=excluded,
            false_alarms=false_alarms,
            name=settings.detector,
        )
    except ValueError as error:
        raise NotEnoughWindowsError(f"{table.identifier}: {error}") from error
    return model, excluded


def _promoted(
    context: "Context",
    challenger: "Model",
    champion: "Model | None",
    windows: pl.DataFrame,
    rules: "list[Policy]",
) -> tuple[bool, dict[str, float]]:
    """Whether the challenger takes the champion's place, and how both did on the recent windows."""
    from ml.evaluation import is_not_worse, tried

    if champion is None:
        return True, {}
    newest = windows["window_start"].max()
    assert isinstance(newest, datetime)
    recent = windows.filter(pl.col("window_start") > newest - context.config.ml.recent)
    ours, theirs = tried(challenger, recent, rules), tried(champion, recent, rules)
    trials = {
        "false_alarms": ours.false_alarms,
        "found": ours.found,
        "champion_false_alarms": theirs.false_alarms,
        "champion_found": theirs.found,
    }
    return is_not_worse(ours, theirs, context.config.ml.false_alarm_rate), trials


def _tag_of(model_id: str) -> str:
    """The tag of a model's snapshot: the store's id of a model begins with the time of its training."""
    return _TAG_PREFIX + model_id.partition("-")[0]


def newest_final(
    context: "Context", table: Table, before: datetime | None = None, most: int | None = None
) -> tuple[int | None, pl.DataFrame]:
    """The table's snapshot and its newest final windows before a time, at most ``most`` (``ml.max_windows``)."""
    from resources.selection import FAR_FUTURE, FAR_PAST, Among, Ranges

    lakehouse, most, time_column = context.lakehouse, most or context.config.ml.max_windows, str(table.time)
    until = before or FAR_FUTURE
    snapshot = lakehouse.table(table.stored, refresh=True).current_snapshot()
    if snapshot is None:
        return None, pl.DataFrame(schema=table.schema)
    where = (Among("is_final", [True]), Ranges(time_column, [(FAR_PAST, until)]))
    starts = lakehouse.read(table.stored, *where, columns=[time_column]).to_series()
    if len(starts) <= most:
        return snapshot.snapshot_id, lakehouse.read(table.stored, *where)
    newest = Ranges(time_column, [(starts.top_k(most).min(), until)])
    rows = lakehouse.read(table.stored, *where, newest)
    return snapshot.snapshot_id, rows.sort(time_column, *table.key, descending=True).head(most)


def _tag(context: "Context", table: Table, snapshot: int, tag: str) -> None:
    """Tags a snapshot; maintenance never expires a tagged one."""
    _change_tags(context, table, lambda snapshots: snapshots.create_tag(snapshot, tag))


def _change_tags(context: "Context", table: Table, change: Callable[["ManageSnapshots"], "ManageSnapshots"]) -> None:
    """Commits a change of tags.

    Raises:
        SourceUnavailableError: other commits came between every time.
    """
    from pyiceberg.exceptions import CommitFailedException

    for _ in range(_TAG_ATTEMPTS):
        iceberg = context.lakehouse.table(table.stored, refresh=True)
        try:
            change(iceberg.manage_snapshots()).commit()
        except CommitFailedException:
            continue
        return
    raise SourceUnavailableError(f"{table.identifier}: {_TAG_ATTEMPTS} attempts to tag a snapshot met another writer")


def drop_old_models(context: "Context", table: Table) -> int:
    """Deletes the models of a table's windows but for the one in use and the newest, and lets go of their snapshots.

    A tag goes only when it is older than every model that is left: one without a model may be of a training that is
    about to store it. Returns the number of models deleted.
    """
    from pyiceberg.table.update.snapshot import ManageSnapshots

    names = [n for n in models(context.tables) if windows_table(context.tables, n).identifier == table.identifier]
    if not names:
        return 0
    old, kept = [], []
    for name in names:
        stored, current = context.models.ids(name), context.models.current(name)
        ours = {*stored[-context.config.ml.keep_models :], current}
        kept += [model_id for model_id in stored if model_id in ours]
        for model_id in stored:
            if model_id not in ours:
                context.models.delete(name, model_id)
                old.append(model_id)
    first = min(map(_tag_of, kept), default="")
    refs = context.lakehouse.table(table.stored, refresh=True).refs()
    if tags := [name for name in refs if name.startswith(_TAG_PREFIX) and name < first]:
        _change_tags(context, table, lambda snapshots: reduce(ManageSnapshots.remove_tag, tags, snapshots))
    return len(old)


def training_asset(config: Config, tables: Mapping[str, Table]) -> dg.AssetsDefinition:
    """The models as assets: materializing one trains a new one."""
    names = {model_key(name): name for name in models(tables)}

    @dg.multi_asset(
        name="train",
        specs=[_spec(key, name, windows_table(tables, name)) for key, name in names.items()],
        can_subset=True,
        pool=UPKEEP,
        description="Trains the models of what tells enough.",
    )
    def trained(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[None]]:
        short = None
        with open_run(config, context.instance, context.run) as lakehouse:
            for key in sorted(context.selected_asset_keys, key=lambda key: names[key]):
                try:
                    yield _told(key, train(lakehouse, names[key]))
                except NotEnoughWindowsError as error:
                    context.log.info(str(error))
                    short = error if names[key] == MODEL else short
        if short is not None:
            raise short

    return trained


def _spec(key: dg.AssetKey, model: str, windows: Table) -> dg.AssetSpec:
    of = "the windows of every sensor" if model == MODEL else f"the group {model!r}"
    return dg.AssetSpec(
        key,
        deps=[dg.AssetKey([windows.layer, windows.name])],
        description=f"The isolation forest that judges {of}, calibrated for each series. "
        "It learns from the newest final windows; their snapshot is tagged and kept, so a score can be traced to them.",
        kinds={"scikitlearn", "polars"},
        owners=[OWNER],
        group_name="ml",
        skippable=True,
    )


def _told(key: dg.AssetKey, report: TrainingReport) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(
        asset_key=key,
        metadata={
            "rows": report.rows,
            "windows": report.windows,
            "series": report.series,
            "features": list(report.features),
            "seconds": round(report.seconds, 3),
            "model_id": report.model_id,
            "snapshot": str(report.snapshot),
            "tag": report.tag,
            "is_promoted": report.is_promoted,
            **report.trials,
        },
    )
