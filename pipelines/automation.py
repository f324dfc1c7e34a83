"""When things run: the jobs, the sensors that ask for micro-batches and for the first model, and the schedules."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import dagster as dg

from assets.table import Table
from pipelines.config import Config
from pipelines.dagster_assets import MAINTENANCE, MICRO_BATCH, streaming
from pipelines.drift import DRIFT, score_tables
from pipelines.housekeeping import HOUSEKEEPING
from pipelines.micro_batch_run import FAILED_TABLES, asset_key
from pipelines.quality import EXPECTATIONS
from pipelines.readiness import is_ready, why_untrained
from pipelines.run_process import fail_dead_runs, in_flight
from pipelines.training import has_model, is_asked_for, model_key, models
from resources.errors import SecchiError, SourceUnavailableError

if TYPE_CHECKING:
    from dagster._core.definitions.unresolved_asset_job_definition import UnresolvedAssetJobDefinition

    from pipelines.context import Context

HOUSEKEEPING_SCHEDULE = "17 * * * *"

_FIRST_DELAY, _LONGEST_DELAY, _MOST_FAILURES = 5.0, 300.0, 8
_LONG_ENOUGH = 60.0
_TRAINING_PAUSE = 600.0
_LONGEST_RUN = 3600
"""Seconds that a run may go on beyond what it is meant to: Dagster ends it then."""

Evaluation = dg.RunRequest | dg.SkipReason


def jobs(config: Config, tables: Mapping[str, Table]) -> "list[UnresolvedAssetJobDefinition]":
    """One job a rhythm; each is one op and so one process."""
    carried = dg.AssetSelection.assets(*(asset_key(t.identifier) for t in streaming(tables)))
    checks = [dg.AssetCheckKey(asset_key(identifier), EXPECTATIONS) for identifier in tables]
    drift = [dg.AssetCheckKey(asset_key(table.identifier), DRIFT) for table in score_tables(tables)]
    trained = dg.AssetSelection.assets(*map(model_key, models(tables)))
    longest = int(config.micro_batch.duration.total_seconds()) + _LONGEST_RUN
    return [
        # The contract checks are told by the op, of the tables to which something came; a check that a run has promised
        # and does not tell would show as skipped.
        _job(MICRO_BATCH, carried.without_checks(), longest, "Carries what landed through every layer.", priority=10),
        _job("quality", dg.AssetSelection.checks(*checks), _LONGEST_RUN, "Runs the suites over recent rows."),
        _job("drift", dg.AssetSelection.checks(*drift), _LONGEST_RUN, "Compares recent scores with the training."),
        _job("training", trained, _LONGEST_RUN, "Trains new anomaly models."),
        _job("maintenance", dg.AssetSelection.assets(MAINTENANCE), _LONGEST_RUN, "Upkeep of the tables."),
        _job("housekeeping", dg.AssetSelection.assets(HOUSEKEEPING), _LONGEST_RUN, "Deletes Dagster's old runs."),
    ]


def _job(
    name: str, selection: dg.AssetSelection, longest: int, description: str, priority: int = 0
) -> "UnresolvedAssetJobDefinition":
    tags = {"dagster/priority": str(priority), "dagster/max_runtime": str(longest)}
    return dg.define_asset_job(name, selection, description=description, tags=tags, executor_def=dg.in_process_executor)


@dataclass(frozen=True)
class Failures:
    """The failed runs of a job: how many since one was good or long, when the last ended, which tables failed."""

    count: int = 0
    ended_at: float = 0.0
    tables: frozenset[str] = frozenset()

    def is_over(self, now: float) -> bool:
        """Whether enough time has passed to try again: 5 s after the first failure, 5 minutes at most."""
        if not self.count:
            return True
        delay: float = min(_FIRST_DELAY * 2 ** (self.count - 1), _LONGEST_DELAY)
        return now >= self.ended_at + delay


def recent_failures(instance: dg.DagsterInstance, job: str = MICRO_BATCH) -> Failures:
    """Looks at the last runs of a job; one that ended after a minute has carried much and starts the count anew."""
    ended = dg.RunsFilter(job_name=job, statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE])
    records = instance.get_run_records(ended, limit=_MOST_FAILURES)
    count = 0
    for record in records:
        if record.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
            break
        count += 1
        if (record.end_time or 0.0) - (record.start_time or record.end_time or 0.0) >= _LONG_ENOUGH:
            break
    if not count:
        return Failures()
    names = records[0].dagster_run.tags.get(FAILED_TABLES, "")
    return Failures(count, records[0].end_time or 0.0, frozenset(names.split(",")) - {""})


def without(tables: Mapping[str, Table], failed: Iterable[str]) -> dict[str, Table]:
    """The tables that neither failed nor depend on one that did."""
    held, rest = set(failed), {}
    for identifier, table in tables.items():
        if identifier in held or held & {t.identifier for t in table.inputs}:
            held.add(identifier)
        else:
            rest[identifier] = table
    return rest


def reason_to_run(context: "Context", failures: Failures, now: float) -> str | None:
    """Why micro-batches should be carried now, or None. Tables that failed lately are given time, others not held."""
    from pipelines.bronze_step import recover
    from pipelines.micro_batch import is_behind

    tables = context.tables
    if not failures.is_over(now):
        tables = without(tables, failures.tables) if failures.tables else {}
    bronze = [t for t in tables.values() if t.landing is not None]
    if not bronze:
        return None  # a failed run that named no table, or landing cannot be taken in: wait
    try:
        for table in bronze:
            recover(context, table)
        return is_behind(replace(context, tables=tables))
    except SourceUnavailableError:
        raise
    except SecchiError as error:
        return str(error)  # the run carries the other tables and tells which one this is about


def _contexts(config: Config) -> Callable[[], "Context"]:
    """Opens the lakehouse once a process, when a sensor is first evaluated."""

    @cache
    def context() -> "Context":
        from pipelines.context import open_context

        return open_context(config, "sensor")

    return context


def micro_batches_sensor(config: Config) -> dg.SensorDefinition:
    """Asks for a run when there is something to carry and no run is at it."""
    opened = _contexts(config)

    @dg.sensor(
        job_name=MICRO_BATCH,
        name="micro_batches",
        # Dagster looks at its sensors every 5 s. With an interval of 5 it often finds one a few ms too early, and the
        # sensor is evaluated every 10 s.
        minimum_interval_seconds=2,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for a run when landing has sealed segments, a table is behind an input, or a window is due.",
    )
    def micro_batches(context: dg.SensorEvaluationContext) -> Evaluation:
        for run_id in fail_dead_runs(context.instance, config):
            context.log.warning(f"run {run_id[:8]}: its process is gone; it is reported as failed")
        if busy := in_flight(context.instance, MICRO_BATCH):
            return dg.SkipReason(busy)
        failures = recent_failures(context.instance)
        try:
            reason = reason_to_run(opened(), failures, time.time())
        except SourceUnavailableError as error:
            return dg.SkipReason(str(error))
        if reason:
            return dg.RunRequest(tags={"secchi/reason": reason})
        waiting = f"; {', '.join(sorted(failures.tables))} failed and is tried again later" if failures.tables else ""
        return dg.SkipReason(f"nothing to carry{waiting}")

    return micro_batches


def first_model_sensor(config: Config) -> dg.SensorDefinition:
    """Asks for a training as soon as there is something to learn from; after that the schedule does, and drift."""
    opened = _contexts(config)

    @dg.sensor(
        job_name="training",
        name="first_model",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Asks for a training when there is no usable model and there are ml.min_windows final windows, or "
        "when ops.requests asks for one since the last.",
    )
    def first_model(context: dg.SensorEvaluationContext) -> Evaluation:
        if busy := in_flight(context.instance, "training"):
            return dg.SkipReason(busy)
        if time.time() < recent_failures(context.instance, "training").ended_at + _TRAINING_PAUSE:
            return dg.SkipReason("the last training failed a while ago; it is tried again later")
        try:
            wanted = [name for name in models(opened().tables) if _is_wanted(opened(), name)]
            if not wanted and has_model(opened()):
                return dg.SkipReason("there is a model")
            if not wanted:
                return dg.SkipReason(str(why_untrained(opened())))
        except SecchiError as error:
            return dg.SkipReason(str(error))
        return dg.RunRequest(asset_selection=[model_key(name) for name in wanted])

    return first_model


def _is_wanted(context: "Context", model: str) -> bool:
    """Whether a model can be trained and is not there, or a training is asked for."""
    return is_asked_for(context, model) if has_model(context, model) else is_ready(context, model)


def schedules(config: Config) -> list[dg.ScheduleDefinition]:
    """The schedules, each of the job of its name."""
    return [
        _schedule("quality", config.quality.schedule),
        _schedule("drift", config.quality.schedule),
        _schedule("training", config.ml.schedule),
        _schedule("maintenance", config.maintenance.schedule),
        _schedule("housekeeping", HOUSEKEEPING_SCHEDULE),
    ]


def _schedule(job: str, cron: str) -> dg.ScheduleDefinition:
    @dg.schedule(
        cron_schedule=cron,
        job_name=job,
        name=f"{job}_schedule",
        default_status=dg.DefaultScheduleStatus.RUNNING,
    )
    def evaluate(context: dg.ScheduleEvaluationContext) -> Evaluation:
        if busy := in_flight(context.instance, job):
            return dg.SkipReason(busy)
        return dg.RunRequest()

    return evaluate
