"""The check for drift: whether recent windows and scores are like those of the training."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import dagster as dg
import polars as pl

from assets.scoring import group_of, judged_scores
from assets.table import Table
from pipelines.config import Config
from pipelines.micro_batch_run import asset_key
from pipelines.run_process import UPKEEP, open_run
from pipelines.training import is_asked_for, request_name
from resources.errors import SecchiError

if TYPE_CHECKING:
    from ml.anomaly_model import Model
    from pipelines.context import Context

DRIFT = "drift"
"""Name of the check that every table of scores has."""


@dataclass(frozen=True)
class Drift:
    """How far recent windows are from those of the training.

    Attributes:
        model_id: the model in use.
        windows: windows that the model judged and had not learned from.
        stability: population stability index of each feature and of the score; empty with too few windows.
        moved: those of them above the limit.
        told: what of it is to be said; empty if there is nothing.
        is_asked: whether a training was asked for because of it.
    """

    model_id: str
    windows: int
    stability: dict[str, float]
    moved: list[str]
    told: str
    is_asked: bool = False


def score_tables(tables: Mapping[str, Table]) -> list[Table]:
    """The tables of scores."""
    return [table for table in tables.values() if table.model is not None]


def drift_checks(config: Config, tables: Mapping[str, Table]) -> dg.AssetChecksDefinition:
    """One check a table of scores; it runs as often as the suites."""
    from ml.drift import LEAST, LIMIT

    names = {asset_key(table.identifier): table for table in score_tables(tables)}
    told = (
        "Population stability index of each feature and of the score: the windows of the last "
        f"{config.ml.recent} that the model in use judged and did not learn from, against those of its training. From "
        f"{LEAST:,} windows on, an index above {LIMIT} asks for a training."
    )

    @dg.multi_asset_check(
        name="check_drift",
        specs=[dg.AssetCheckSpec(DRIFT, asset=key, description=told) for key in names],
        can_subset=True,
        pool=UPKEEP,
        description="Compares recent scores with those of the training, and asks for another one.",
    )
    def drift(context: dg.AssetCheckExecutionContext) -> Any:
        with open_run(config, context.instance, context.run) as lakehouse:
            for key in sorted(context.selected_asset_check_keys):
                found = check_drift(lakehouse, names[key.asset_key])
                if found is None:
                    context.log.info(f"{names[key.asset_key].identifier}: no model has judged anything yet")
                else:
                    yield _result(key.asset_key, found)

    return drift


def check_drift(context: "Context", table: Table) -> Drift | None:
    """Compares a table's recent scores with their model, and asks for a training if they drifted.

    None without a model. It asks no more while a request waits, or while the newest model is younger than
    ``ml.recent``: that one has seen most of what is recent.
    """
    from ml.anomaly_model import restore
    from ml.drift import LEAST, LIMIT, stability

    name = str(table.model)
    stored = context.models.latest(name)
    if stored is None or not context.lakehouse.exists(table.stored):
        return None
    model = restore(stored)
    rows = _recent(context, table, stored.model_id, model)
    if not model.reference:
        told = "the model in use does not say how its training windows lay: it is of a version before; train again"
        return Drift(stored.model_id, rows.height, {}, ["reference"], told, _ask(context, name, told))
    if rows.height < LEAST:
        return Drift(stored.model_id, rows.height, {}, [], "")
    now = {name.removeprefix("feature_"): rows[name].to_numpy() for name in rows.columns if name != "window_start"}
    found = stability(model.reference, now)
    moved = sorted((name for name, index in found.items() if index > LIMIT), key=lambda name: -found[name])
    if not moved:
        return Drift(stored.model_id, rows.height, found, [], "")
    told = ", ".join(f"{name} {found[name]:.2f}" for name in moved)
    told = f"{rows.height} windows are not like those of the training: {told} (limit {LIMIT})"
    return Drift(stored.model_id, rows.height, found, moved, told, _ask(context, name, told))


def _ask(context: "Context", model: str, because: str) -> bool:
    from pipelines.waiting import request_training

    newest = context.models.ids(model)[-1]
    trained_at = context.models.load(model, newest).training.trained_at
    if context.clock() - trained_at < context.config.ml.recent or is_asked_for(context, model):
        return False
    request_training(context, request_name(model), because)
    return True


def _recent(context: "Context", table: Table, model_id: str, model: "Model") -> pl.DataFrame:
    """Features and scores of the windows that the model judged, with all features, and that came after its training."""
    from ml.features import FEATURE_COLUMNS
    from ml.policy import assigned, holding
    from ml.quantities import START
    from resources.file_index import bounds
    from resources.selection import FAR_FUTURE, Among, Ranges

    lakehouse = context.lakehouse
    iceberg, files = lakehouse.table(table.stored, refresh=True), lakehouse.files(table.stored)
    newest = max((found[1] for file in files if (found := bounds(iceberg, file, START))), default=None)
    learned = datetime.fromtimestamp(float(str(model.baselines["last_start"].max())) / 1e6, UTC)
    if newest is None:
        raise SecchiError(f"{table.identifier}: no file says when its windows begin; run secchi maintain")
    since = max(newest - context.config.ml.recent, learned)
    where = (Ranges(START, [(since, FAR_FUTURE)]), Among("model_id", [model_id]))
    told = [START, "score", *FEATURE_COLUMNS]
    rows = lakehouse.read(table.stored, *where, columns=list(dict.fromkeys((*table.key, *told))))
    rows = judged_scores(table, rows.filter(pl.col(START) > learned))
    # What a policy does not look at counts as usual in the score: such series are not like the training by intent.
    rules = holding(context.config.ml.rules(), group_of(table))
    whole = ~assigned(rows, rules).unwanted().any(axis=1)
    return rows.filter(pl.Series(whole)).select(told)


def _result(key: dg.AssetKey, found: Drift) -> dg.AssetCheckResult:
    indices = {f"stability_{name}": round(index, 4) for name, index in found.stability.items()}
    return dg.AssetCheckResult(
        asset_key=key,
        check_name=DRIFT,
        passed=not found.moved,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "model_id": found.model_id,
            "windows": found.windows,
            "moved": found.moved,
            "asked_for_training": found.is_asked,
            **indices,
        },
        description=found.told or None,
    )
